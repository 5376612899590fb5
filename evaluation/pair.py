"""Routing between two models: curves, strong calls needed, calibration and cost, with bootstrap intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..data.records import PerformanceRecord, Record, record_key
from ..routers.base import Router
from ..routers.decision import Floats, Model
from ..routers.query import Query
from ..routers.rules import RulesRouter
from ..training.fit.metrics import (
    Array,
    auroc,
    expected_calibration_error,
    percentile_interval,
    reliability,
    resamples,
    routing_curve,
    weighted_mean,
)
from .baselines import best_by_task
from .costs import pair_costs
from .results import Difference, Result

#: Shares of the strong model's quality; an evaluation states the strong calls that each of them needs.
QUALITY_TARGETS = (0.95, 0.99)
#: A task with fewer queries has no APGR of its own.
LEAST_TASK = 30
_ROLES = ("router", "baseline", "bound")

Rows = npt.NDArray[np.int64]
#: Figures by the router's name and the figure's name.
Figures = dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What an evaluation takes as given.

    Attributes:
        strong: the strong model.
        weak: the weak model.
        prices: models with prices, by name.
        output_tokens: assumed length of an answer.
        bootstrap: number of resamples.
        seed: seed of the resamples and of the random baseline.
        on_step: called after each resample, for a progress bar.
    """

    strong: str
    weak: str
    prices: Mapping[str, Model] = field(default_factory=dict)
    output_tokens: int = 300
    bootstrap: int = 1000
    seed: int = 0
    on_step: Callable[[], object] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Rows that have a score of both models.

    Example:
        >>> from routelearn.evaluation.pair import paired
        >>> records = [routelearn.PerformanceRecord("2 + 2?", model, score) for model, score in (("s", 1), ("w", 0))]
        >>> pairs = paired(records, "s", "w")
        >>> pairs.queries, float(pairs.strong[0] - pairs.weak[0])
        (['2 + 2?'], 1.0)

    Attributes:
        queries: n queries.
        strong: (n,) scores of the strong model.
        weak: (n,) scores of the weak model.
        keys: n normalised prompts; rows with the same key are resampled together.
        tasks: n tasks, None where the record names none.
        weight: (n,) weights, with a mean of 1, the mean of those of both records; None: all count alike.
    """

    queries: list[Query]
    strong: Array
    weak: Array
    keys: list[str]
    tasks: list[str | None]
    weight: Array | None = None

    def weight_of(self, rows: Rows) -> Array | None:
        """The weights of some rows."""
        return None if self.weight is None else self.weight[rows]


def paired(records: Sequence[Record], strong: str, weak: str) -> Pairs:
    """Put the scores of both models on the same query side by side.

    A query that stands several times in the records gives as many rows. Records of other models, preference records
    and queries with one score alone are left out.
    """
    scores: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    query_of: dict[str, Query] = {}
    task_of: dict[str, str | None] = {}
    for record in records:
        if isinstance(record, PerformanceRecord) and record.model in {strong, weak}:
            key = record_key(record)
            query_of.setdefault(key, record.query)
            task_of.setdefault(key, record.task)
            scores[key][record.model].append((record.score, record.weight))
    rows = [
        (key, *both) for key, by_model in scores.items() for both in zip(by_model[strong], by_model[weak], strict=False)
    ]
    keys = [key for key, _, _ in rows]
    return Pairs(
        queries=[query_of[key] for key in keys],
        strong=np.asarray([of_strong[0] for _, of_strong, _ in rows], np.float64),
        weak=np.asarray([of_weak[0] for _, _, of_weak in rows], np.float64),
        keys=keys,
        tasks=[task_of[key] for key in keys],
        weight=relative_weights([(of_strong[1] + of_weak[1]) / 2 for _, of_strong, of_weak in rows]),
    )


def relative_weights(weights: npt.ArrayLike) -> Array | None:
    """Weights (n,) with a mean of 1; None where all of them are the same."""
    found = np.asarray(weights, np.float64)
    return None if not len(found) or found.min() == found.max() else found / found.mean()


def groups_of(keys: Sequence[str]) -> Rows:
    """The number of each row's prompt, int64 (n,): rows of one prompt are resampled together."""
    number: dict[str, int] = {}
    return np.asarray([number.setdefault(key, len(number)) for key in keys], np.int64)


def routing_results(
    routers: Mapping[str, Router],
    baselines: Mapping[str, Router],
    pairs: Pairs,
    training: Sequence[Record],
    assumptions: Assumptions,
) -> tuple[list[Result], list[Difference]]:
    """Measure every router, baseline and bound, and the paired differences between routers and to kNN.

    Args:
        routers: the routers to judge, by name.
        baselines: the routers to compare them with, by name.
        pairs: n rows with a score of both models.
        training: records that tell which model is the better one for each task.
        assumptions: models, prices and resamples.

    Returns:
        The results (routers, then baselines, then the oracle), and the differences.
    """
    contest = _contest(routers, baselines, pairs, training, assumptions)
    measured = contest.measure(np.arange(len(pairs.queries)))
    drawn = []
    for rows in resamples(groups_of(pairs.keys), assumptions.bootstrap, assumptions.seed):
        drawn.append(contest.measure(rows))
        assumptions.on_step()
    results = [contest.result(name, values, [one[name] for one in drawn]) for name, values in measured.items()]
    compared = [*routers, *(["kNN"] if "kNN" in baselines else [])]
    differences = [
        Difference(
            router=a,
            other=b,
            apgr=measured[a]["apgr"] - measured[b]["apgr"],
            interval=percentile_interval([one[a]["apgr"] - one[b]["apgr"] for one in drawn]),
        )
        for position, a in enumerate(compared)
        for b in compared[position + 1 :]
        if drawn
    ]
    return sorted(results, key=lambda result: _ROLES.index(result.role)), differences


