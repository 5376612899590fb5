"""Cascade plans: costs against a replay by a real cascade, conditions, recommendations, latency."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.cascade.backends import Answer
from routelearn.cascade.cascade import Cascade
from routelearn.cascade.confidence import Ask, Estimate
from routelearn.cascade.tiers import Tier
from routelearn.cli.cascade_plan import parse_latencies
from routelearn.data.records import PerformanceRecord
from routelearn.evaluation.cascade_plan.analysis import (
    run_policy,
    sensitivity,
)
from routelearn.evaluation.cascade_plan.answered_queries import AnsweredQueries, answered_queries
from routelearn.evaluation.cascade_plan.latency_tail import Latency, latency_tails
from routelearn.evaluation.cascade_plan.plan import CascadePlan, plan_cascade
from routelearn.evaluation.cascade_plan.recommendation import conditions
from routelearn.evaluation.cascade_plan.report import sentences, write_plan
from routelearn.evaluation.cascade_plan.search import families
from routelearn.routers.base import Link, Router
from routelearn.routers.decision import Model
from routelearn.routers.errors import InputError
from routelearn.routers.query import Query

STRONG, WEAK = Model("strong", 10.0, 30.0), Model("weak", 0.5, 1.5)


def asked(n: int = 400, seed: int = 0) -> tuple[AnsweredQueries, np.ndarray, np.ndarray]:
    """Weak's answers with a confidence that is calibrated, and a router that knows less."""
    random = np.random.default_rng(seed)
    confidence = random.beta(2, 1, n)
    weak = (random.random(n) < confidence).astype(float)
    strong = (random.random(n) < 0.9).astype(float)
    cost = random.uniform(0.5, 1.5, n)
    answered = AnsweredQueries(
        queries=["q"] * n,
        answers=["a"] * n,
        keys=[str(i) for i in range(n)],
        weak=weak,
        strong=strong,
        weak_cost=cost * 1e-4,
        strong_cost=cost * 2e-3,
    )
    return answered, np.clip(1 - confidence + random.normal(0, 0.3, n), 0, 1), confidence


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


def test_the_ends_of_each_family_are_the_models_alone() -> None:
    found, scores, confidence = asked()
    plans = families(found, scores, confidence)
    assert plans["cascade"].quality[0, 0] == pytest.approx(found.weak.mean())
    assert plans["cascade"].quality[0, -1] == pytest.approx(found.strong.mean())
    assert plans["cascade"].cost[0, -1] == pytest.approx(1000 * (found.weak_cost + found.strong_cost).mean())
    assert plans["route"].cost[0, 0] == pytest.approx(1000 * found.strong_cost.mean())
    assert plans["route"].cost[-1, 0] == pytest.approx(1000 * found.weak_cost.mean())
    assert plans["both"].cost[0] == pytest.approx(1000 * found.strong_cost.mean())  # every query is direct


def test_what_goes_straight_to_strong_does_not_pay_for_weak() -> None:
    found, scores, confidence = asked()
    both = run_policy(found, scores, confidence, 0.5, 0.6)
    cascade = run_policy(found, None, confidence, None, 0.6)
    direct = scores >= 0.5
    assert both.strong_share == pytest.approx((direct | (confidence < 0.6)).mean())
    assert both.escalation_rate == pytest.approx((~direct & (confidence < 0.6)).mean())
    saved = found.weak_cost[direct].sum() - found.strong_cost[direct & (confidence >= 0.6)].sum()
    assert (cascade.cost - both.cost) * len(found) / 1000 == pytest.approx(saved)


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
    found = answered_queries(records, STRONG, WEAK, output_tokens=100)
    assert len(found) == 2
    assert found.weak_cost.tolist() == pytest.approx([(100 * 0.5 + 50 * 1.5) / 1e6, 0.25])
    assert found.strong_cost.tolist() == pytest.approx([(100 * 10 + 100 * 30) / 1e6, 0.5])
    alike = answered_queries(records, STRONG, WEAK)
    assert alike.strong_cost[0] == pytest.approx((100 * 10 + 50 * 30) / 1e6)  # as long as weak's answer


def test_no_prices_and_no_responses_are_named() -> None:
    records = [PerformanceRecord("q", "weak", 0.0), PerformanceRecord("q", "strong", 1.0)]
    with pytest.raises(InputError, match=r"no prices are known for \['strong'\]"):
        answered_queries(records, Model("strong"), WEAK)
    with pytest.raises(InputError, match="no query has a response of 'weak'"):
        answered_queries(records, STRONG, WEAK)


class KnownVerifier:
    """A verifier whose confidence is the number that the answer ends with."""

    needs_prior = False
    models = ("weak",)
    manifest = SimpleNamespace(training={"config": {"good_at": 0.5}})

    def confidence(
        self, queries: Sequence[Query], answers: Sequence[str], priors: Sequence[float] | None = None
    ) -> np.ndarray:
        return np.array([float(answer.split()[-1]) for answer in answers], np.float32)

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        return Estimate(float(self.confidence([query], [answer.text])[0]))


