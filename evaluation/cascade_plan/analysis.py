"""Routing, cascading, or both: what each costs and how good it is at every threshold, replayed on known answers.

A cascade costs ``c_weak + P(escalated) c_strong`` a query, plus the cost of the verifier; it is cheaper than strong
alone while ``P(escalated) < 1 - c_weak / c_strong`` (FrugalGPT, Chen et al. 2023, section 3).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...training.fit.metrics import Array
from .answered_queries import AnsweredQueries

Flags = npt.NDArray[np.bool_]
#: Shares of the queries that go straight to strong; each is tried with every threshold of the verifier.
DIRECT_SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75)
#: Number of quantiles that are tried as thresholds.
STEPS = 50


@dataclass(frozen=True, kw_only=True)
class Point:
    """One way to run, and what it gives over n queries.

    Example:
        >>> from routelearn.evaluation import Point, cheapest
        >>> shares = {"strong_share": 0.3, "escalation_rate": 0.3}
        >>> points = [
        ...     Point(kind="cascade", direct_threshold=None, threshold=t, quality=0.7 + t / 5, cost=2 + t, **shares)
        ...     for t in (0.5, 1.0)
        ... ]
        >>> cheapest(points, quality=0.75).threshold
        0.5

    Attributes:
        kind: "route" (the router's score chooses strong or weak), "cascade" (weak answers first) or "both" (a high
            score goes straight to strong, and weak answers the other queries first).
        direct_threshold: score at or above it goes straight to strong; None: no query does.
        threshold: confidence below it escalates; None: nothing is verified.
        strong_share: share of the queries that strong answers.
        escalation_rate: escalated queries over all queries.
        quality: mean score of the answers.
        cost: USD for 1,000 queries.
    """

    kind: str
    direct_threshold: float | None
    threshold: float | None
    strong_share: float
    escalation_rate: float
    quality: float
    cost: float


def run_policy(
    answered: AnsweredQueries,
    scores: Array | None,
    confidence: Array | None,
    direct_threshold: float | None,
    threshold: float | None,
    verifier_cost: float = 0.0,
) -> Point:
    """Replay one way to run on known answers.

    Args:
        answered: n queries.
        scores: (n,) the router's scores; needed with a direct threshold.
        confidence: (n,) confidence in weak's answers; needed with a threshold.
        direct_threshold: score at or above it goes straight to strong; None: no query does.
        threshold: confidence below it escalates; None: nothing is verified.
        verifier_cost: USD of verifying one answer.
    """
    direct: Flags = np.zeros(len(answered), np.bool_)
    if direct_threshold is not None and scores is not None:
        direct = scores >= direct_threshold
    escalated: Flags = np.zeros(len(answered), np.bool_)
    if threshold is not None and confidence is not None:
        escalated = ~direct & (confidence < threshold)
    by_strong = direct | escalated
    cost = np.where(direct, 0.0, answered.weak_cost) + np.where(by_strong, answered.strong_cost, 0.0)
    if threshold is not None:
        cost = cost + np.where(direct, 0.0, verifier_cost)
    return Point(
        kind="route" if threshold is None else "cascade" if direct_threshold is None else "both",
        direct_threshold=direct_threshold,
        threshold=threshold,
        strong_share=float(by_strong.mean()),
        escalation_rate=float(escalated.mean()),
        quality=float(np.where(by_strong, answered.strong, answered.weak).mean()),
        cost=float(cost.mean() * 1000),
    )


def all_points(
    answered: AnsweredQueries, scores: Array | None, confidence: Array, verifier_cost: float = 0.0
) -> dict[str, list[Point]]:
    """Replay every way to run over a grid of thresholds: quantiles of the scores and of the confidence.

    Args:
        answered: n queries.
        scores: (n,) the router's scores; None: cascades alone.
        confidence: (n,) confidence in weak's answers.
        verifier_cost: USD of verifying one answer.

    Returns:
        The points by their kind.
    """
    thresholds = _thresholds(confidence)
    points = {"cascade": [run_policy(answered, None, confidence, None, value, verifier_cost) for value in thresholds]}
    if scores is None:
        return points
    points["route"] = [run_policy(answered, scores, None, value, None) for value in _thresholds(scores)]
    points["both"] = [
        run_policy(answered, scores, confidence, float(direct), value, verifier_cost)
        for direct in np.quantile(scores, 1 - np.asarray(DIRECT_SHARES))
        for value in thresholds
    ]
    return points


def _thresholds(values: Array) -> list[float]:
    """Thresholds from "all at or above" to "none at or above"."""
    return [0.0, *np.quantile(values, np.linspace(0, 1, STEPS + 1)[1:-1]).tolist(), float(np.nextafter(1, 2))]


def cross_fitted(
    answered: AnsweredQueries,
    scores: Array | None,
    confidence: Array,
    target: float,
    verifier_cost: float,
    folds: npt.NDArray[np.int64],
) -> dict[str, Point]:
    """Measure each kind of policy on queries that its thresholds were not picked on.

    The cheapest of many points is the cheapest partly by luck. So its thresholds are picked on all folds but one, and
    measured on the fold that was left out. Where a kind does not reach the target below strong's cost, strong answers
    the fold. The points returned are means over the folds and have no thresholds.

    Args:
        answered: n queries.
        scores: (n,) the router's scores, or None.
        confidence: (n,) confidence in weak's answers.
        target: share of strong's mean score that has to be reached.
        verifier_cost: USD of verifying one answer.
        folds: (n,) number of each query's fold.
    """
    parts: dict[str, list[tuple[int, Point]]] = defaultdict(list)
    for fold in np.unique(folds):
        inside, outside = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        train, test = answered.rows(outside), answered.rows(inside)
        picked = all_points(train, None if scores is None else scores[outside], confidence[outside], verifier_cost)
        test_scores = None if scores is None else scores[inside]
        for kind, points in picked.items():
            best = cheapest(points, target * float(train.strong.mean()), float(train.strong_cost.mean() * 1000))
            point = (
                _strong_alone(kind, test)
                if best is None
                else run_policy(
                    test, test_scores, confidence[inside], best.direct_threshold, best.threshold, verifier_cost
                )
            )
            parts[kind].append((len(test), point))
    return {kind: _mean(kind, of_folds) for kind, of_folds in parts.items()}


def _strong_alone(kind: str, answered: AnsweredQueries) -> Point:
    return Point(
        kind=kind,
        direct_threshold=None,
        threshold=None,
        strong_share=1.0,
        escalation_rate=0.0,
        quality=float(answered.strong.mean()),
        cost=float(answered.strong_cost.mean() * 1000),
    )


def _mean(kind: str, parts: Sequence[tuple[int, Point]]) -> Point:
    """The mean of points that were each measured on so many queries."""
    counts = [count for count, _ in parts]
    points = [point for _, point in parts]
    return Point(
        kind=kind,
        direct_threshold=None,
        threshold=None,
        strong_share=float(np.average([point.strong_share for point in points], weights=counts)),
        escalation_rate=float(np.average([point.escalation_rate for point in points], weights=counts)),
        quality=float(np.average([point.quality for point in points], weights=counts)),
        cost=float(np.average([point.cost for point in points], weights=counts)),
    )


def cheapest(points: Sequence[Point], quality: float, below: float = float("inf")) -> Point | None:
    """The cheapest point that is at least so good and costs less than `below`, or None.

    Args:
        points: the points to choose from.
        quality: least mean score.
        below: USD for 1,000 queries.
    """
    enough = [point for point in points if point.quality >= quality and point.cost < below]
    return min(enough, key=lambda point: point.cost) if enough else None


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other point beats in both cost and quality, by rising cost."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if not kept or point.quality > kept[-1].quality:
            kept.append(point)
    return kept


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """How fast the figures change around a threshold.

    Example:
        >>> from routelearn.evaluation import Sensitivity
        >>> slope = Sensitivity(escalation=0.012, cost=0.02, quality=0.001)
        >>> f"0.01 of threshold escalates {slope.escalation:.1%} more of the queries"
        '0.01 of threshold escalates 1.2% more of the queries'

    Attributes:
        escalation: change of the escalation rate for each 0.01 of threshold.
        cost: relative change of the cost for each 0.01 of threshold.
        quality: change of the mean score for each 0.01 of threshold.
    """

    escalation: float
    cost: float
    quality: float


def sensitivity(
    answered: AnsweredQueries,
    scores: Array | None,
    confidence: Array,
    chosen: Point,
    verifier_cost: float,
    step: float = 0.02,
) -> Sensitivity | None:
    """Central differences over ``threshold +- step``; None where nothing is verified.

    Args:
        answered: n queries.
        scores: (n,) the router's scores, or None.
        confidence: (n,) confidence in weak's answers.
        chosen: the way to run.
        verifier_cost: USD of verifying one answer.
        step: distance to both sides.
    """
    if chosen.threshold is None:
        return None
    low, high = (
        run_policy(answered, scores, confidence, chosen.direct_threshold, chosen.threshold + sign * step, verifier_cost)
        for sign in (-1, 1)
    )
    unit = 0.01 / (2 * step)
    return Sensitivity(
        escalation=(high.escalation_rate - low.escalation_rate) * unit,
        cost=(high.cost - low.cost) / chosen.cost * unit if chosen.cost else 0.0,
        quality=(high.quality - low.quality) * unit,
    )