@dataclass(frozen=True, kw_only=True)
class _Contest:
    """Everything that is compared on n pairs.

    Attributes:
        pairs: the n rows.
        roles: what each name is: "router", "baseline" or "bound".
        scores: (n,) by name: a score of each query, which every threshold turns into a decision.
        choices: (n,) by name: 1 where strong is chosen and 0 where weak is, without a threshold.
        probabilistic: the names whose score is a win rate, so that calibration can be measured.
        cost: (n, 2) USD of each query at strong and at weak; None where a price is not known.
    """

    pairs: Pairs
    roles: Mapping[str, str]
    scores: Mapping[str, Floats]
    choices: Mapping[str, Array]
    probabilistic: set[str]
    cost: Array | None

    def measure(self, rows: Rows) -> Figures:
        """All figures on some of the rows, which may repeat."""
        figures = {name: self._of_scores(name, rows) for name in self.scores}
        return figures | {name: self._of_choice(choice, rows) for name, choice in self.choices.items()}

    def _of_scores(self, name: str, rows: Rows) -> dict[str, float]:
        scores, strong, weak = self.scores[name][rows], self.pairs.strong[rows], self.pairs.weak[rows]
        weight = self.pairs.weight_of(rows)
        curve = routing_curve(scores, strong, weak, weight)
        figures = {"apgr": curve.apgr, **{f"cpt{p}": curve.cpt(p / 100) for p in (50, 80, 95)}}
        figures["auroc"] = auroc(scores, strong > weak, weight)
        for target in QUALITY_TARGETS:
            share = curve.share_for(target * curve.strong)
            figures[f"share{100 * target:.0f}"] = share
            if self.cost is not None:
                mean = weighted_mean(self.cost[rows], weight) * 1000
                figures[f"cost{100 * target:.0f}"] = float(share * mean[0] + (1 - share) * mean[1])
        if name in self.probabilistic:
            figures["ece"] = expected_calibration_error(scores, (strong - weak) / 2 + 0.5, weight=weight)
        return figures

    def _of_choice(self, to_strong: Array, rows: Rows) -> dict[str, float]:
        chosen, weight = to_strong[rows] > 0, self.pairs.weight_of(rows)
        quality = np.where(chosen, self.pairs.strong[rows], self.pairs.weak[rows])
        figures = {
            "strong_share": float(weighted_mean(chosen, weight)),
            "quality": float(weighted_mean(quality, weight)),
        }
        if self.cost is not None:
            cost = np.where(chosen, self.cost[rows, 0], self.cost[rows, 1])
            figures["cost"] = float(weighted_mean(cost, weight) * 1000)
        return figures

    def result(self, name: str, values: dict[str, float], drawn: Sequence[Mapping[str, float]]) -> Result:
        """The result of one name from its figures on all rows and on the resamples."""
        scores = self.scores.get(name)
        weight = self.pairs.weight
        curve = None if scores is None else routing_curve(scores, self.pairs.strong, self.pairs.weak, weight)
        win_rates = (self.pairs.strong - self.pairs.weak) / 2 + 0.5
        return Result(
            router=name,
            role=self.roles[name],
            values=values,
            intervals={key: percentile_interval([one[key] for one in drawn]) for key in values} if drawn else {},
            curve=None if curve is None else list(zip(curve.share.tolist(), curve.quality.tolist(), strict=True)),
            reliability=reliability(self.scores[name], win_rates, weight=weight)
            if name in self.probabilistic
            else None,
            tasks={} if scores is None else _apgr_by_task(scores, self.pairs),
        )


def _contest(
    routers: Mapping[str, Router],
    baselines: Mapping[str, Router],
    pairs: Pairs,
    training: Sequence[Record],
    assumptions: Assumptions,
) -> _Contest:
    """Score the pairs by every router, and add the choices that need no router."""
    strong, weak = assumptions.strong, assumptions.weak
    count = len(pairs.queries)
    scores = {name: router.win_rate(pairs.queries, strong, weak) for name, router in {**routers, **baselines}.items()}
    scores["random"] = np.random.default_rng(assumptions.seed).random(count).astype(np.float32)
    # The thresholds of the metric are quantiles, so that ties would fall on one side: the oracle breaks them at random.
    scores["oracle"] = ((pairs.strong - pairs.weak) / 2 + 0.5 + 1e-3 * scores["random"]).astype(np.float32)
    choices = {"always-weak": np.zeros(count), "always-strong": np.ones(count)}
    by_task = best_by_task(training, pairs.tasks, strong, weak)
    if by_task is not None:
        choices["best single by task"] = by_task
    roles = dict.fromkeys([*scores, *choices], "baseline") | {"oracle": "bound"} | dict.fromkeys(routers, "router")
    return _Contest(
        pairs=pairs,
        roles=roles,
        scores=scores,
        choices=choices,
        probabilistic={name for name, one in {**routers, **baselines}.items() if not isinstance(one, RulesRouter)},
        cost=pair_costs(assumptions.prices, strong, weak, pairs.queries, assumptions.output_tokens),
    )


def _apgr_by_task(scores: Floats, pairs: Pairs) -> dict[str, float]:
    """APGR of each task that has enough queries and a gap between the models."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, task in enumerate(pairs.tasks):
        if task is not None:
            rows_of[task].append(row)
    by_task = {}
    for task, rows in sorted(rows_of.items()):
        if len(rows) >= LEAST_TASK:
            weight = pairs.weight_of(np.asarray(rows))
            apgr = routing_curve(scores[rows], pairs.strong[rows], pairs.weak[rows], weight).apgr
            if not math.isnan(apgr):
                by_task[task] = apgr
    return by_task