class KnownRouter(Router):
    """A router whose score is the number that the query ends with."""

    def __init__(self, link: Link = "difference") -> None:
        super().__init__([STRONG, WEAK], "strong", "weak", link=link)

    def quality(self, queries: Sequence[Query]) -> np.ndarray:
        scores = np.array([float(str(query).split()[-1]) for query in queries], np.float32)
        return np.stack([scores, 1 - scores], axis=1)


def answered(n: int, *, sharp: bool, seed: int = 0, lazy: bool = False) -> list[PerformanceRecord]:
    """Records of n queries; a sharp verifier knows weak's chances, a blind one guesses (and the router knows them)."""
    random = np.random.default_rng(seed)
    records = []
    for number in range(n):
        chance = random.beta(2, 1)
        known, guess = f"{chance:.4f}", f"{random.random():.4f}"
        query = f"{'word ' * int(random.integers(1, 60))}{number} {guess if sharp else f'{1 - chance:.4f}'}"
        weak = 0.95 if lazy else chance
        answer = f"{'so ' * int(random.integers(1, 90))}{known if sharp else guess}"
        records += [
            PerformanceRecord(query, "weak", float(random.random() < weak), response=answer),
            PerformanceRecord(
                query, "strong", float(random.random() < 0.92), response="x" * int(random.integers(40, 900))
            ),
        ]
    return records


def planned(records: list[PerformanceRecord], **settings: Any) -> CascadePlan:
    options: dict[str, Any] = {"strong": STRONG, "weak": WEAK, "router": KnownRouter(), "bootstrap": 5, **settings}
    return plan_cascade(records, KnownVerifier(), **options)  # type: ignore[arg-type]


def test_a_sharp_verifier_makes_the_cascade_the_recommendation_and_a_blind_one_does_not() -> None:
    assert planned(answered(2000, sharp=True), target=0.97).recommendation in {"cascade", "route and cascade"}
    assert planned(answered(2000, sharp=False), target=0.97).recommendation == "route"


def test_the_expected_cost_is_what_a_real_cascade_accounts_for() -> None:
    records = answered(300, sharp=True)
    plan = planned(records, target=0.97)
    answers = {(record.model, record.query): record.response or "" for record in records}
    for kind in ("cascade", "both"):
        point = plan.best[kind]
        assert point is not None and point.threshold is not None
        cascade = Cascade(
            [
                Tier(WEAK, lambda query: answers["weak", query], KnownVerifier(), point.threshold),
                Tier(STRONG, lambda query: answers["strong", query]),
            ],
            router=KnownRouter(),
            direct_threshold=point.direct_threshold,
        )
        results = [cascade.run(str(query)) for query in dict.fromkeys(record.query for record in records)]
        assert 1000 * np.mean([result.cost_usd or 0 for result in results]) == pytest.approx(point.cost, rel=0.002)
        assert np.mean([result.escalated for result in results]) == pytest.approx(point.escalation_rate, abs=0.01)


def test_thresholds_are_judged_on_queries_that_they_were_not_picked_on() -> None:
    """Luck picks the best of many points, and promises more than it keeps; cross-fitted figures keep what they say."""
    promised, honest, kept = [], [], []
    fresh = answered(4000, sharp=True, seed=99)
    truth = answered_queries(fresh, STRONG, WEAK)
    scores = KnownRouter().score(truth.queries).astype(np.float64)
    confidence = KnownVerifier().confidence(truth.queries, truth.answers).astype(np.float64)
    for seed in range(12):
        plan = planned(answered(150, sharp=True, seed=seed), target=0.97, bootstrap=2)
        point = plan.best["both"]
        if point is not None:
            promised.append(point.quality / plan.quality[1])
            honest.append(plan.cross_fitted["both"].quality / plan.quality[1])
            found = run_policy(truth, scores, confidence, point.direct_threshold, point.threshold)
            kept.append(found.quality / float(truth.strong.mean()))
    assert np.mean(promised) > np.mean(kept) + 0.005
    assert abs(np.mean(honest) - np.mean(kept)) < abs(np.mean(promised) - np.mean(kept))


def test_where_weak_alone_is_good_enough_nothing_else_is_recommended() -> None:
    plan = planned(answered(400, sharp=True, lazy=True))
    assert plan.recommendation == "weak alone" and plan.chosen is None
    assert any("not clearly better" in note for note in plan.notes)


def test_when_nothing_is_cheaper_strong_alone_is_recommended() -> None:
    plan = planned(answered(400, sharp=True), weak=Model("weak", 10.0, 300.0), router=None, target=0.99)
    assert plan.recommendation == "strong alone"
    assert plan.reasons


