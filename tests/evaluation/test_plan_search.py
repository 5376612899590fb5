"""The search for the cheapest plan, against a replay of every plan; and the intervals of what it finds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from routelearn.data.records import PerformanceRecord
from routelearn.evaluation.cascade_plan.analysis import Point, cheapest, cross_fitted, run_policy
from routelearn.evaluation.cascade_plan.answered_queries import AnsweredQueries, answered_queries
from routelearn.evaluation.cascade_plan.intervals import Comparison, comparisons, within_chance
from routelearn.evaluation.cascade_plan.search import ABOVE_ALL, families
from routelearn.routers.decision import Model


def known(n: int, seed: int, *, steps: int | None = None) -> tuple[AnsweredQueries, np.ndarray, np.ndarray]:
    """Answers with a confidence and a router; with `steps` both take few values, so that many are tied."""
    random = np.random.default_rng(seed)
    chance = random.beta(2, 1, n)
    found = AnsweredQueries(
        queries=["q"] * n,
        answers=["a"] * n,
        keys=[str(i) for i in range(n)],
        weak=(random.random(n) < chance).astype(float),
        strong=(random.random(n) < 0.9) * random.choice([1.0, 0.8], n),
        weak_cost=random.uniform(0.5, 1.5, n) * 1e-4,
        strong_cost=random.uniform(0.2, 3.0, n) * 1e-3,
    )
    scores, confidence = np.clip(1 - chance + random.normal(0, 0.2, n), 0, 1), chance
    if steps is not None:
        scores, confidence = (np.round(values * steps) / steps for values in (scores, confidence))
    return found, scores, confidence


def every_plan(
    found: AnsweredQueries, scores: np.ndarray, confidence: np.ndarray, kind: str, verifier_cost: float
) -> Iterator[Point]:
    """Replay every plan of a kind: no two thresholds between the same two values differ."""
    direct = [None] if kind == "cascade" else [*np.unique(scores).tolist(), ABOVE_ALL]
    thresholds = [None] if kind == "route" else [0.0, *np.unique(confidence).tolist(), ABOVE_ALL]
    for pair in itertools.product(direct, thresholds):
        yield run_policy(found, scores, confidence, *pair, verifier_cost=verifier_cost)


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize("seed", range(6))
def test_no_plan_of_the_family_is_cheaper_at_the_same_quality(seed: int, steps: int | None) -> None:
    found, scores, confidence = known(45, seed, steps=steps)
    verifier_cost = 1e-5 * seed
    plans = families(found, scores, confidence, verifier_cost)
    assert set(plans) == {"cascade", "route", "both"}
    for kind, family in plans.items():
        everything = list(every_plan(found, scores, confidence, kind, verifier_cost))
        for target in (0.6, 0.8, 0.9, 0.95, 0.99, 1.0, 1.02):
            goal = target * float(found.strong.mean())
            by_hand = cheapest(everything, goal - 1e-12)
            picked = family.cheapest(goal)
            assert (picked is None) == (by_hand is None)
            if picked is not None and by_hand is not None:
                point = run_policy(found, scores, confidence, *picked, verifier_cost=verifier_cost)
                assert point.quality >= goal - 1e-12
                assert point.cost == pytest.approx(by_hand.cost)


def test_a_plan_that_sends_most_queries_straight_to_strong_is_found() -> None:
    """Weak's rare good answers are all known to the router: the best direct share is above three quarters."""
    n = 200
    easy = np.arange(n) < 20
    found = AnsweredQueries(
        queries=["q"] * n,
        answers=["a"] * n,
        keys=[str(i) for i in range(n)],
        weak=easy.astype(float),
        strong=np.ones(n),
        weak_cost=np.full(n, 1e-4),
        strong_cost=np.full(n, 1e-3),
    )
    scores = np.where(easy, 0.1, 0.9) + np.linspace(0, 0.05, n)
    picked = families(found, scores, np.full(n, 0.5))["route"].cheapest(1.0)
    assert picked is not None
    assert run_policy(found, scores, None, *picked).strong_share == pytest.approx(0.9)


def test_the_frontier_holds_the_cheapest_point_of_every_quality() -> None:
    found, scores, confidence = known(300, 1)
    family = families(found, scores, confidence)["both"]
    kept = [run_policy(found, scores, confidence, *one) for one in family.frontier()]
    assert all(a.cost < b.cost and a.quality < b.quality for a, b in itertools.pairwise(kept))
    for goal in (0.7, 0.75, 0.8):
        picked, point = family.cheapest(goal), cheapest(kept, goal)
        assert picked is not None and point is not None
        assert run_policy(found, scores, confidence, *picked).cost == pytest.approx(point.cost)


