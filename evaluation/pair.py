"""Routing between two models: curves, calls needed, calibration and cost, with bootstrap intervals and differences."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.records import PerformanceRecord, Record, record_key
from ..policies.cost import query_costs
from ..routers.base import Model, Router
from ..routers.query import Query
from ..training.fit.metrics import (
    Array,
    auroc,
    expected_calibration_error,
    percentile_interval,
    reliability,
    resamples,
    routing_curve,
)
from .baselines import best_by_task
from .results import Difference, Result

#: Parts of the strong model's quality whose strong share is reported.
QUALITY_TARGETS = (0.95, 0.99)
#: Fewest queries of a task that get a line of their own.
LEAST_TASK = 30


@dataclass(frozen=True)
class Pairs:
    """Rows that have a score of both models."""

    queries: list[Query]
    strong: Array
    weak: Array
    keys: list[str]
    tasks: list[str | None]


def paired(records: Sequence[Record], strong: str, weak: str) -> Pairs:
    """The performance records that have a score of both models on one query, side by side."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    query_of: dict[str, Query] = {}
    task_of: dict[str, str | None] = {}
    for record in records:
        if isinstance(record, PerformanceRecord) and record.model in {strong, weak}:
            key = record_key(record)
            query_of.setdefault(key, record.query)
            task_of.setdefault(key, record.task)
            scores[key][record.model].append(record.score)
    rows: list[tuple[str, float, float]] = []
    for key, found in scores.items():  # a question that stands several times counts as often
        rows += [(key, s, w) for s, w in zip(found[strong], found[weak], strict=False)]
    keys = [key for key, _, _ in rows]
    return Pairs(
        [query_of[key] for key in keys],
        np.asarray([s for _, s, _ in rows], np.float64),
        np.asarray([w for _, _, w in rows], np.float64),
        keys,
        [task_of[key] for key in keys],
    )


def groups_of(keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """The number of each row's prompt, int64 (n,): rows of one prompt are resampled together."""
    number: dict[str, int] = {}
    return np.asarray([number.setdefault(key, len(number)) for key in keys], np.int64)


def routing_results(
    routers: Mapping[str, Router],
    baselines: Mapping[str, Router],
    pairs: Pairs,
    training: Sequence[Record],
    names: tuple[str, str],
    prices: Mapping[str, Model],
    output_tokens: int,
    bootstrap: int,
    seed: int,
    on_step: Callable[[], object],
) -> tuple[list[Result], list[Difference]]:
    """Results of every router, baseline and bound, and the paired differences between routers and to kNN.

    Args:
        routers: what is judged.
        baselines: what it is judged beside.
        pairs: n rows with both scores.
        training: for the best single model of each task.
        names: strong and weak.
        prices: models with prices, by name.
        output_tokens: assumed length of an answer.
        bootstrap: resamples.
        seed: of the resamples and of the random baseline.
        on_step: called once a resample.
    """
    strong, weak = names
    count = len(pairs.queries)
    gain = pairs.strong - pairs.weak
    scores = {name: router.win_rate(pairs.queries, strong, weak) for name, router in {**routers, **baselines}.items()}
    scores["random"] = np.random.default_rng(seed).random(count).astype(np.float32)
    # Ties are broken at random: the metric's thresholds are quantiles, which ties would throw together.
    scores["oracle"] = (gain / 2 + 0.5 + 1e-3 * scores["random"]).astype(np.float32)
    probabilistic = set(routers) | (set(baselines) - {"rules"})
    choices = {"always-weak": np.zeros(count), "always-strong": np.ones(count)}
    by_task = best_by_task(training, pairs.tasks, strong, weak)
    if by_task is not None:
        choices["best single by task"] = by_task
    cost = None
    if strong in prices and weak in prices:
        cost = query_costs([prices[strong], prices[weak]], pairs.queries, output_tokens)
    groups = groups_of(pairs.keys)

    def measure(rows: npt.NDArray[np.int64]) -> dict[str, dict[str, float]]:
        s, w = pairs.strong[rows], pairs.weak[rows]
        found = {}
        for name, values in scores.items():
            curve = routing_curve(values[rows], s, w)
            one = {"apgr": curve.apgr, **{f"cpt{p}": curve.cpt(p / 100) for p in (50, 80, 95)}}
            one["auroc"] = auroc(values[rows], s > w)
            for target in QUALITY_TARGETS:
                share = curve.share_for(target * curve.strong)
                one[f"share{target:.0%}".rstrip("%")] = share
                if cost is not None:
                    mean = cost[rows].mean(axis=0) * 1000
                    one[f"cost{target:.0%}".rstrip("%")] = float(share * mean[0] + (1 - share) * mean[1])
            if name in probabilistic:
                one["ece"] = expected_calibration_error(values[rows], (s - w) / 2 + 0.5)
            found[name] = one
        for name, to_strong in choices.items():
            chosen = to_strong[rows] > 0
            found[name] = {"strong_share": float(chosen.mean()), "quality": float(np.where(chosen, s, w).mean())}
            if cost is not None:
                found[name]["cost"] = float(np.where(chosen, cost[rows, 0], cost[rows, 1]).mean() * 1000)
        return found

    measured = measure(np.arange(count))
    drawn = []
    for rows in resamples(groups, bootstrap, seed):
        drawn.append(measure(rows))
        on_step()
    results = []
    for name, values in measured.items():
        role = "router" if name in routers else "bound" if name == "oracle" else "baseline"
        curve = routing_curve(scores[name], pairs.strong, pairs.weak) if name in scores else None
        results.append(
            Result(
                name,
                role,
                values,
                {key: percentile_interval([one[name][key] for one in drawn]) for key in values} if drawn else {},
                None if curve is None else list(zip(curve.share.tolist(), curve.quality.tolist(), strict=True)),
                reliability(scores[name], gain / 2 + 0.5) if name in probabilistic else None,
                _by_task(scores[name], pairs) if name in scores else {},
            )
        )
    compared = [*routers, *(["kNN"] if "kNN" in baselines else [])]
    differences = [
        Difference(
            a,
            b,
            measured[a]["apgr"] - measured[b]["apgr"],
            percentile_interval([one[a]["apgr"] - one[b]["apgr"] for one in drawn]),
        )
        for position, a in enumerate(compared)
        for b in compared[position + 1 :]
        if drawn
    ]
    order = {"router": 0, "baseline": 1, "bound": 2}
    return sorted(results, key=lambda result: order[result.role]), differences


def _by_task(scores: npt.NDArray[np.floating], pairs: Pairs) -> dict[str, float]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, task in enumerate(pairs.tasks):
        if task is not None:
            rows_of[task].append(row)
    found = {}
    for task, rows in sorted(rows_of.items()):
        if len(rows) >= LEAST_TASK:
            apgr = routing_curve(scores[rows], pairs.strong[rows], pairs.weak[rows]).apgr
            if not math.isnan(apgr):
                found[task] = apgr
    return found
