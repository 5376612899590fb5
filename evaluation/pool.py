"""Routing over a whole pool: quality against cost, and AIQ, as RouterBench measures them (arXiv 2403.12031)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..policies.cost import query_costs
from ..routers.base import Floats, Model
from ..routers.query import Query
from ..training.fit.metrics import Array, percentile_interval, resamples

#: What one dollar a query may cost in quality; from "always the cheapest" to "always the best".
_TRADES = np.concatenate([[0.0], np.geomspace(1e-3, 1e7, 121)])


@dataclass(frozen=True)
class PoolResult:
    """One way of routing over the pool.

    Attributes:
        router: its name.
        aiq: average improvement in quality: area under the hull over the range of costs, divided by the range.
        aiq_interval: 95 % bootstrap.
        best_quality: largest mean score on the hull.
        cost_at_best_single: least cost (USD a thousand queries) of the best single model's quality; None: unreached.
        cost: (k,) of the hull, USD a thousand queries.
        quality: (k,) of the hull.
        difference: of `aiq` to the kNN baseline, or None.
        difference_interval: of `difference`, paired.
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


@dataclass(frozen=True)
class PoolReport:
    """An evaluation over a pool: single models first (mean cost a thousand queries, quality), then the routers."""

    queries: int
    output_tokens: int
    singles: dict[str, tuple[float, float]]
    best_single: str
    results: list[PoolResult]


def routed(predicted: Floats | Array, cost: Array, trades: Array = _TRADES) -> npt.NDArray[np.int64]:
    """The chosen model (k, n) of each query at k trade-offs: the largest ``quality - trade * cost``."""
    return np.stack([np.argmax(predicted - trade * cost, axis=1) for trade in trades])


def hull(cost: Array, quality: Array) -> tuple[Array, Array]:
    """The non-decreasing convex hull of points (k,): what randomising between two of them reaches."""
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
    """AIQ: mean height of a hull over the costs from low to high; beyond its ends it stays level."""
    if high <= low:
        return float(quality.max())
    inner = cost[(cost > low) & (cost < high)]
    grid = np.concatenate([[low], inner, [high]])
    return float(np.trapezoid(np.interp(grid, cost, quality), grid) / (high - low))


def evaluate_pool(
    predictions: Mapping[str, Floats | Array],
    queries: Sequence[Query],
    scores: Array,
    pool: Sequence[Model],
    groups: npt.NDArray[np.int64],
    *,
    output_tokens: int = 300,
    bootstrap: int = 300,
    seed: int = 0,
    reference: str = "kNN",
) -> PoolReport:
    """Compare ways of routing over a pool, beside the single models and the oracle.

    Args:
        predictions: name to predicted quality (n, m).
        queries: n queries.
        scores: (n, m), the scores of the answers.
        pool: m models with prices.
        groups: (n,), prompt of each row, for the bootstrap.
        output_tokens: assumed length of an answer.
        bootstrap: resamples.
        seed: of the resampling.
        reference: what paired differences are taken to, where it is among the predictions.
    """
    cost = query_costs(pool, queries, output_tokens)
    rows = np.arange(len(queries))
    choices = {name: routed(predicted, cost) for name, predicted in predictions.items()}
    # The oracle takes the cheapest of the models that answer best.
    choices["oracle"] = routed(scores, cost)
    picked = {name: (cost[rows, chosen], scores[rows, chosen]) for name, chosen in choices.items()}

    def areas(sample: npt.NDArray[np.int64]) -> dict[str, float]:
        singles = cost[sample].mean(axis=0)
        low, high = float(singles.min()), float(singles.max())
        found = {
            name: average_quality(*hull(c[:, sample].mean(axis=1), s[:, sample].mean(axis=1)), low, high)
            for name, (c, s) in picked.items()
        }
        found["single models"] = average_quality(*hull(singles, scores[sample].mean(axis=0)), low, high)
        return found

    measured = areas(rows)
    drawn = [areas(sample) for sample in resamples(groups, bootstrap, seed)]
    best = int(np.argmax(scores.mean(axis=0)))
    best_quality = float(scores[:, best].mean())
    results = []
    for name in [*predictions, "single models", "oracle"]:
        if name == "single models":
            costs, qualities = hull(cost.mean(axis=0), scores.mean(axis=0))
        else:
            c, s = picked[name]
            costs, qualities = hull(c.mean(axis=1), s.mean(axis=1))
        versus = None
        if reference in predictions and name != reference:
            versus = percentile_interval([one[name] - one[reference] for one in drawn])
        reached = float(np.interp(best_quality, qualities, costs)) if qualities.max() >= best_quality else None
        results.append(
            PoolResult(
                name,
                measured[name],
                percentile_interval([one[name] for one in drawn]),
                float(qualities.max()),
                None if reached is None else 1000 * reached,
                (1000 * costs).tolist(),
                qualities.tolist(),
                None if versus is None else measured[name] - measured[reference],
                versus,
            )
        )
    means = {
        model.name: (1000 * float(c), float(q))
        for model, c, q in zip(pool, cost.mean(axis=0), scores.mean(axis=0), strict=True)
    }
    return PoolReport(len(queries), output_tokens, means, pool[best].name, results)
