"""Routing over a whole pool: quality against cost, as RouterBench measures it (arXiv 2403.12031).

RouterBench's figure is AIQ, the average improvement in quality: the area under the curve of quality over cost, divided
by the range of costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..policies.cost import query_costs
from ..routers.decision import Floats, Model
from ..routers.query import Query
from ..training.fit.metrics import Array, percentile_interval, resamples, weighted_mean

Rows = npt.NDArray[np.int64]

#: Quality that one USD a query is worth, from "always the best model" to "always the cheapest model".
_TRADES = np.concatenate([[0.0], np.geomspace(1e-3, 1e7, 121)])
#: Name of the result that mixes models without looking at the query, and of the result that knows every answer.
SINGLE_MODELS, ORACLE = "single models", "oracle"


@dataclass(frozen=True, kw_only=True)
class PoolResult:
    """How one router does over the pool.

    Example:
        >>> from routelearn.evaluation import evaluate_pool
        >>> pool = [routelearn.Model("small", 0.5, 1.5), routelearn.Model("large", 10.0, 30.0)]
        >>> scores = [[1.0, 1.0], [0.0, 1.0]]  # what the two models score on each query
        >>> report = evaluate_pool({"ours": scores}, ["easy", "hard"], scores, pool, bootstrap=10)
        >>> result = report.results[0]
        >>> result.router, result.best_quality, result.cost_at_best_single < report.singles["large"][0]
        ('ours', 1.0, True)

    Attributes:
        router: name of the router.
        aiq: average improvement in quality: the area under the hull over the range of costs, divided by the range.
        aiq_interval: 95 % bootstrap interval of `aiq`.
        best_quality: largest mean score on the hull.
        cost_at_best_single: lowest cost (USD for 1,000 queries) at which the router is as good as the best single
            model; None when it never is.
        cost: (k,) costs of the points of the hull, USD for 1,000 queries.
        quality: (k,) mean scores of the points of the hull.
        difference: `aiq` minus that of the kNN baseline, or None.
        difference_interval: 95 % interval of `difference` on the same resamples, or None.
    """

    router: str
    aiq: float
    aiq_interval: tuple[float, float]
    best_quality: float
    cost_at_best_single: float | None
    cost: list[float]
    quality: list[float]
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class PoolReport:
    """An evaluation over a whole pool.

    Example:
        >>> from routelearn.evaluation import evaluate_pool
        >>> pool = [routelearn.Model("small", 0.5, 1.5), routelearn.Model("large", 10.0, 30.0)]
        >>> report = evaluate_pool({}, ["easy", "hard"], [[1.0, 1.0], [0.0, 1.0]], pool, bootstrap=10)
        >>> report.best_single, [result.router for result in report.results]
        ('large', ['single models', 'oracle'])

    Attributes:
        queries: number of queries.
        output_tokens: assumed length of an answer.
        singles: USD for 1,000 queries and mean score of each model alone.
        best_single: the model with the best mean score.
        results: the routers, then mixtures of single models, then the oracle.
    """

    queries: int
    output_tokens: int
    singles: dict[str, tuple[float, float]]
    best_single: str
    results: list[PoolResult]


def routed(predicted: Floats | Array, cost: Array, trades: Array = _TRADES) -> npt.NDArray[np.int64]:
    """The chosen model (k, n) of each query at k trade-offs: the largest ``quality - trade * cost``.

    Args:
        predicted: (n, m) predicted quality of each model.
        cost: (n, m) USD of each query at each model.
        trades: (k,) quality that one USD is worth.
    """
    return np.stack([np.argmax(predicted - trade * cost, axis=1) for trade in trades])


def hull(cost: Array, quality: Array) -> tuple[Array, Array]:
    """The upper convex hull of k points that never falls: what choosing at random between two of them reaches.

    Args:
        cost: (k,) costs.
        quality: (k,) mean scores.

    Returns:
        Costs and mean scores of the corners, both rising.
    """
    order = np.lexsort((-quality, cost))
    kept: list[tuple[float, float]] = []
    for c, q in zip(cost[order].tolist(), quality[order].tolist(), strict=True):
        if kept and q <= kept[-1][1]:
            continue
        while len(kept) > 1 and (kept[-1][1] - kept[-2][1]) * (c - kept[-1][0]) <= (q - kept[-1][1]) * (
            kept[-1][0] - kept[-2][0]
        ):
            kept.pop()
        if kept and c == kept[-1][0]:
            kept[-1] = (c, q)
        else:
            kept.append((c, q))
    costs, qualities = zip(*kept, strict=True)
    return np.asarray(costs), np.asarray(qualities)


def average_quality(cost: Array, quality: Array, low: float, high: float) -> float:
    """AIQ: the mean height of a hull over the costs from low to high; the hull stays level beyond its ends.

    Args:
        cost: (k,) costs of the corners, rising.
        quality: (k,) mean scores of the corners.
        low: cost of the cheapest model.
        high: cost of the most expensive model.
    """
    if high <= low:
        return float(quality.max())
    inner = cost[(cost > low) & (cost < high)]
    grid = np.concatenate([[low], inner, [high]])
    return float(np.trapezoid(np.interp(grid, cost, quality), grid) / (high - low))


def evaluate_pool(
    predictions: Mapping[str, npt.ArrayLike],
    queries: Sequence[Query],
    scores: npt.ArrayLike,
    pool: Sequence[Model],
    groups: Rows | None = None,
    *,
    output_tokens: int = 300,
    bootstrap: int = 300,
    seed: int = 0,
    baseline: str = "kNN",
    weight: Array | None = None,
) -> PoolReport:
    """Compare routers over a pool with the single models and with the oracle, which knows every score.

    Args:
        predictions: predicted quality (n, m) by the router's name.
        queries: n queries.
        scores: (n, m) scores of the models' answers.
        pool: m models with prices.
        groups: (n,) number of each row's prompt, for the bootstrap; None: every row is a prompt of its own.
        output_tokens: assumed length of an answer.
        bootstrap: number of resamples.
        seed: seed of the resamples.
        baseline: the router whose AIQ is subtracted in `PoolResult.difference`, if it is among the predictions.
        weight: (n,) weights of the queries; None: all count alike.

    Raises:
        InputError: a model has no price.
    """
    matrix = np.asarray(scores, np.float64)
    cost = query_costs(pool, queries, output_tokens)
    rows = np.arange(len(queries))
    choices = {name: routed(np.asarray(predicted), cost) for name, predicted in predictions.items()}
    choices[ORACLE] = routed(matrix, cost)  # the cheapest one of the models that answer best
    points = {name: (cost[rows, chosen], matrix[rows, chosen]) for name, chosen in choices.items()}
    # A mixture of single models sends all queries to one model at each of its m points.
    points[SINGLE_MODELS] = cost.T, matrix.T
    prompts, measured = rows if groups is None else groups, _areas(points, rows, weight)
    drawn = [_areas(points, sample, weight) for sample in resamples(prompts, bootstrap, seed)]
    quality, usd = weighted_mean(matrix, weight), 1000 * weighted_mean(cost, weight)
    best, known = int(np.argmax(quality)), baseline if baseline in predictions else None
    results = [
        _result(
            name,
            (weighted_mean(points[name][0].T, weight), weighted_mean(points[name][1].T, weight)),
            measured,
            drawn,
            best_single=float(quality[best]),
            baseline=known,
        )
        for name in [*predictions, SINGLE_MODELS, ORACLE]
    ]
    return PoolReport(
        queries=len(queries),
        output_tokens=output_tokens,
        singles=dict(zip((m.name for m in pool), zip(usd.tolist(), quality.tolist(), strict=True), strict=True)),
        best_single=pool[best].name,
        results=results,
    )


def _areas(points: Mapping[str, tuple[Array, Array]], rows: Rows, weight: Array | None) -> dict[str, float]:
    """AIQ of each router on some rows, over the range from the cheapest to the most expensive single model."""
    of_rows = None if weight is None else weight[rows]

    def mean(values: Array) -> Array:
        return np.asarray(weighted_mean(values[:, rows].T, of_rows))

    singles = mean(points[SINGLE_MODELS][0])
    low, high = float(singles.min()), float(singles.max())
    return {name: average_quality(*hull(mean(cost), mean(score)), low, high) for name, (cost, score) in points.items()}


def _result(
    name: str,
    points: tuple[Array, Array],
    measured: Mapping[str, float],
    drawn: Sequence[Mapping[str, float]],
    *,
    best_single: float,
    baseline: str | None,
) -> PoolResult:
    """The result of one router, from the mean costs and scores of its points: hull, AIQ, difference to the baseline."""
    costs, qualities = hull(*points)
    difference, interval = None, None
    if baseline is not None and name != baseline:
        difference = measured[name] - measured[baseline]
        interval = percentile_interval([one[name] - one[baseline] for one in drawn])
    reached = float(np.interp(best_single, qualities, costs)) if qualities.max() >= best_single else None
    return PoolResult(
        router=name,
        aiq=measured[name],
        aiq_interval=percentile_interval([one[name] for one in drawn]),
        best_quality=float(qualities.max()),
        cost_at_best_single=None if reached is None else 1000 * reached,
        cost=(1000 * costs).tolist(),
        quality=qualities.tolist(),
        difference=difference,
        difference_interval=interval,
    )