def test_many_values_are_searched_in_steps_that_lose_little() -> None:
    found, scores, confidence = known(1500, 3)
    goal = 0.95 * float(found.strong.mean())
    costs = []
    for levels in (10_000, 300):
        picked = families(found, scores, confidence, levels=levels)["both"].cheapest(goal)
        assert picked is not None
        costs.append(run_policy(found, scores, confidence, *picked).cost)
    assert costs[0] <= costs[1] <= costs[0] * 1.02


def test_the_interval_of_a_saving_holds_what_new_queries_give() -> None:
    """Nine in ten intervals or more hold the saving of the very procedure on fresh queries."""
    held = []
    fresh, scores, confidence = known(20_000, 999)
    for seed in range(20):
        found, own_scores, own_confidence = known(400, seed)
        folds = np.arange(400) % 5
        crossed = cross_fitted(found, own_scores, own_confidence, 0.95, 0.0, folds)
        (one,) = [
            one for one in comparisons(found, crossed, 200, 0) if (one.policy, one.against) == ("route", "strong alone")
        ]
        picked = families(found, own_scores, own_confidence)["route"].cheapest(0.95 * float(found.strong.mean()))
        assert picked is not None
        truth = run_policy(fresh, scores, confidence, *picked)
        saved = truth.cost / (1000 * float(fresh.strong_cost.mean())) - 1
        held.append(one.cost[1] <= saved <= one.cost[2])
        assert one.cost[1] <= one.cost[0] <= one.cost[2]
        assert one.quality[1] <= one.quality[0] <= one.quality[2]
    assert np.mean(held) >= 0.9


def test_each_policy_is_compared_with_both_models_alone_and_the_cascades_with_the_router() -> None:
    found, scores, confidence = known(200, 0)
    crossed = cross_fitted(found, scores, confidence, 0.95, 0.0, np.arange(200) % 5)
    pairs = {(one.policy, one.against) for one in comparisons(found, crossed, 20, 0)}
    assert pairs == {
        ("strong alone", "weak alone"),
        ("weak alone", "strong alone"),
        ("route", "strong alone"),
        ("route", "weak alone"),
        *(
            (policy, other)
            for policy in ("cascade", "route and cascade")
            for other in ("strong alone", "weak alone", "route")
        ),
    }
    (one,) = [o for o in comparisons(found, crossed, 20, 0) if (o.policy, o.against) == ("cascade", "route")]
    assert one.quality[0] == pytest.approx((crossed["cascade"].quality - crossed["route"].quality).mean())


def test_a_policy_that_is_not_clearly_cheaper_is_said_to_be_so() -> None:
    same = (0.0, -0.01, 0.01)
    found = [
        Comparison(policy="cascade", against="strong alone", cost=(-0.3, -0.4, -0.2), quality=same),
        Comparison(policy="cascade", against="route", cost=(-0.02, -0.06, 0.01), quality=same),
        Comparison(policy="cascade", against="weak alone", cost=(0.2, 0.1, 0.3), quality=same),
        Comparison(policy="route", against="strong alone", cost=(-0.1, -0.3, 0.1), quality=same),
    ]
    (said,) = within_chance("cascade", found)
    assert said.startswith("on these queries cascade is not clearly cheaper than route")
    assert len(within_chance("route", found)) == 1


@pytest.mark.parametrize(
    ("weak_usd", "strong_usd", "weak_says", "strong_says"),
    [
        ((0.1, 0.2), (0.3, 0.4), "measured (cost_usd of the records)", "measured (cost_usd of the records)"),
        ((None, None), (0.3, None), "assumed: prices times tokens", "measured for 1 of 2 answers"),
        (
            (0.1, 0.2),
            (None, None),
            "measured",
            "1 of 2 answers are not in the records and taken to be as long as weak's",
        ),
    ],
)
def test_the_plan_says_whether_costs_are_measured(
    weak_usd: tuple[float | None, ...], strong_usd: tuple[float | None, ...], weak_says: str, strong_says: str
) -> None:
    records = [
        record
        for i in range(2)
        for record in (
            PerformanceRecord(f"q{i}", "weak", 1.0, cost_usd=weak_usd[i], response="b"),
            PerformanceRecord(f"q{i}", "strong", 1.0, cost_usd=strong_usd[i], response=None if i else "c"),
        )
    ]
    weak, strong = answered_queries(records, Model("strong", 10.0, 30.0), Model("weak", 0.5, 1.5)).cost_basis
    assert weak.startswith(weak_says) and strong_says in strong
