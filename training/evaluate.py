"""Evaluate exported routers on records they were not trained on, beside the baselines that cost nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..data.records import PerformanceRecord, PreferenceRecord, Record, record_key
from ..routers.base import Router, win_rate
from ..routers.errors import InputError
from ..routers.query import Query
from ..routers.rules import RulesRouter
from .metrics import Array, bootstrap_interval, log_loss, routing_curve


@dataclass(frozen=True)
class Result:
    """What one router is worth on one set; every interval is a 95 % bootstrap over prompts.

    Attributes:
        router: its name.
        apgr: average performance gap recovered, or None without performance records of both models.
        apgr_interval: of `apgr`.
        cpt50: strong share needed for half of the gap.
        cpt80: for 80 % of it.
        log_loss: of the win rates on preference records (nats), or None without them.
        log_loss_interval: of `log_loss`.
    """

    router: str
    apgr: float | None = None
    apgr_interval: tuple[float, float] | None = None
    cpt50: float | None = None
    cpt80: float | None = None
    log_loss: float | None = None
    log_loss_interval: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, object]:
        """Plain data, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Report:
    """An evaluation: how many queries and preferences, the two models' own quality, and the results."""

    queries: int
    preferences: int
    strong: str
    weak: str
    strong_quality: float | None
    weak_quality: float | None
    results: list[Result]


def evaluate(
    routers: Mapping[str, Router],
    records: Sequence[Record],
    *,
    strong: str | None = None,
    weak: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Report:
    """Evaluate routers; random, rules and oracle are always beside them.

    Performance records of strong and weak on the same query give APGR and CPT;
    preference records between models that a router knows give its log loss.

    Args:
        routers: name to router.
        records: evaluation records, not trained on (`check_leaks`).
        strong: the strong model; None: that of the first router.
        weak: the weak model; None: that of the first router.
        bootstrap: resamples of the intervals.
        seed: of the bootstrap and the random baseline.

    Raises:
        InputError: no record that says anything of the routers.
    """
    first = next(iter(routers.values()))
    strong, weak = strong or first.strong, weak or first.weak
    queries, strong_scores, weak_scores, keys = _paired(records, strong, weak)
    preferences = [record for record in records if isinstance(record, PreferenceRecord)]
    if not queries and not preferences:
        raise InputError(f"no query has a score of both {strong!r} and {weak!r}, and there is no preference record")
    groups = _groups(keys)
    results = []
    named: list[tuple[str, Array]] = []
    if queries:
        named = [(name, router.win_rate(queries, strong, weak).astype(np.float64)) for name, router in routers.items()]
        named.append(("rules", RulesRouter(strong, weak).score(queries).astype(np.float64)))
        named.append(("random", np.random.default_rng(seed).random(len(queries))))
        # The oracle's gains are few values; a little noise orders the equal ones, so that every share is reached.
        noise = np.random.default_rng(seed).random(len(queries))
        named.append(("oracle", strong_scores - weak_scores + 1e-6 * noise))
    for name, scores in named:
        curve = routing_curve(scores, strong_scores, weak_scores)

        def apgr(rows: np.ndarray, scores: Array = scores) -> float:
            return routing_curve(scores[rows], strong_scores[rows], weak_scores[rows]).apgr

        results.append(
            Result(
                name,
                apgr=curve.apgr,
                apgr_interval=bootstrap_interval(apgr, groups, samples=bootstrap, seed=seed),
                cpt50=curve.cpt(0.5),
                cpt80=curve.cpt(0.8),
            )
        )
    if preferences:
        results += _preference_results(routers, preferences, bootstrap, seed)
    return Report(
        len(queries),
        len(preferences),
        strong,
        weak,
        float(strong_scores.mean()) if queries else None,
        float(weak_scores.mean()) if queries else None,
        results,
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


def _preference_results(
    routers: Mapping[str, Router], records: Sequence[PreferenceRecord], bootstrap: int, seed: int
) -> list[Result]:
    groups = _groups([record_key(record) for record in records])
    results = []
    for name, router in routers.items():
        losses = preference_losses(router, records)
        known = ~np.isnan(losses)
        if not known.any():
            continue

        def mean(rows: np.ndarray, losses: Array = losses) -> float:
            return float(np.nanmean(losses[rows]))

        interval = bootstrap_interval(mean, groups, samples=bootstrap, seed=seed)
        results.append(Result(name, log_loss=float(losses[known].mean()), log_loss_interval=interval))
    return results


def _paired(records: Sequence[Record], strong: str, weak: str) -> tuple[list[Query], Array, Array, list[str]]:
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    query_of: dict[str, Query] = {}
    for record in records:
        if isinstance(record, PerformanceRecord) and record.model in {strong, weak}:
            key = record_key(record)
            query_of.setdefault(key, record.query)
            scores[key][record.model].append(record.score)
    keys = [key for key, found in scores.items() if strong in found and weak in found]
    rows: list[tuple[str, float, float]] = []
    for key in keys:  # a question that stands several times counts as often
        rows += [(key, s, w) for s, w in zip(scores[key][strong], scores[key][weak], strict=False)]
    return (
        [query_of[key] for key, _, _ in rows],
        np.asarray([s for _, s, _ in rows], np.float64),
        np.asarray([w for _, _, w in rows], np.float64),
        [key for key, _, _ in rows],
    )


def _groups(keys: Sequence[str]) -> np.ndarray:
    number: dict[str, int] = {}
    return np.asarray([number.setdefault(key, len(number)) for key in keys], np.int64)
