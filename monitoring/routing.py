"""Watches routing: what was decided and by whom, how fast, and whether traffic and outcomes drift."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, get_args

import numpy as np

from ..routers.base import Assessment, Decision, Router
from ..routers.checks import OTHER, as_number, clean_name, usable
from ..routers.errors import InputError
from ..routers.fallback import FallbackCause
from ..routers.rules import RulesRouter
from .alarms import OnAlarm
from .calibration_drift import CalibrationMonitor, CalibrationStatus
from .drift import DriftMonitor, DriftStatus
from .reference import Reference, reference_of
from .window import Histogram, Latency, wilson

logger = logging.getLogger(__name__)

#: Upper bounds of the histogram of routing latency, seconds; one more bucket holds what is slower.
ROUTE_BOUNDS = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0)
#: Upper bounds of the bins of the score; a score on a bound is in the bin below it, as Prometheus counts.
SCORE_BOUNDS = tuple(place / 20 for place in range(1, 21))
#: Causes of a safe answer in the place of the router's: those of `FallbackRouter`, and of a service that closes.
FALLBACKS = frozenset((*get_args(FallbackCause), "closed"))
#: Combinations of model, source and cause that have counts of their own.
MAX_KEYS = 100

#: Model, source and cause.
Key = tuple[str, str, str]


class _Routed(NamedTuple):
    """What the window keeps of one request."""

    strong: bool
    fallback: bool
    truncated: bool
    score_bin: int | None
    latency_s: float | None


@dataclass(slots=True)
class RouteTotals:
    """Sums since the start; they never fall.

    Attributes:
        requests: decisions observed.
        decisions: by model, source and cause.
        fallbacks: where something else answered in the router's place.
        truncated: of which a part of the query was left out.
        ignored: scores, latencies, novelties, vectors and outcomes that were no usable numbers, and are in no sum.
        scores: by bin of the score (not cumulated).
        score_sum: of all scores.
        latency: of routing, by bucket of `ROUTE_BOUNDS`.
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
        """A copy that stays as it is."""
        latency = Histogram(list(self.latency.counts), self.latency.seconds)
        return replace(self, decisions=dict(self.decisions), scores=list(self.scores), latency=latency)


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """How routing stands. Shares are of the window, None when it is empty.

    Attributes:
        window: requests in the window.
        strong: name of the strong model; None: not known.
        strong_share: share that went to the strong model; None where that is not known.
        strong_interval: its 95 % interval (Wilson 1927).
        fallback_share: share that something else answered in the router's place.
        truncated_share: share of which a part was left out.
        scores: requests by bin of the score, see `SCORE_BOUNDS`.
        latency: of routing; None: not known.
        drift: against the reference.
        calibration: of the outcomes that came in.
        totals: sums since the start.
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
    """Counts decisions and says once when traffic drifts. Safe to share between threads; memory is constant.

    Attributes:
        drift: of scores, novelties and vectors against the reference of the router's bundle.
        calibration: of scores against outcomes.
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
        """Start with nothing observed.

        Args:
            router: names the strong model, and holds the reference; of a fallback router the learned one counts.
                None: some learned router; its strong model and its reference are not known.
            window: shares and percentiles are those of the last so many requests.
            on_alarm: called once an alarm, in the thread whose request set it off.
            drift: with other settings than the default ones; it has an `on_alarm` of its own.
            calibration: the same.

        Raises:
            InputError: window is below 1.
        """
        if window < 1:
            raise InputError(f"window is {window}; expected at least 1 request")
        self._lock = threading.Lock()
        self._recent: deque[_Routed] = deque(maxlen=window)
        self._totals = RouteTotals()
        self.drift = drift or DriftMonitor(None if router is None else _reference_or_none(router), on_alarm=on_alarm)
        self.calibration = calibration or CalibrationMonitor(on_alarm=on_alarm)
        self._strong: str | None = None
        self._name(router)

    def _name(self, router: Router | None) -> None:
        self._strong = None if router is None else router.strong
        self._learned = router is None or not isinstance(router, RulesRouter)

    def follow(self, router: Router) -> None:
        """Watch another router from now on: window and totals stay, drift and outcomes start anew."""
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
    ) -> None:
        """Take in one request. Nothing that is observed raises: numbers that are none are counted as ignored.

        Args:
            decision: what was decided.
            novelty: `Assessment.novelty` of the query.
            vector: (k,), `Assessment.vectors` of the query.
            latency_s: seconds that routing took.
        """
        score = as_number(decision.score)
        scored = 0 <= score <= 1
        fallback = decision.cause in FALLBACKS or (self._learned and decision.source != "learned")
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
            self._recent.append(_Routed(strong, fallback, truncated, score_bin, latency))
        # The score of a fallback is on no scale of the router's.
        self.drift.observe(score if scored and not fallback else None, novelty, vector)

    def observe_batch(
        self,
        decisions: Sequence[Decision],
        assessment: Assessment | None = None,
        latency_s: float | None = None,
    ) -> None:
        """Take in the requests of one batch.

        Args:
            decisions: n of them.
            assessment: of these n queries, for novelties and vectors.
            latency_s: seconds that the batch took: each of its requests waited so long.
        """
        novelty = None if assessment is None else assessment.novelty
        vectors = None if assessment is None else assessment.vectors
        for row, decision in enumerate(decisions):
            self.observe(
                decision,
                novelty=None if novelty is None else novelty[row],
                vector=None if vectors is None else vectors[row],
                latency_s=latency_s,
            )

    def outcome(self, score: float, strong_won: float) -> None:
        """Take in what became of a query; see `CalibrationMonitor.observe`."""
        self.calibration.observe(score, strong_won)

    def status(self) -> RouteStatus:
        """How routing stands."""
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
        """Everything as plain data, ready for JSON; the decisions also by model, by source and by cause."""
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
            key = (OTHER, OTHER, OTHER)
        counts[key] = counts.get(key, 0) + 1


def _reference_or_none(router: Router) -> Reference | None:
    """The reference of a router's bundle; a broken one is logged: a service must start all the same."""
    try:
        return reference_of(router)
    except InputError as error:
        logger.warning("drift is not watched: %s", error)
        return None


def _share(flags: Iterable[bool]) -> float | None:
    found = list(flags)
    return sum(found) / len(found) if found else None
