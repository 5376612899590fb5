"""Cascade plans: costs against a replay by a real cascade, conditions, recommendations, latency."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.data.records import PerformanceRecord
from routelearn.routers.base import Model
from routelearn.routers.errors import InputError
from routelearn.training.cascade_analysis import (
    Asked,
    Latency,
    all_points,
    asked_both,
    cheapest,
    frontier,
    joint_scores,
    latency_tails,
    run_policy,
    sensitivity,
)
from routelearn.training.cascade_command import parse_latencies
from routelearn.training.cascade_plan import _conditions, _recommend

STRONG, WEAK = Model("strong", 10.0, 30.0), Model("weak", 0.5, 1.5)


def asked(n: int = 400, seed: int = 0) -> tuple[Asked, np.ndarray, np.ndarray]:
    """Weak's answers with a confidence that is calibrated, and a router that knows less."""
    random = np.random.default_rng(seed)
    confidence = random.beta(2, 1, n)
    weak = (random.random(n) < confidence).astype(float)
    strong = (random.random(n) < 0.9).astype(float)
    cost = random.uniform(0.5, 1.5, n)
    found = Asked(["q"] * n, ["a"] * n, [str(i) for i in range(n)], weak, strong, cost * 1e-4, cost * 2e-3)
    return found, np.clip(1 - confidence + random.normal(0, 0.3, n), 0, 1), confidence


@given(st.floats(0, 1), st.floats(0, 1))
def test_escalation_rate_and_cost_rise_with_the_threshold(a: float, b: float) -> None:
    found, _, confidence = asked(100)
    low, high = (run_policy(found, None, confidence, None, value) for value in sorted((a, b)))
    assert low.escalation_rate <= high.escalation_rate
    assert low.cost <= high.cost + 1e-12


def test_expected_cost_is_the_formulas() -> None:
    found, _, confidence = asked()
    point = run_policy(found, None, confidence, None, 0.6, verifier_cost=1e-5)
    escalated = confidence < 0.6
    expected = found.weak_cost.mean() + 1e-5 + escalated.mean() * found.strong_cost[escalated].mean()
    assert point.cost == pytest.approx(1000 * expected)
    assert point.escalation_rate == escalated.mean()
    assert point.quality == pytest.approx(np.where(escalated, found.strong, found.weak).mean())


def test_the_ends_of_the_curve_are_the_models_alone() -> None:
    found, scores, confidence = asked()
    points = all_points(found, scores, confidence)
    assert points["cascade"][0].quality == pytest.approx(found.weak.mean())
    assert points["cascade"][-1].quality == pytest.approx(found.strong.mean())
    assert points["cascade"][-1].cost == pytest.approx(1000 * (found.weak_cost + found.strong_cost).mean())
    assert points["route"][0].cost == pytest.approx(1000 * found.strong_cost.mean())
    assert points["route"][-1].cost == pytest.approx(1000 * found.weak_cost.mean())


def test_what_goes_straight_to_strong_does_not_pay_for_weak() -> None:
    found, scores, confidence = asked()
    both = run_policy(found, scores, confidence, 0.5, 0.6)
    cascade = run_policy(found, None, confidence, None, 0.6)
    direct = scores >= 0.5
    assert both.strong_share == pytest.approx((direct | (confidence < 0.6)).mean())
    assert both.escalation_rate == pytest.approx((~direct & (confidence < 0.6)).mean())
    saved = found.weak_cost[direct].sum() - found.strong_cost[direct & (confidence >= 0.6)].sum()
    assert (cascade.cost - both.cost) * len(found) / 1000 == pytest.approx(saved)


def test_the_frontier_holds_the_cheapest_point_of_every_quality() -> None:
    found, scores, confidence = asked()
    points = all_points(found, scores, confidence)["both"]
    kept = frontier(points)
    assert all(a.cost < b.cost and a.quality < b.quality for a, b in itertools.pairwise(kept))
    for goal in (0.7, 0.8, 0.85):
        a, b = cheapest(points, goal), cheapest(kept, goal)
        assert (a is None and b is None) or (a is not None and b is not None and a.cost == b.cost)


def test_joint_scores_escalate_where_strong_gains_not_where_both_fail() -> None:
    scores = joint_scores(np.array([0.9, 0.1]), np.array([0.3, 0.05]))
    assert scores[0] > scores[1]
    assert scores.tolist() == pytest.approx([0.8, 0.525])


def test_sensitivity_is_the_slope_at_the_threshold() -> None:
    found, _, _ = asked(2000)
    confidence = np.linspace(0, 1, 2000)
    point = run_policy(found, None, confidence, None, 0.5)
    slope = sensitivity(found, None, confidence, point, 0.0)
    assert slope is not None
    assert slope.escalation == pytest.approx(0.01, rel=0.05)  # of evenly spread confidence, 0.01 of the answers
    assert slope.cost > 0


