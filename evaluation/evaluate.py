"""Evaluate routers on records they were not trained on, beside the baselines that they must beat."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..data.records import PerformanceRecord, PreferenceRecord, Record, record_key
from ..policies.cost import check_prices
from ..routers.base import Model, Router, win_rate
from ..routers.errors import InputError
from ..routers.query import Query
from ..routers.rules import RulesRouter
from ..training.fit.metrics import Array, log_loss, percentile_interval, resamples
from .baselines import learned_baselines
from .pair import groups_of, paired, routing_results
from .pool import PoolReport, evaluate_pool
from .results import Difference, Report, Result

#: A pool is evaluated over the models that have a score on every query, three at least.
_LEAST_POOL = 3


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

    Performance records of strong and weak on the same query give the routing metrics; preference records
    between models that a router knows give its log loss; three or more priced models give the pool's.

    Args:
        routers: name to router.
        records: evaluation records, not trained on (`check_leaks`).
        training: what the routers were trained on, for the baselines that learn from it as well.
        strong: the strong model; None: that of the first router.
        weak: the weak model; None: that of the first router.
        prices: models with prices; None known: those of the first router's bundle.
        output_tokens: assumed length of an answer, for costs.
        first_turn: route on the first user turn of a chat, and count every turn (as RouteLLM does on MT-Bench).
        bootstrap: resamples of the intervals.
        seed: of the bootstrap and the random baseline.
        on_step: called once a resample, for progress.

    Raises:
        InputError: no record that says anything of the routers.
    """
    first = next(iter(routers.values()))
    strong, weak = strong or first.strong, weak or first.weak
    if first_turn:
        records = [replace(record, query=_first_turn(record.query)) for record in records]
    pairs = paired(records, strong, weak)
    preferences = [record for record in records if isinstance(record, PreferenceRecord)]
    if not pairs.queries and not preferences:
        raise InputError(f"no query has a score of both {strong!r} and {weak!r}, and there is no preference record")
    notes: list[str] = []
    baselines: dict[str, Router] = {"rules": RulesRouter(strong, weak)}
    if training:
        baselines |= learned_baselines(training, first.models, strong, weak)
    if "kNN" not in baselines:
        notes.append("kNN, k-means and best-by-task are missing: give the training records of both models")
    priced = {
        model.name: model
        for model in prices or first.pool
        if model.input_price is not None and model.output_price is not None
    }
    check_prices(priced.values())
    results: list[Result] = []
    differences: list[Difference] = []
    if pairs.queries:
        # Between two models the ranking is always-strong.
        of_queries = {name: router for name, router in baselines.items() if name != "ranking"}
        results, differences = routing_results(
            routers, of_queries, pairs, training, (strong, weak), priced, output_tokens, bootstrap, seed, on_step
        )
    if preferences:
        results = _with_log_loss(results, {**routers, **baselines}, preferences, set(routers), bootstrap, seed)
    pool = _pool_report(routers, baselines, records, priced, output_tokens, bootstrap, seed, notes)
    count: dict[str, int] = defaultdict(int)
    for task in pairs.tasks:
        count[task or ""] += 1
    return Report(
        strong,
        weak,
        len(pairs.queries),
        len(set(pairs.keys)),
        len(preferences),
        float(pairs.strong.mean()) if pairs.queries else None,
        float(pairs.weak.mean()) if pairs.queries else None,
        {task: number for task, number in sorted(count.items()) if task},
        results,
        differences,
        pool,
        notes,
    )


def preference_losses(router: Router, records: Sequence[PreferenceRecord]) -> Array:
    """Log loss (nats) of each preference record under a router's win rates: (n,); NaN where it knows a model not."""
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
    results: list[Result],
    routers: Mapping[str, Router],
    records: Sequence[PreferenceRecord],
    judged: set[str],
    bootstrap: int,
    seed: int,
) -> list[Result]:
    groups = groups_of([record_key(record) for record in records])
    by_name = {result.router: result for result in results}
    for name, router in routers.items():
        losses = preference_losses(router, records)
        if np.isnan(losses).all():
            continue
        before = by_name.get(name) or Result(name, "router" if name in judged else "baseline")
        drawn = [float(np.nanmean(losses[rows])) for rows in resamples(groups, bootstrap, seed)]
        by_name[name] = replace(
            before,
            values={**before.values, "log_loss": float(np.nanmean(losses))},
            intervals={**before.intervals, "log_loss": percentile_interval(drawn)},
        )
    return list(by_name.values())


def _pool_report(
    routers: Mapping[str, Router],
    baselines: Mapping[str, Router],
    records: Sequence[Record],
    prices: Mapping[str, Model],
    output_tokens: int,
    bootstrap: int,
    seed: int,
    notes: list[str],
) -> PoolReport | None:
    """Over the priced models that every contestant knows, on the queries that have a score of all of them."""
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    query_of: dict[str, Query] = {}
    for record in records:
        if isinstance(record, PerformanceRecord):
            scores[record_key(record)][record.model] = record.score
            query_of.setdefault(record_key(record), record.query)
    contestants = {**routers, **{name: router for name, router in baselines.items() if name != "rules"}}
    seen = {name for found in scores.values() for name in found}
    pool = [name for name in next(iter(routers.values())).models if name in seen]
    pool = [name for name in pool if all(name in router.models for router in contestants.values())]
    if len(pool) < _LEAST_POOL:
        return None
    unpriced = [name for name in pool if name not in prices]
    if unpriced:
        notes.append(f"no evaluation over the pool: no prices of {unpriced[:5]}; give them with --pool")
        return None
    keys = [key for key, found in scores.items() if all(name in found for name in pool)]
    if not keys:
        notes.append("no evaluation over the pool: no query has a score of every model")
        return None
    queries = [query_of[key] for key in keys]
    matrix = np.asarray([[scores[key][name] for name in pool] for key in keys])
    predictions = {
        name: router.quality(queries)[:, [router.index(model) for model in pool]]
        for name, router in contestants.items()
    }
    return evaluate_pool(
        predictions,
        queries,
        matrix,
        [prices[name] for name in pool],
        np.arange(len(keys)),
        output_tokens=output_tokens,
        bootstrap=min(bootstrap, 300),
        seed=seed,
    )


def _first_turn(query: Query) -> Query:
    if isinstance(query, str):
        return query
    for position, message in enumerate(query):
        if message.get("role") == "user":
            return tuple(query[: position + 1])
    return query
