"""Keeps what was observed of requests: totals since the start, and a sliding window of the newest requests."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from ..routers.checks import usable

#: Upper bounds of the buckets of the latency histogram, in seconds. One more bucket holds slower requests.
LATENCY_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Request(NamedTuple):
    """The time of a request (s), whether it was escalated, and its latency (s; None when it is not known)."""

    time: float
    escalated: bool
    latency_s: float | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of latencies.

    Attributes:
        count: number of requests whose latency is known.
        p50: median, in seconds.
        p95: 95th percentile, in seconds.
        p99: 99th percentile, in seconds.

    Example:
        >>> from routelearn.monitoring import EscalationMonitor
        >>> monitor = EscalationMonitor()
        >>> monitor.observe(model="sim-small", escalated=False, latency_s=0.5)
        >>> monitor.status().latency_not_escalated
        Latency(count=1, p50=0.5, p95=0.5, p99=0.5)
    """

    count: int
    p50: float
    p95: float
    p99: float


@dataclass(slots=True)
class Histogram:
    """A histogram of latencies since the start.

    Attributes:
        counts: number of requests in each bucket, not cumulated. The bounds are `LATENCY_BOUNDS` by default.
        seconds: sum of the latencies, in seconds.

    Example:
        >>> from routelearn.monitoring import EscalationMonitor
        >>> monitor = EscalationMonitor()
        >>> monitor.observe(model="sim-small", escalated=False, latency_s=0.2)
        >>> monitor.status().totals.latency_not_escalated
        Histogram(counts=[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], seconds=0.2)
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    seconds: float = 0.0


@dataclass(slots=True)
class Totals:
    """Sums since the start; they never fall.

    Attributes:
        requests: number of requests observed.
        escalated: number of escalated requests.
        alarms: number of alarms: jumps of the escalation rate.
        ignored: number of latencies and costs that were negative or not finite. They are in no sum.
        cost_usd: cost of the requests, in USD.
        degraded: number of degraded answers, by reason.
        latency_escalated: latencies of the escalated requests.
        latency_not_escalated: latencies of the other requests.

    Example:
        >>> from routelearn.monitoring import EscalationMonitor
        >>> monitor = EscalationMonitor()
        >>> monitor.observe(model="sim-small", escalated=True, cost_usd=0.25, degraded="timeout")
        >>> totals = monitor.status().totals
        >>> totals.requests, totals.cost_usd, totals.degraded
        (1, 0.25, {'timeout': 1})
    """

    requests: int = 0
    escalated: int = 0
    alarms: int = 0
    ignored: int = 0
    cost_usd: float = 0.0
    degraded: dict[str, int] = field(default_factory=dict)
    latency_escalated: Histogram = field(default_factory=Histogram)
    latency_not_escalated: Histogram = field(default_factory=Histogram)

    def copy(self) -> Totals:
        """A copy that later requests do not change."""
        slow, fast = self.latency_escalated, self.latency_not_escalated
        return replace(
            self,
            degraded=dict(self.degraded),
            latency_escalated=Histogram(list(slow.counts), slow.seconds),
            latency_not_escalated=Histogram(list(fast.counts), fast.seconds),
        )


class Window:
    """The totals of all requests, and the last `size` requests that are at most `seconds` old (None: of any age)."""

    def __init__(self, size: int, seconds: float | None) -> None:
        self.totals = Totals()
        self._seconds = seconds
        self._requests: deque[Request] = deque(maxlen=size)

    def add(self, request: Request, cost_usd: float | None, degraded: str | None) -> None:
        """Count one request."""
        totals = self.totals
        totals.requests += 1
        totals.escalated += request.escalated
        if request.latency_s is not None:
            if usable(request.latency_s):
                histogram = totals.latency_escalated if request.escalated else totals.latency_not_escalated
                histogram.counts[bisect_left(LATENCY_BOUNDS, request.latency_s)] += 1
                histogram.seconds += request.latency_s
            else:
                totals.ignored += 1
                request = request._replace(latency_s=None)
        if cost_usd is not None:
            if usable(cost_usd):
                totals.cost_usd += cost_usd
            else:
                totals.ignored += 1
        if degraded:
            totals.degraded[degraded] = totals.degraded.get(degraded, 0) + 1
        self._requests.append(request)

    def newest(self, now: float) -> list[Request]:
        """The requests in the window at time `now`, oldest first."""
        if self._seconds is None:
            return list(self._requests)
        return [request for request in self._requests if now - request.time <= self._seconds]


def percentiles(requests: Sequence[Request], escalated: bool) -> Latency | None:
    """Percentiles of the escalated requests, or of the other ones; None when no latency is known."""
    seconds = [r.latency_s for r in requests if r.escalated == escalated and r.latency_s is not None]
    if not seconds:
        return None
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]).tolist()
    return Latency(len(seconds), p50, p95, p99)
