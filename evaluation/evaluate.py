"""Evaluate routers on records that they were not trained on, beside the baselines that they must beat."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..data.records import PerformanceRecord, PreferenceRecord, Record, check_records, record_key
from ..routers.base import Router, win_rate
from ..routers.decision import Model
from ..routers.errors import InputError
from ..routers.messages import USER, turn_of
from ..routers.query import Query
from ..routers.rules import RulesRouter
from ..training.fit.metrics import Array, log_loss, percentile_interval, resamples, weighted_mean
from .baselines import learned_baselines
from .costs import priced_models
from .pair import Assumptions, groups_of, paired, relative_weights, routing_results
from .pool import PoolReport, evaluate_pool
from .results import Difference, Report, Result

#: Fewest models of a pool evaluation; each of them needs a score on every query.
_LEAST_POOL = 3
#: Most resamples of a pool evaluation, each of which draws a hull for every router.
_MOST_POOL_RESAMPLES = 300


def _check_given(routers: object, records: object, training: object) -> None:
    if not isinstance(routers, Mapping) or not all(isinstance(router, Router) for router in routers.values()):
        raise InputError(f"routers is {routers!r:.80}; expected routers by name: {{'mine': routelearn.load(path)}}")
    if not routers:
        raise InputError("no router was given; expected one or more to evaluate")
    check_records(records)
    check_records(training)


def evaluate(
    routers: Mapping[str, Router],
    records: Sequence[Record],
    *,
    training: Sequence[Record] = (),
    strong: str | None = None,
    weak: str | None = None,
    prices: Sequence[Model] = (),
    output_tokens: int = 300,
    first_turn: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
    on_step: Callable[[], object] = lambda: None,
) -> Report:
    """Evaluate routers beside random, always-weak, always-strong, best by task, rules, kNN, k-means and the oracle.

    Performance records of strong and weak on the same query give the routing metrics (RouteLLM, arXiv 2406.18665,
    section 3). Preference records between models that a router knows give its log loss. Three or more models with
    scores and prices give the evaluation over the pool (RouterBench, arXiv 2403.12031).

    Example:
        >>> records = routelearn.read_records("records.jsonl").records
        >>> test = [record for record in records if record.split == "test"]
        >>> report = routelearn.evaluate({"mf": routelearn.load("router/")}, test, bootstrap=20)
        >>> report["oracle"].values["apgr"] > report["mf"].values["apgr"] > 0.5
        True

    Args:
        routers: the routers by name.
        records: evaluation records that the routers were not trained on (`check_leaks`).
        training: the records that the routers were trained on; kNN, k-means and best by task learn from them too.
        strong: the strong model; None: that of the first router.
        weak: the weak model; None: that of the first router.
        prices: models with prices; empty: the pool of the first router.
        output_tokens: assumed length of an answer, for costs.
        first_turn: route on the first user turn of a chat and count the scores of every turn, as RouteLLM does on
            MT-Bench.
        bootstrap: number of resamples of the intervals.
        seed: seed of the resamples and of the random baseline.
        on_step: called after each resample, for a progress bar.

    Raises:
        InputError: there is no router, the records say nothing about the models, or a price is out of range.
    """
    _check_given(routers, records, training)
    first = next(iter(routers.values()))
    assumptions = Assumptions(
        strong=strong or first.strong,
        weak=weak or first.weak,
        prices=priced_models(prices or first.pool),
        output_tokens=output_tokens,
        bootstrap=bootstrap,
        seed=seed,
        on_step=on_step,
    )
    if first_turn:
        records = [replace(record, query=_first_turn(record.query)) for record in records]
    return _report(routers, records, training, assumptions)


def _report(
    routers: Mapping[str, Router], records: Sequence[Record], training: Sequence[Record], assumptions: Assumptions
) -> Report:
    strong, weak = assumptions.strong, assumptions.weak
    pairs = paired(records, strong, weak)
    preferences = [record for record in records if isinstance(record, PreferenceRecord)]
    known = {name for router in routers.values() for name in router.models}
    if not pairs.queries and not any(known.issuperset(record.models) for record in preferences):
        named = sorted({name for record in records for name in record.models})
        raise InputError(
            f"no query has a score of both {strong!r} and {weak!r}, and there is no preference record of two models of "
            f"the router; the records name {named[:20]}: expected performance records of both models, or preference "
            "records; see --alias"
        )
    notes: list[str] = []
    given = [name for name, router in routers.items() if isinstance(router, RulesRouter)]
    baselines: dict[str, Router] = {} if given else {"rules": RulesRouter(strong, weak)}
    if training:
        baselines |= learned_baselines(training, next(iter(routers.values())).models, strong, weak)
    if "kNN" not in baselines:
        notes.append("kNN, k-means and best by task are missing: they need the training records of both models")
    if pairs.weight is not None:
        low, high = float(pairs.weight.min()), float(pairs.weight.max())
        notes.append(
            f"the records have weights, {low:.2f} to {high:.2f} times their mean; every figure and interval counts them"
        )
    results: list[Result] = []
    differences: list[Difference] = []
    if pairs.queries:
        # Between two models the ranking is the same as always-strong.
        compared = {name: router for name, router in baselines.items() if name != "ranking"}
        results, differences = routing_results(routers, compared, pairs, training, assumptions)
    if preferences:
        results = _with_log_loss(results, routers, baselines, preferences, assumptions)
    pool, reason = _pool_report(routers, baselines, records, assumptions)
    return Report(
        strong=strong,
        weak=weak,
        queries=len(pairs.queries),
        prompts=len(set(pairs.keys)),
        preferences=len(preferences),
        strong_quality=float(weighted_mean(pairs.strong, pairs.weight)) if pairs.queries else None,
        weak_quality=float(weighted_mean(pairs.weak, pairs.weight)) if pairs.queries else None,
        tasks=dict(sorted(Counter(task for task in pairs.tasks if task).items())),
        results=results,
        differences=differences,
        pool=pool,
        notes=[*notes, *([reason] if reason else [])],
    )


def preference_losses(router: Router, records: Sequence[PreferenceRecord]) -> Array:
    """Log loss (nats) of each of n preference records under a router's win rates.

    Args:
        router: gives the win rates.
        records: n preference records.

    Returns:
        (n,) losses; NaN where the router does not know one of the models.
    """
    by_pair: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        if record.model_a in router.models and record.model_b in router.models:
            by_pair[record.model_a, record.model_b].append(row)
    quality = router.quality([record.query for record in records])
    losses = np.full(len(records), np.nan)
    for (a, b), rows in by_pair.items():
        rates = win_rate(quality[rows, router.index(a)], quality[rows, router.index(b)], router.link)
        losses[rows] = log_loss(rates, np.asarray([records[row].preference for row in rows]))
    return losses


def _with_log_loss(
    results: Sequence[Result],
    routers: Mapping[str, Router],
    baselines: Mapping[str, Router],
    records: Sequence[PreferenceRecord],
    assumptions: Assumptions,
) -> list[Result]:
    """The results with the log loss on the preference records, for every router that knows their models."""
    groups = groups_of([record_key(record) for record in records])
    weight = relative_weights([record.weight for record in records])
    by_name = {result.router: result for result in results}
    for name, router in {**routers, **baselines}.items():
        losses = preference_losses(router, records)
        if np.isnan(losses).all():
            continue
        before = by_name.get(name) or Result(router=name, role="router" if name in routers else "baseline")
        drawn = [
            _mean_known(losses, weight, rows) for rows in resamples(groups, assumptions.bootstrap, assumptions.seed)
        ]
        by_name[name] = replace(
            before,
            values={**before.values, "log_loss": _mean_known(losses, weight, np.arange(len(losses)))},
            intervals={**before.intervals, "log_loss": percentile_interval(drawn)},
        )
    return list(by_name.values())


def _mean_known(losses: Array, weight: Array | None, rows: npt.NDArray[np.int64]) -> float:
    """The weighted mean of the losses at some rows that are not NaN; NaN where all are."""
    known = rows[~np.isnan(losses[rows])]
    if not len(known):
        return float("nan")
    return float(weighted_mean(losses[known], None if weight is None else weight[known]))


def _pool_report(
    routers: Mapping[str, Router],
    baselines: Mapping[str, Router],
    records: Sequence[Record],
    assumptions: Assumptions,
) -> tuple[PoolReport | None, str]:
    """The evaluation over all models that every router knows, or the reason why there is none.

    It takes the queries that have a score of every model. A pool of fewer than three models needs no reason.
    """
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    weights: dict[str, list[float]] = defaultdict(list)
    query_of: dict[str, Query] = {}
    for record in records:
        if isinstance(record, PerformanceRecord):
            scores[record_key(record)][record.model] = record.score
            weights[record_key(record)].append(record.weight)
            query_of.setdefault(record_key(record), record.query)
    # Rules know two models only.
    contestants = {name: one for name, one in {**routers, **baselines}.items() if not isinstance(one, RulesRouter)}
    if not contestants:
        return None, ""
    scored = {name for by_model in scores.values() for name in by_model}
    pool = [name for name in next(iter(contestants.values())).models if name in scored]
    pool = [name for name in pool if all(name in router.models for router in contestants.values())]
    if len(pool) < _LEAST_POOL:
        return None, ""
    unpriced = [name for name in pool if name not in assumptions.prices]
    if unpriced:
        return None, f"there is no evaluation over the pool: give prices of {unpriced[:5]} with --pool"
    keys = [key for key, by_model in scores.items() if all(name in by_model for name in pool)]
    if not keys:
        return None, "there is no evaluation over the pool: no query has a score of every model"
    queries = [query_of[key] for key in keys]
    report = evaluate_pool(
        {
            name: router.quality(queries)[:, [router.index(model) for model in pool]]
            for name, router in contestants.items()
        },
        queries,
        np.asarray([[scores[key][name] for name in pool] for key in keys]),
        [assumptions.prices[name] for name in pool],
        output_tokens=assumptions.output_tokens,
        bootstrap=min(assumptions.bootstrap, _MOST_POOL_RESAMPLES),
        seed=assumptions.seed,
        weight=relative_weights([float(np.mean(weights[key])) for key in keys]),
    )
    return report, ""


def _first_turn(query: Query) -> Query:
    """A chat up to its first user message; a prompt as it is."""
    if isinstance(query, str):
        return query
    for position, message in enumerate(query):
        if turn_of(message).role in USER:
            return tuple(query[: position + 1])
    return query
