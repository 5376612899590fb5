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
from .search import families

Flags = npt.NDArray[np.bool_]


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


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What one way to run gives for each of n queries.

    Attributes:
        kind: the kind, as of `Point`.
        direct: (n,) whether a query went straight to strong.
        escalated: (n,) whether a query went to weak and then to strong.
        quality: (n,) score of the answer.
        cost: (n,) USD.
    """

    kind: str
    direct: Flags
    escalated: Flags
    quality: Array
    cost: Array

    def point(self, direct_threshold: float | None = None, threshold: float | None = None) -> Point:
        """The means over the queries, with the thresholds that gave them."""
        return Point(
            kind=self.kind,
            direct_threshold=direct_threshold,
            threshold=threshold,
            strong_share=float((self.direct | self.escalated).mean()),
            escalation_rate=float(self.escalated.mean()),
            quality=float(self.quality.mean()),
            cost=float(self.cost.mean() * 1000),
        )


def replay(
    answered: AnsweredQueries,
    scores: Array | None,
    confidence: Array | None,
    direct_threshold: float | None,
    threshold: float | None,
    verifier_cost: float = 0.0,
) -> Replay:
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
    return Replay(
        kind="route" if threshold is None else "cascade" if direct_threshold is None else "both",
        direct=direct,
        escalated=escalated,
        quality=np.where(by_strong, answered.strong, answered.weak),
        cost=cost,
    )


def run_policy(
    answered: AnsweredQueries,
    scores: Array | None,
    confidence: Array | None,
    direct_threshold: float | None,
    threshold: float | None,
    verifier_cost: float = 0.0,
) -> Point:
    """The means of one way to run; the arguments are those of `replay`."""
    found = replay(answered, scores, confidence, direct_threshold, threshold, verifier_cost)
    return found.point(direct_threshold, threshold)


def cross_fitted(
    answered: AnsweredQueries,
    scores: Array | None,
    confidence: Array,
    target: float,
    verifier_cost: float,
    folds: npt.NDArray[np.int64],
) -> dict[str, Replay]:
    """Measure each kind of policy on queries that its thresholds were not picked on.

    The cheapest of many points is the cheapest partly by luck. So its thresholds are picked on all folds but one, and
    measured on the fold that was left out. Where a kind does not reach the target below strong's cost, strong answers
    the fold.

    Args:
        answered: n queries.
        scores: (n,) the router's scores, or None.
        confidence: (n,) confidence in weak's answers.
        target: share of strong's mean score that has to be reached.
        verifier_cost: USD of verifying one answer.
        folds: (n,) number of each query's fold.

    Returns:
        What each kind gives for the n queries.
    """
    parts: dict[str, list[Replay]] = defaultdict(list)
    order = np.argsort(folds, kind="stable")
    for fold in np.unique(folds):
        inside, outside = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        train, test = answered.rows(outside), answered.rows(inside)
        picked = families(train, None if scores is None else scores[outside], confidence[outside], verifier_cost)
        test_scores = None if scores is None else scores[inside]
        for kind, family in picked.items():
            best = family.cheapest(target * float(train.strong.mean()), float(train.strong_cost.mean() * 1000))
            parts[kind].append(
                strong_alone(test)
                if best is None
                else replay(test, test_scores, confidence[inside], *best, verifier_cost)
            )
    return {kind: _in_order(kind, of_folds, order) for kind, of_folds in parts.items()}


def strong_alone(answered: AnsweredQueries) -> Replay:
    """Strong answers every query."""
    every: Flags = np.ones(len(answered), np.bool_)
    return Replay(kind="strong", direct=every, escalated=~every, quality=answered.strong, cost=answered.strong_cost)


def weak_alone(answered: AnsweredQueries) -> Replay:
    """Weak answers every query."""
    none: Flags = np.zeros(len(answered), np.bool_)
    return Replay(kind="weak", direct=none, escalated=none, quality=answered.weak, cost=answered.weak_cost)


def _in_order(kind: str, parts: Sequence[Replay], order: npt.NDArray[np.int64]) -> Replay:
    """The replays of folds as one, in the order of the queries; `order` has the rows of fold after fold."""
    place = np.argsort(order, kind="stable")
    return Replay(
        kind=kind,
        direct=np.concatenate([part.direct for part in parts])[place],
        escalated=np.concatenate([part.escalated for part in parts])[place],
        quality=np.concatenate([part.quality for part in parts])[place],
        cost=np.concatenate([part.cost for part in parts])[place],
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