def test_records_become_costs_by_prices_and_tokens_unless_they_say_themselves() -> None:
    records = [
        PerformanceRecord("q" * 400, "weak", 0.0, response="a" * 200),
        PerformanceRecord("q" * 400, "strong", 1.0),
        PerformanceRecord("r", "weak", 1.0, cost_usd=0.25, response="b"),
        PerformanceRecord("r", "strong", 1.0, cost_usd=0.5, response="c"),
        PerformanceRecord("only strong", "strong", 1.0),
    ]
    found = asked_both(records, STRONG, WEAK, output_tokens=100)
    assert len(found) == 2
    assert found.weak_cost.tolist() == pytest.approx([(100 * 0.5 + 50 * 1.5) / 1e6, 0.25])
    assert found.strong_cost.tolist() == pytest.approx([(100 * 10 + 100 * 30) / 1e6, 0.5])
    alike = asked_both(records, STRONG, WEAK)
    assert alike.strong_cost[0] == pytest.approx((100 * 10 + 50 * 30) / 1e6)  # as long as weak's answer


def test_no_prices_and_no_responses_are_named() -> None:
    records = [PerformanceRecord("q", "weak", 0.0), PerformanceRecord("q", "strong", 1.0)]
    with pytest.raises(InputError, match="no prices of 'strong'"):
        asked_both(records, Model("strong"), WEAK)
    with pytest.raises(InputError, match="no query has a response of 'weak'"):
        asked_both(records, STRONG, WEAK)


def test_a_sharp_verifier_makes_the_cascade_the_recommendation_and_a_blind_one_does_not() -> None:
    found, _, confidence = asked(3000)
    goal = 0.97 * found.strong.mean()
    sharp = all_points(found, 1 - np.random.default_rng(1).random(3000), confidence)
    best = {kind: cheapest(points, goal) for kind, points in sharp.items()}
    strong_cost = float(found.strong_cost.mean() * 1000)
    assert _recommend(best, strong_cost, goal)[0] in {"cascade", "route and cascade"}
    blind = all_points(found, 1 - confidence, np.random.default_rng(2).random(3000))
    best = {kind: cheapest(points, goal) for kind, points in blind.items()}
    assert _recommend(best, strong_cost, goal)[0] == "route"


def test_when_nothing_is_cheaper_strong_alone_is_recommended() -> None:
    found, _, _ = asked(3000)
    dear = replace(found, weak_cost=found.strong_cost)
    noise = np.random.default_rng(3).random((2, 3000))
    points = all_points(dear, noise[0], noise[1])
    goal = 0.999 * dear.strong.mean()
    best = {kind: cheapest(p, goal) for kind, p in points.items()}
    name, reasons = _recommend(best, float(dear.strong_cost.mean() * 1000), goal)
    assert name == "strong alone"
    assert reasons


@pytest.mark.parametrize(("rate", "holds"), [(0.2, True), (0.35, None), (0.6, False)])
def test_the_surveys_first_condition_at_its_borders(rate: float, holds: bool | None) -> None:
    found, _, confidence = asked(1000)
    point = replace(run_policy(found, None, confidence, None, 0.5), escalation_rate=rate)
    first, second, third = _conditions(point, (0.1, 0.6), None, None)
    assert first.holds is holds
    assert second.holds is True and third.holds is None
    assert _conditions(point, (0.2, 0.6), None, None)[1].holds is False


def test_an_escalated_request_waits_for_both_models() -> None:
    found, _, confidence = asked()
    point = run_policy(found, None, confidence, None, 0.5)
    tails = latency_tails({"weak": Latency(1.0, 1.0), "strong": Latency(3.0, 3.0)}, "strong", "weak", point, 0.5, 0)
    assert tails["escalated"] == pytest.approx((4.5, 4.5, 4.5))
    assert tails["weak accepted"] == pytest.approx((1.5, 1.5, 1.5))
    spread = latency_tails({"weak": Latency(1.0, 3.0), "strong": Latency(3.0, 9.0)}, "strong", "weak", point, 0.0, 0)
    assert spread["weak accepted"][:2] == pytest.approx((1.0, 3.0), rel=0.03)
    assert spread["all"][1] < spread["escalated"][1]
    _, _, latency = _conditions(point, (0.1, 0.6), spread, 100.0)
    assert latency.holds is True


@pytest.mark.parametrize("value", ["weak", "weak=1", "weak=2/1", "=1/2", "weak=a/b", "weak=0/1"])
def test_a_latency_that_cannot_be_read_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="--latency"):
        parse_latencies([value])
    assert parse_latencies(["a=b=1/2"])["a=b"] == Latency(1.0, 2.0)
