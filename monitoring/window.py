"""What was observed of some requests: totals since the start, and a sliding window of the newest."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from ..routers.checks import usable

#: Upper bounds of the latency histogram, seconds; one more bucket holds what is slower.
LATENCY_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Observed(NamedTuple):
    """One request: seconds of the clock, whether it was escalated, seconds it took (None: not known)."""

    time: float
    escalated: bool
    latency_s: float | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of the latencies in the window, seconds, of `count` requests."""

    count: int
    p50: float
    p95: float
    p99: float


@dataclass(slots=True)
class Histogram:
    """Latencies since the start: requests by bucket of `LATENCY_BOUNDS` (not cumulated), and their seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    seconds: float = 0.0


@dataclass(slots=True)
class Totals:
    """Sums since the start; they never fall.

    Attributes:
        requests: requests observed.
        escalated: how many of them were escalated.
        alarms: jumps of the escalation rate that were announced.
        ignored: latencies and costs that were negative or not finite, and are in no sum.
        cost_usd: USD spent.
        degraded: requests by the reason that they were answered in a degraded way.
        latency_escalated: latencies of the escalated requests.
        latency_not_escalated: of the others.
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
        """A copy that stays as it is."""
        slow, fast = self.latency_escalated, self.latency_not_escalated
        return replace(
            self,
            degraded=dict(self.degraded),
            latency_escalated=Histogram(list(slow.counts), slow.seconds),
            latency_not_escalated=Histogram(list(fast.counts), fast.seconds),
        )


class Window:
    """Totals of all requests, and the last `size` of them no older than `seconds` (None: of any age)."""

    def __init__(self, size: int, seconds: float | None) -> None:
        """Start empty."""
        self.totals = Totals()
        self._seconds = seconds
        self._requests: deque[Observed] = deque(maxlen=size)

    def add(self, request: Observed, cost_usd: float | None, degraded: str | None) -> None:
        """Take in one request."""
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

    def newest(self, now: float) -> list[Observed]:
        """The requests that are in the window now, oldest first."""
        if self._seconds is None:
            return list(self._requests)
        return [request for request in self._requests if now - request.time <= self._seconds]


def percentiles(requests: Sequence[Observed], escalated: bool) -> Latency | None:
    """Latency of the escalated requests, or of the others; None when none is known."""
    seconds = [r.latency_s for r in requests if r.escalated == escalated and r.latency_s is not None]
    if not seconds:
        return None
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]).tolist()
    return Latency(len(seconds), p50, p95, p99)


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a rate (Wilson 1927); (0, 1) when there were no trials."""
    if trials == 0:
        return 0.0, 1.0
    rate, share = successes / trials, z * z / trials
    centre = (rate + share / 2) / (1 + share)
    half = z / (1 + share) * math.sqrt(rate * (1 - rate) / trials + share / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)
