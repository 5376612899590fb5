"""The interval of always-strong's cost, against simulated traffic of which it is known."""

from __future__ import annotations

import numpy as np
import pytest

from routelearn.monitoring.savings import Savings
from routelearn.monitoring.savings_report import SavingsReport
from routelearn.monitoring.served_call import ServedCall
from routelearn.policies.prompt_cache import cacheable
from routelearn.policies.switch_price import request_cost
from routelearn.routers.decision import Model

STRONG, WEAK = Model("strong", 3.0, 15.0, cached_input_price=0.3), Model("weak", 0.3, 1.5, cached_input_price=0.03)


def simulated(seed: int, *, sessions: int, keeps: bool, explore: float = 0.1) -> tuple[float, SavingsReport]:
    """The true cost of always-strong, and what is said of it.

    Strong writes 1.7 times as much as weak on half of the requests, and twice as much again on hard ones, which the
    router sends to strong: no ratio of the mean lengths is right. Providers cache as they do.
    """
    random = np.random.default_rng(seed)
    savings, truth, time = Savings([STRONG, WEAK]), 0.0, 0.0
    for session in range(sessions):
        hard, tokens, before, model = random.random() < 0.3, int(random.integers(100, 1500)), 0, ""
        read: dict[str, int] = {}
        for turn in range(int(random.integers(1, 8))):
            time += 1.0
            own, propensity = "strong" if hard else "weak", 1.0
            if turn == 0 or not keeps:
                model = ("strong", "weak")[random.integers(2)] if random.random() < explore else own
                propensity = 1 - explore / 2 if model == own else explore / 2
            short = 1 + int(np.exp(random.normal(5, 0.6)))
            long = int(short * (1.7 if random.random() < 0.5 else 1.0) * (2 if hard else 1))
            written = long if model == "strong" else short
            cached = cacheable(min(read.get(model, 0), tokens))
            savings.add(
                ServedCall(
                    model=model,
                    strong="strong",
                    session=str(session),
                    input_tokens=tokens,
                    cached_tokens=cached,
                    output_tokens=written,
                    cost_usd=request_cost(STRONG if model == "strong" else WEAK, tokens, cached, written),
                    propensity=propensity,
                    time=time,
                )
            )
            truth += request_cost(STRONG, tokens, cacheable(before), long) or 0.0
            read[model] = before = tokens
            tokens += 150 + int(random.integers(0, 800))
    return truth, savings.report()


@pytest.mark.parametrize(("keeps", "sessions"), [(False, 500), (True, 1600)])
def test_the_interval_covers_the_true_cost_in_at_least_ninety_of_a_hundred_simulations(
    keeps: bool, sessions: int
) -> None:
    covered = counted = 0
    errors = []
    for seed in range(25):
        truth, report = simulated(seed, sessions=sessions, keeps=keeps)
        if report.interval is None:
            assert "strong was drawn against the router's choice" in report.why_no_interval
            continue
        low, high = report.interval.always_strong_usd
        counted += 1
        covered += low <= truth <= high
        errors.append(report.always_strong_usd / truth - 1)
        assert report.interval.saved_usd[0] <= report.saved_usd <= report.interval.saved_usd[1]
    assert counted >= 20
    assert covered >= 0.9 * counted
    assert abs(np.mean(errors)) < 0.02


def test_without_exploration_there_is_no_interval_and_the_report_says_why() -> None:
    _, report = simulated(0, sessions=50, keeps=False, explore=0.0)
    assert report.interval is None
    assert report.why_no_interval.startswith("no model was drawn at random; expected exploration")
    assert report.always_strong_usd == report.modelled_usd


def test_exploration_of_a_part_of_the_traffic_gives_no_interval() -> None:
    savings = Savings([STRONG, WEAK])
    for number in range(400):
        drawn = number % 2 == 0
        savings.add(
            ServedCall(
                model="strong" if number % 10 == 0 else "weak",
                strong="strong",
                input_tokens=1000,
                output_tokens=100,
                propensity=(0.1 if number % 10 == 0 else 0.9) if drawn else 1.0,
                time=0.0,
            )
        )
    report = savings.report()
    assert report.interval is None
    assert "exploration says nothing of 50% of what always-strong costs" in report.why_no_interval


def test_a_drawn_strong_model_that_another_one_stood_in_for_is_no_measurement() -> None:
    savings = Savings([STRONG, WEAK])
    for _ in range(100):
        savings.add(
            ServedCall(
                model="weak",
                chosen="strong",
                strong="strong",
                input_tokens=9,
                output_tokens=9,
                propensity=0.1,
                time=0.0,
            )
        )
    assert savings.report().why_no_interval.startswith("no model was drawn at random")


def test_draws_of_a_third_model_do_not_bias_the_estimate() -> None:
    """Strong writes 400 tokens where the router would choose it, and 100 where it would choose weak."""
    random = np.random.default_rng(0)
    pool = [STRONG, WEAK, Model("middle", 1.0, 5.0)]
    savings, truth = Savings(pool), 0.0
    for _ in range(12_000):
        own, written = ("strong", 400) if random.random() < 0.3 else ("weak", 100)
        model = pool[random.integers(3)].name if random.random() < 0.6 else own
        savings.add(
            ServedCall(
                model=model,
                strong="strong",
                input_tokens=100,
                output_tokens=written if model == "strong" else 50,
                propensity=0.6 if model == own else 0.2,
                time=0.0,
            )
        )
        truth += (100 * 3 + written * 15) / 1e6
    report = savings.report()
    assert report.interval is not None
    assert report.always_strong_usd == pytest.approx(truth, rel=0.03)
    assert report.interval.always_strong_usd[0] <= truth <= report.interval.always_strong_usd[1]
