"""Watches routing: which models are chosen, what decided, how fast, and whether traffic and outcomes drift."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, get_args

import numpy as np

from ..routers.assessment import Assessment
from ..routers.base import Router, check_router
from ..routers.checks import OTHER, as_number, clean_name, usable
from ..routers.decision import THRESHOLD, TRAINED, Decision, Source
from ..routers.errors import InputError
from ..routers.forks import new_lock
from ..routers.query import Query
from ..routers.rules import RulesRouter
from ..routers.stand_in import FALLBACK_CAUSES
from .alarms import OnAlarm
from .calibration_drift import CalibrationMonitor, CalibrationStatus
from .drift import DriftMonitor, DriftStatus
from .limits import wilson
from .reference import Reference, reference_of
from .repeats import query_key
from .window import Histogram, Latency

logger = logging.getLogger("routelearn.monitoring")

#: Upper bounds of the buckets of the routing latency, in seconds. One more bucket holds slower requests.
ROUTE_BOUNDS = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0)
#: Upper bounds of the bins of the score. A score on a bound is in the bin below it, as Prometheus counts.
SCORE_BOUNDS = tuple(place / 20 for place in range(1, 21))
#: Causes of a decision that was not the router's: those of `FallbackRouter`, and "closed" of a service that stops.
FALLBACKS = FALLBACK_CAUSES | {"closed"}
_SOURCES = frozenset(get_args(Source))
_CAUSES = FALLBACKS | {THRESHOLD}
#: Number of combinations of model, source and cause that have counts of their own.
MAX_KEYS = 100

#: A model, a source and a cause.
Key = tuple[str, str, str]


class _Row(NamedTuple):
    """The facts about one request that the window keeps."""

    strong: bool
    fallback: bool
    truncated: bool
    score_bin: int | None
    latency_s: float | None


@dataclass(slots=True)
class RouteTotals:
    """Sums since the start; they never fall.

    Attributes:
        requests: number of decisions observed.
        decisions: number of decisions by model, source and cause.
        fallbacks: number of decisions that something other than the learned router made.
        truncated: number of queries of which a part was left out.
        ignored: number of scores, latencies, novelties, vectors and outcomes that were not usable. They are in no sum.
        scores: number of queries in each bin of the score (`SCORE_BOUNDS`), not cumulated.
        score_sum: sum of all scores.
        latency: latency of routing, by bucket of `ROUTE_BOUNDS`.

    Example:
        >>> import routelearn
        >>> from routelearn.monitoring import RouteMonitor
        >>> router = routelearn.load("router/")
        >>> monitor = RouteMonitor(router)
        >>> monitor.observe_batch(router.route_batch(["What is 2 plus 2?", "Prove it."]))
        >>> monitor.status().totals.requests
        2
    """

    requests: int = 0
    decisions: dict[Key, int] = field(default_factory=dict)
    fallbacks: int = 0
    truncated: int = 0
    ignored: int = 0
    scores: list[int] = field(default_factory=lambda: [0] * len(SCORE_BOUNDS))
    score_sum: float = 0.0
    latency: Histogram = field(default_factory=lambda: Histogram([0] * (len(ROUTE_BOUNDS) + 1)))

    def copy(self) -> RouteTotals:
        """A copy that later requests do not change."""
        latency = Histogram(list(self.latency.counts), self.latency.seconds)
        return replace(self, decisions=dict(self.decisions), scores=list(self.scores), latency=latency)


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """The state of routing. Shares are shares of the window, in [0, 1]; they are None when the window is empty.

    Attributes:
        window: number of requests in the window.
        strong: name of the strong model; None when it is not known.
        strong_share: share of the requests that went to the strong model; None when that model is not known.
        strong_interval: 95 % interval of that share (Wilson 1927), as if the requests were independent.
        fallback_share: share of the requests that something other than the learned router decided.
        truncated_share: share of the queries of which a part was left out.
        scores: number of requests in each bin of the score (`SCORE_BOUNDS`).
        latency: latency of routing; None when it is not known.
        drift: state of the traffic compared with the reference.
        calibration: state of the scores compared with the outcomes.
        totals: sums since the start.

    Example:
        >>> from routelearn.monitoring import RouteMonitor
        >>> status = RouteMonitor().status()
        >>> status.window, status.strong_share, status.drift.state
        (0, None, 'unknown')
    """

    window: int
    strong: str | None
    strong_share: float | None
    strong_interval: tuple[float, float]
    fallback_share: float | None
    truncated_share: float | None
    scores: list[int]
    latency: Latency | None
    drift: DriftStatus
    calibration: CalibrationStatus
    totals: RouteTotals


class RouteMonitor:
    """Counts decisions and raises one alarm when traffic drifts. Safe to share between threads; memory is constant.

    Attributes:
        drift: compares scores, novelties and vectors with the reference of the router's bundle.
        calibration: compares scores with outcomes.

    Example:
        >>> import routelearn
        >>> from routelearn.monitoring import RouteMonitor
        >>> router = routelearn.load("router/")
        >>> monitor = RouteMonitor(router)
        >>> for text in ["What is 2 plus 2?", "Name a city."]:
        ...     monitor.observe(router.route(text), latency_s=0.0001)
        >>> status = monitor.status()
        >>> status.window, status.strong, status.latency.p50
        (2, 'sim-max', 0.0001)
    """

    def __init__(
        self,
        router: Router | None = None,
        *,
        window: int = 1000,
        on_alarm: OnAlarm | None = None,
        drift: DriftMonitor | None = None,
        calibration: CalibrationMonitor | None = None,
    ) -> None:
        """Start with an empty window.

        Args:
            router: the router whose decisions are observed. It gives the name of the strong model and the reference; a
                fallback router gives those of the learned router inside. None: a learned router whose strong model and
                reference are not known.
            window: number of last requests that shares and percentiles are computed from, at least 1.
            on_alarm: called once for each alarm, in the thread whose request raised it.
            drift: a drift monitor with settings of your own, and with its own `on_alarm`; None: the default settings.
            calibration: a calibration monitor with settings of your own; None: the default settings.

        Raises:
            InputError: window is below 1, or router is none.
        """
        check_router(router, or_none=True)
        if window < 1:
            raise InputError(f"window is {window}; expected 1 request or more")
        self._lock = new_lock()
        self._recent: deque[_Row] = deque(maxlen=window)
        self._totals = RouteTotals()
        self.drift = drift or DriftMonitor(None if router is None else _reference_or_none(router), on_alarm=on_alarm)
        self.calibration = calibration or CalibrationMonitor(on_alarm=on_alarm)
        self._strong: str | None = None
        self._name(router)

    def _name(self, router: Router | None) -> None:
        self._strong = None if router is None else router.strong
        self._models = frozenset(() if router is None else router.models)
        self._learned = router is None or not isinstance(router, RulesRouter)

    def follow(self, router: Router) -> None:
        """Watch another router from now on. The window and the totals stay; drift and calibration start again."""
        reference = _reference_or_none(router)
        with self._lock:
            self._name(router)
        self.drift.follow(reference)
        self.calibration.reset()

    def observe(
        self,
        decision: Decision,
        *,
        novelty: float | None = None,
        vector: Any = None,
        latency_s: float | None = None,
        key: Hashable | None = None,
    ) -> None:
        """Count one request. Bad values raise nothing: they are left out and counted in `RouteTotals.ignored`.

        Args:
            decision: the decision.
            novelty: the query's value in `Assessment.novelty`; None when it was not measured.
            vector: (k,), the query's row of `Assessment.vectors`; None when it was not measured.
            latency_s: time that routing took, in seconds; None when it is not known.
            key: equal for queries that are not independent, see `DriftMonitor.observe`.
        """
        score = as_number(decision.score)
        scored = 0 <= score <= 1
        fallback = decision.cause in FALLBACKS or (self._learned and decision.source not in TRAINED)
        latency = None if latency_s is None else as_number(latency_s)
        with self._lock:
            totals = self._totals
            totals.requests += 1
            self._count(decision)
            totals.fallbacks += fallback
            truncated = bool(decision.truncated)
            totals.truncated += truncated
            score_bin = bisect_left(SCORE_BOUNDS, score) if scored else None
            if score_bin is not None:
                totals.scores[score_bin] += 1
                totals.score_sum += score
            else:
                totals.ignored += 1
            if latency is not None and not usable(latency):
                totals.ignored += 1
                latency = None
            if latency is not None:
                totals.latency.counts[bisect_left(ROUTE_BOUNDS, latency)] += 1
                totals.latency.seconds += latency
            strong = decision.model == self._strong
            self._recent.append(_Row(strong, fallback, truncated, score_bin, latency))
        # The score of a fallback is not comparable with the router's scores.
        self.drift.observe(score if scored and not fallback else None, novelty, vector, key=key)

    def observe_batch(
        self,
        decisions: Sequence[Decision],
        assessment: Assessment | None = None,
        latency_s: float | None = None,
        queries: Sequence[Query] | None = None,
    ) -> None:
        """Count the requests of one batch.

        Args:
            decisions: the n decisions.
            assessment: the assessment of the same n queries, which holds their novelties and vectors.
            latency_s: time that the batch took, in seconds. It counts as the latency of each request.
            queries: the same n queries, whose texts tell repeats; None: their novelties and vectors do.
        """
        novelty = None if assessment is None or assessment.novelty is None else assessment.novelty.tolist()
        vectors = None if assessment is None else assessment.vectors
        for row, decision in enumerate(decisions):
            self.observe(
                decision,
                novelty=None if novelty is None else novelty[row],
                vector=None if vectors is None else vectors[row],
                latency_s=latency_s,
                key=None if queries is None else query_key(queries[row]),
            )

    def outcome(self, score: float, strong_won: float) -> None:
        """Count the outcome of a query.

        Args:
            score: the router's score of the query, in [0, 1].
            strong_won: 1 when the strong model's answer was better, 0 when the weak model's was, 0.5 for a tie.
        """
        self.calibration.observe(score, strong_won)

    def status(self) -> RouteStatus:
        """The status at this moment."""
        with self._lock:  # copied under the lock, computed outside it, so that requests do not wait
            recent, totals, strong = list(self._recent), self._totals.copy(), self._strong
        totals.ignored += self.drift.ignored + self.calibration.ignored
        n = len(recent)
        to_strong = sum(request.strong for request in recent)
        seconds = [request.latency_s for request in recent if request.latency_s is not None]
        bins = [request.score_bin for request in recent if request.score_bin is not None]
        return RouteStatus(
            window=n,
            strong=strong,
            strong_share=to_strong / n if n and strong is not None else None,
            strong_interval=wilson(to_strong, n) if strong is not None else (0.0, 1.0),
            fallback_share=_share(request.fallback for request in recent),
            truncated_share=_share(request.truncated for request in recent),
            scores=np.bincount(bins, minlength=len(SCORE_BOUNDS)).tolist() if bins else [0] * len(SCORE_BOUNDS),
            latency=Latency(len(seconds), *np.percentile(seconds, [50, 95, 99]).tolist()) if seconds else None,
            drift=self.drift.status(),
            calibration=self.calibration.status(),
            totals=totals,
        )

    def as_dict(self) -> dict[str, Any]:
        """The status as plain data, ready for JSON; decisions are also counted by model, by source and by cause."""
        content = asdict(self.status())
        decisions: dict[Key, int] = content["totals"].pop("decisions")
        names = ("model", "source", "cause")
        content["decisions"] = [
            {**dict(zip(names, key, strict=True)), "count": count} for key, count in decisions.items()
        ]
        for place, name in enumerate(("models", "sources", "causes")):
            content[name] = {}
            for key, count in decisions.items():
                content[name][key[place]] = content[name].get(key[place], 0) + count
        return content

    def _count(self, decision: Decision) -> None:
        counts = self._totals.decisions
        key: Key = (decision.model, decision.source, decision.cause)
        if key not in counts:
            key = clean_name(decision.model), clean_name(decision.source), clean_name(decision.cause)
        if key not in counts and len(counts) >= MAX_KEYS:
            # A place for the real names, however many others were invented.
            model, source, cause = key
            key = (
                model if model in self._models else OTHER,
                source if source in _SOURCES else OTHER,
                cause if cause in _CAUSES else OTHER,
            )
        counts[key] = counts.get(key, 0) + 1


def _reference_or_none(router: Router) -> Reference | None:
    """The reference of a router's bundle. A broken reference is logged and not used, so that a service still starts."""
    try:
        return reference_of(router)
    except InputError as error:
        logger.warning("drift is not watched: %s", error)
        return None


def _share(flags: Iterable[bool]) -> float | None:
    rows = list(flags)
    return sum(rows) / len(rows) if rows else None
