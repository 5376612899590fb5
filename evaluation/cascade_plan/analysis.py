"""Routing, cascading, or both: what each costs and how good it is at every threshold, on answers that are known.

A cascade costs ``c_weak + P(escalated) c_strong`` a query, and the verifier's own cost; it is cheaper than strong
alone while ``P(escalated) < 1 - c_weak / c_strong`` (FrugalGPT, Chen et al. 2023, section 3).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...data.records import PerformanceRecord, Record, record_key
from ...policies.cost import call_cost, check_all_priced, query_tokens
from ...routers.base import Model
from ...routers.errors import InputError
from ...routers.query import Query, estimate_tokens
from ...training.fit.metrics import Array

Flags = npt.NDArray[np.bool_]
#: Shares of the queries that go straight to strong, tried beside every threshold of the verifier.
DIRECT_SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75)
#: Thresholds tried: so many quantiles.
STEPS = 50


@dataclass(frozen=True)
class Asked:
    """n queries that both models answered.

    Attributes:
        queries: n queries.
        answers: weak's answers.
        keys: normalised prompts.
        weak: (n,) score of weak's answer.
        strong: (n,) score of strong's.
        weak_cost: (n,) USD of asking weak.
        strong_cost: (n,) USD of asking strong.
    """

    queries: list[Query]
    answers: list[str]
    keys: list[str]
    weak: Array
    strong: Array
    weak_cost: Array
    strong_cost: Array

    def __len__(self) -> int:
        return len(self.queries)

    def rows(self, kept: npt.NDArray[np.int64]) -> Asked:
        """Some of the queries."""
        lists = ([values[row] for row in kept.tolist()] for values in (self.queries, self.answers, self.keys))
        arrays = (values[kept] for values in (self.weak, self.strong, self.weak_cost, self.strong_cost))
        return Asked(*lists, *arrays)  # type: ignore[arg-type]


def asked_both(records: Sequence[Record], strong: Model, weak: Model, output_tokens: int | None = None) -> Asked:
    """The queries that have weak's answer and the scores of both models.

    A record's own cost counts where it has one; else prices times tokens, four characters a token. An answer of
    strong that is not in the records is taken to be ``output_tokens`` long, or as long as weak's.

    Raises:
        InputError: no such query, or a model without prices.
    """
    if strong.name == weak.name:
        raise InputError(f"strong and weak are both {strong.name!r}; expected two models")
    check_all_priced([strong, weak])
    found: dict[str, dict[str, list[PerformanceRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if not isinstance(record, PerformanceRecord) or record.model not in {strong.name, weak.name}:
            continue
        if record.model == strong.name or record.response is not None:
            found[record_key(record)][record.model].append(record)
    pairs = [
        (key, w, s)
        for key, models in found.items()
        for w, s in zip(models[weak.name], models[strong.name], strict=False)
    ]
    if not pairs:
        raise InputError(
            f"no query has a response of {weak.name!r} with its score and a score of {strong.name!r}; "
            "expected performance records with responses"
        )
    return Asked(
        [w.query for _, w, _ in pairs],
        [w.response or "" for _, w, _ in pairs],
        [key for key, _, _ in pairs],
        np.asarray([w.score for _, w, _ in pairs]),
        np.asarray([s.score for _, _, s in pairs]),
        np.asarray([_cost(w, weak, w.response or "", None) for _, w, _ in pairs]),
        np.asarray(
            [_cost(s, strong, s.response or w.response or "", s.response or output_tokens) for _, w, s in pairs]
        ),
    )


def _cost(record: PerformanceRecord, model: Model, answer: str, length: str | int | None) -> float:
    if record.cost_usd is not None:
        return record.cost_usd
    tokens = length if isinstance(length, int) else estimate_tokens(answer)
    return call_cost(model, query_tokens(record.query), tokens) or 0.0


@dataclass(frozen=True)
class Point:
    """One way to run, and what it gives over n queries.

    Attributes:
        kind: "route": strong or weak by the router's score; "cascade": weak first; "both": obvious queries
            straight to strong, the others weak first.
        direct_threshold: score at or above it goes straight to strong (None: no query does).
        threshold: confidence below it escalates (None: nothing is verified).
        strong_share: share of the queries that strong answered.
        escalation_rate: escalated over all queries.
        quality: mean score of the answers.
        cost: USD a thousand queries.
    """

    kind: str
    direct_threshold: float | None
    threshold: float | None
    strong_share: float
    escalation_rate: float
    quality: float
    cost: float


def run_policy(
    asked: Asked,
    scores: Array | None,
    confidence: Array | None,
    direct_threshold: float | None,
    threshold: float | None,
    verifier_cost: float = 0.0,
) -> Point:
    """What a policy gives on known answers.

    Args:
        asked: n queries.
        scores: (n,) router's scores, where there is a direct threshold.
        confidence: (n,) confidence in weak's answers, where there is a threshold.
        direct_threshold: see `Point`.
        threshold: see `Point`.
        verifier_cost: USD of verifying one answer.
    """
    direct: Flags = np.zeros(len(asked), np.bool_)
    if direct_threshold is not None and scores is not None:
        direct = scores >= direct_threshold
    escalated: Flags = np.zeros(len(asked), np.bool_)
    if threshold is not None and confidence is not None:
        escalated = ~direct & (confidence < threshold)
    by_strong = direct | escalated
    cost = np.where(direct, 0.0, asked.weak_cost) + np.where(by_strong, asked.strong_cost, 0.0)
    if threshold is not None:
        cost = cost + np.where(direct, 0.0, verifier_cost)
    kind = "route" if threshold is None else "cascade" if direct_threshold is None else "both"
    return Point(
        kind,
        direct_threshold,
        threshold,
        float(by_strong.mean()),
        float(escalated.mean()),
        float(np.where(by_strong, asked.strong, asked.weak).mean()),
        float(cost.mean() * 1000),
    )


def all_points(
    asked: Asked, scores: Array | None, confidence: Array, verifier_cost: float = 0.0
) -> dict[str, list[Point]]:
    """Every policy over a grid of thresholds: quantiles of the scores and of the confidence."""
    thresholds = [0.0, *np.quantile(confidence, np.linspace(0, 1, STEPS + 1)[1:-1]).tolist(), float(np.nextafter(1, 2))]
    found: dict[str, list[Point]] = {
        "cascade": [run_policy(asked, None, confidence, None, value, verifier_cost) for value in thresholds]
    }
    if scores is None:
        return found
    directs = [0.0, *np.quantile(scores, np.linspace(0, 1, STEPS + 1)[1:-1]).tolist(), float(np.nextafter(1, 2))]
    found["route"] = [run_policy(asked, scores, None, value, None) for value in directs]
    found["both"] = [
        run_policy(asked, scores, confidence, float(direct), value, verifier_cost)
        for direct in np.quantile(scores, 1 - np.asarray(DIRECT_SHARES))
        for value in thresholds
    ]
    return found


def cross_fitted(
    asked: Asked,
    scores: Array | None,
    confidence: Array,
    target: float,
    verifier_cost: float,
    folds: npt.NDArray[np.int64],
) -> dict[str, Point]:
    """What each kind of policy gives on queries that its thresholds were not picked on; thresholds are of no point.

    The cheapest of many points is cheapest partly by luck: what it gives is measured on the fold that was left out.
    A fold on which a kind never reaches the target below strong's cost is answered by strong.

    Args:
        asked: n queries.
        scores: (n,) router's scores, or None.
        confidence: (n,).
        target: share of strong's mean score.
        verifier_cost: USD of verifying one answer.
        folds: (n,) number of each query's fold.
    """
    parts: dict[str, list[tuple[int, Point]]] = defaultdict(list)
    for fold in np.unique(folds):
        inside, outside = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        train, test = asked.rows(outside), asked.rows(inside)
        picked = all_points(train, None if scores is None else scores[outside], confidence[outside], verifier_cost)
        own = None if scores is None else scores[inside]
        for kind, points in picked.items():
            best = cheapest(points, target * float(train.strong.mean()), float(train.strong_cost.mean() * 1000))
            if best is None:
                cost, quality = float(test.strong_cost.mean() * 1000), float(test.strong.mean())
                found = Point(kind, None, None, 1.0, 0.0, quality, cost)
            else:
                found = run_policy(test, own, confidence[inside], best.direct_threshold, best.threshold, verifier_cost)
            parts[kind].append((len(test), found))
    return {kind: _mean(kind, found) for kind, found in parts.items()}


def _mean(kind: str, found: list[tuple[int, Point]]) -> Point:
    weights = [count for count, _ in found]
    names = ("strong_share", "escalation_rate", "quality", "cost")
    means = [float(np.average([getattr(point, name) for _, point in found], weights=weights)) for name in names]
    return Point(kind, None, None, *means)


def cheapest(points: Sequence[Point], quality: float, below: float = float("inf")) -> Point | None:
    """The cheapest point that is at least so good and costs less than `below`, or None."""
    enough = [point for point in points if point.quality >= quality and point.cost < below]
    return min(enough, key=lambda point: point.cost) if enough else None


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both cost and quality, by rising cost."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if not kept or point.quality > kept[-1].quality:
            kept.append(point)
    return kept


@dataclass(frozen=True)
class Sensitivity:
    """How fast things change around a threshold.

    Attributes:
        escalation: points of escalation rate for each 0.01 of threshold.
        cost: relative change of the cost for each 0.01.
        quality: change of the mean score for each 0.01.
    """

    escalation: float
    cost: float
    quality: float


def sensitivity(
    asked: Asked, scores: Array | None, confidence: Array, chosen: Point, verifier_cost: float, step: float = 0.02
) -> Sensitivity | None:
    """Central differences over ``threshold +- step``; None where nothing is verified."""
    if chosen.threshold is None:
        return None
    low, high = (
        run_policy(asked, scores, confidence, chosen.direct_threshold, chosen.threshold + sign * step, verifier_cost)
        for sign in (-1, 1)
    )
    unit = 0.01 / (2 * step)
    return Sensitivity(
        (high.escalation_rate - low.escalation_rate) * unit,
        (high.cost - low.cost) / chosen.cost * unit if chosen.cost else 0.0,
        (high.quality - low.quality) * unit,
    )


@dataclass(frozen=True)
class Latency:
    """How long a call takes: a log-normal distribution with these percentiles, seconds."""

    p50: float
    p95: float

    def draw(self, count: int, random: np.random.Generator) -> Array:
        """Latencies (count,), seconds."""
        spread = np.log(self.p95 / self.p50) / 1.6449
        return np.asarray(self.p50 * np.exp(spread * random.standard_normal(count)))


def latency_tails(
    latencies: Mapping[str, Latency], strong: str, weak: str, chosen: Point, verifier_s: float, seed: int
) -> dict[str, tuple[float, float, float]]:
    """P50, P95 and P99 (s) of answered-by-weak, of escalated, of straight-to-strong and of all requests."""
    random = np.random.default_rng(seed)
    count = 100_000
    first, second = latencies[weak].draw(count, random), latencies[strong].draw(count, random)
    waits = {
        "weak accepted": first + verifier_s,
        "escalated": first + verifier_s + second,
        "straight to strong": second,
    }
    direct = chosen.strong_share - chosen.escalation_rate
    draw = random.random(count)
    waits["all"] = np.where(
        draw < direct,
        waits["straight to strong"],
        np.where(draw < direct + chosen.escalation_rate, waits["escalated"], waits["weak accepted"]),
    )
    return {
        name: tuple(map(float, np.percentile(values, (50, 95, 99))))  # type: ignore[misc]
        for name, values in waits.items()
    }
