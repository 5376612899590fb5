"""The newest outcomes of one model's calls: error rate and latency percentiles, in constant time a call."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque


class CallOutcomes:
    """The last `size` outcomes no older than `seconds` (None: of any age).

    Attributes:
        count: outcomes in the window.
        failures: how many of them are failures.
    """

    def __init__(self, size: int, seconds: float | None) -> None:
        """Start empty."""
        self._size, self._seconds = size, seconds
        self._outcomes: deque[tuple[float, bool, float | None]] = deque()  # (when, ok, latency in seconds)
        self._latencies: list[float] = []  # of what succeeded, sorted
        self.failures = 0

    @property
    def count(self) -> int:
        """See the class."""
        return len(self._outcomes)

    def add(self, now: float, ok: bool, latency_s: float | None) -> None:
        """Take in one outcome; the latency of a failure is left out, since a fast refusal is not a fast model."""
        latency_s = latency_s if ok else None
        self._outcomes.append((now, ok, latency_s))
        self.failures += not ok
        if latency_s is not None:
            insort(self._latencies, latency_s)
        if len(self._outcomes) > self._size:
            self._drop()
        self.expire(now)

    def expire(self, now: float) -> None:
        """Forget what is too old."""
        while self._seconds is not None and self._outcomes and now - self._outcomes[0][0] > self._seconds:
            self._drop()

    def clear(self) -> None:
        """Forget everything."""
        self._outcomes.clear()
        self._latencies.clear()
        self.failures = 0

    @property
    def error_rate(self) -> float | None:
        """Failures / outcomes; None when there are none."""
        return self.failures / self.count if self._outcomes else None

    @property
    def latencies(self) -> int:
        """How many latencies a percentile is of."""
        return len(self._latencies)

    def percentile(self, share: float) -> float | None:
        """The latency in seconds that a share of the successes stayed within (nearest rank); None: none is known."""
        if not self._latencies:
            return None
        return self._latencies[max(0, math.ceil(share * len(self._latencies)) - 1)]

    def _drop(self) -> None:
        _, ok, latency_s = self._outcomes.popleft()
        self.failures -= not ok
        if latency_s is not None:
            del self._latencies[bisect_left(self._latencies, latency_s)]