def test_a_cascade_that_is_too_slow_is_not_recommended() -> None:
    latencies = {"weak": Latency(1, 2), "strong": Latency(3, 9)}
    records = answered(1000, sharp=True)
    slow = planned(records, target=0.97, latencies=latencies, max_latency_s=1.0)
    assert slow.recommendation in {"route", "strong alone"}
    assert any("wait too long" in reason for reason in slow.reasons)
    assert planned(records, target=0.97, latencies=latencies, max_latency_s=60.0).recommendation != slow.recommendation


def test_what_cannot_be_planned_is_refused() -> None:
    records = answered(50, sharp=True)
    with pytest.raises(InputError, match="costs nothing"):
        planned(records, strong=Model("strong", 0.0, 0.0))
    with pytest.raises(InputError, match="latencies has"):
        planned(records, latencies={"wek": Latency(1, 2), "strong": Latency(1, 2)})
    with pytest.raises(InputError, match="both 'weak'"):
        planned(records, strong=WEAK)
    with pytest.raises(InputError, match="trained on preferences"):
        planned(records, router=KnownRouter("bradley-terry"), joint=True)
    with pytest.raises(InputError, match="joint was set without a router"):
        planned(records, router=None, joint=True)
    free = planned(answered(200, sharp=True), weak=Model("weak", 0.0, 0.0))  # self-hosted
    assert free.break_even == pytest.approx(1.0)


def test_a_pair_that_is_not_the_routers_and_an_unknown_weak_model_are_noted() -> None:
    records = [
        PerformanceRecord(r.query, {"weak": "other"}.get(r.model, r.model), r.score, response=r.response)
        for r in answered(100, sharp=True)
    ]
    router = KnownRouter()
    router._index["other"] = 1
    notes = planned(records, weak=Model("other", 0.5, 1.5), router=router).notes
    assert any("never saw answers of other" in note for note in notes)
    assert any("router's own score is of strong over weak" in note for note in notes)


@pytest.mark.parametrize(("rate", "holds"), [(0.2, True), (0.35, None), (0.6, False)])
def test_the_surveys_first_condition_at_its_borders(rate: float, holds: bool | None) -> None:
    found, _, confidence = asked(1000)
    point = replace(run_policy(found, None, confidence, None, 0.5), escalation_rate=rate)
    first, second, third = conditions(point, (0.1, 0.6), None, None)
    assert first.holds is holds
    assert second.holds is True and third.holds is None
    assert conditions(point, (0.2, 0.6), None, None)[1].holds is False


def test_an_escalated_request_waits_for_both_models() -> None:
    found, _, confidence = asked()
    point = run_policy(found, None, confidence, None, 0.5)
    tails = latency_tails({"weak": Latency(1.0, 1.0), "strong": Latency(3.0, 3.0)}, "strong", "weak", point, 0.5, 0)
    assert tails["escalated"] == pytest.approx((4.5, 4.5, 4.5))
    assert tails["weak accepted"] == pytest.approx((1.5, 1.5, 1.5))
    spread = latency_tails({"weak": Latency(1.0, 3.0), "strong": Latency(3.0, 9.0)}, "strong", "weak", point, 0.0, 0)
    assert spread["weak accepted"][:2] == pytest.approx((1.0, 3.0), rel=0.03)
    assert spread["all"][1] < spread["escalated"][1]
    _, _, latency = conditions(point, (0.1, 0.6), spread, 100.0)
    assert latency.holds is True


@pytest.mark.parametrize("value", ["weak", "weak=1", "weak=2/1", "=1/2", "weak=a/b", "weak=0/1", "weak=1/inf"])
def test_a_latency_that_cannot_be_read_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="--latency"):
        parse_latencies([value])
    assert parse_latencies(["a=b=1/2"])["a=b"] == Latency(1.0, 2.0)


def test_the_page_and_the_sentences_spell_out_apgr_and_state_the_recommendation(tmp_path: Path) -> None:
    latencies = {"weak": Latency(1, 2), "strong": Latency(3, 9)}
    plan = planned(answered(600, sharp=True), target=0.97, latencies=latencies, max_latency_s=60.0)
    write_plan(plan, tmp_path)
    assert json.loads((tmp_path / "plan.json").read_text())["recommendation"] == plan.recommendation
    page = (tmp_path / "plan.html").read_text()
    assert page.index("verage performance gap recovered (APGR): 0.5 is random, 1 is perfect") < page.index("<th>APGR")
    assert f"Recommendation: {plan.recommendation}." in page
    lines = sentences(plan)
    assert lines[-1] == f"recommendation: {plan.recommendation}"
    spelt_out = next(i for i, line in enumerate(lines) if "average performance gap recovered (APGR)" in line)
    assert all("APGR" not in line for line in lines[:spelt_out])


def test_percentiles_of_a_latency_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="P50 is 2 s and P95 is 1 s; expected 0 < P50 <= P95"):
        Latency(2, 1)
