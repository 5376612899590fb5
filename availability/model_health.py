"""The health of one model: its newest outcomes, the state of its circuit breaker, and its counters."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from .breaker import Breaker, BreakerLimits, BreakerState

#: Why a candidate was skipped: the event that opened its breaker ("probe": a probe failed; "held": `hold` did it), or
#: "probing": all the probes that may run at a time are running.
SkipKind = Literal["failures", "error-rate", "latency", "probe", "held", "probing"]
SKIP_KINDS: tuple[SkipKind, ...] = get_args(SkipKind)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The status of one model at one moment.

    Attributes:
        model: name of the model; "other" stands for all models beyond `max_models`, which have no breaker.
        state: "closed" (requests go to the model), "open" (they do not) or "half-open" (only probes do).
        count: number of outcomes in the window.
        error_rate: failures divided by outcomes in the window; None when the window is empty.
        p50_s: median latency of the successes in the window, seconds; None when no latency is known.
        p95_s: 95th percentile of the same latencies, seconds; None when no latency is known.
        requests: outcomes recorded since the start, the ignored ones included.
        failures: failures recorded since the start.
        ignored: outcomes since the start that say nothing about the model: cancelled calls, and errors that are the
            fault of the request.
        opened: how often the breaker opened.
        closed: how often the breaker closed again.
        skipped: how often `choose` skipped the model, by kind of reason.
        last_error: type and HTTP status of the newest failure that was recorded with an error, or None.
        why: the reason for the last change of state; "" when the state never changed.

    Example:
        >>> from routelearn.availability import Availability
        >>> availability = Availability(["sim-max"])
        >>> availability.record("sim-max", ok=True, latency_s=0.5)
        >>> status = availability.status("sim-max")
        >>> status.state, status.requests, status.error_rate, status.p95_s
        ('closed', 1, 0.0, 0.5)
    """

    model: str
    state: BreakerState
    count: int
    error_rate: float | None
    p50_s: float | None
    p95_s: float | None
    requests: int
    failures: int
    ignored: int
    opened: int
    closed: int
    skipped: dict[SkipKind, int]
    last_error: str | None
    why: str

    def as_dict(self) -> dict[str, Any]:
        """The status as plain data, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a breaker's state.

    Attributes:
        model: name of the model.
        old: the state before.
        new: the state after.
        why: the reason.
    """

    model: str
    old: BreakerState
    new: BreakerState
    why: str


class CallOutcomes:
    """The window of one model's newest outcomes. It gives the error rate and percentiles of the latency.

    Attributes:
        failures: number of failures in the window.
    """

    def __init__(self, size: int, seconds: float | None) -> None:
        """Start with an empty window.

        Args:
            size: the window holds at most this many outcomes.
            seconds: outcomes older than this are dropped. None: outcomes are kept at any age.
        """
        self._size, self._seconds = size, seconds
        self._outcomes: deque[tuple[float, bool, float | None]] = deque()  # (when, ok, latency in seconds)
        self._latencies: list[float] = []  # latencies of the successes, sorted
        self.failures = 0

    @property
    def count(self) -> int:
        """Number of outcomes in the window."""
        return len(self._outcomes)

    def add(self, now: float, ok: bool, latency_s: float | None) -> None:
        """Add one outcome. The latency of a failure is left out, because a fast refusal is not a fast model."""
        latency_s = latency_s if ok else None
        self._outcomes.append((now, ok, latency_s))
        self.failures += not ok
        if latency_s is not None:
            insort(self._latencies, latency_s)
        if len(self._outcomes) > self._size:
            self._drop()
        self.expire(now)

    def expire(self, now: float) -> None:
        """Drop the outcomes that are too old."""
        while self._seconds is not None and self._outcomes and now - self._outcomes[0][0] > self._seconds:
            self._drop()

    def clear(self) -> None:
        """Drop all outcomes."""
        self._outcomes.clear()
        self._latencies.clear()
        self.failures = 0

    @property
    def error_rate(self) -> float | None:
        """Failures divided by outcomes, or None when the window is empty."""
        return self.failures / self.count if self._outcomes else None

    @property
    def latencies(self) -> int:
        """Number of latencies in the window."""
        return len(self._latencies)

    def percentile(self, share: float) -> float | None:
        """The latency in seconds that this share of the successes did not exceed (nearest rank); None if unknown."""
        if not self._latencies:
            return None
        return self._latencies[max(0, math.ceil(share * len(self._latencies)) - 1)]

    def _drop(self) -> None:
        _, ok, latency_s = self._outcomes.popleft()
        self.failures -= not ok
        if latency_s is not None:
            del self._latencies[bisect_left(self._latencies, latency_s)]


class ModelHealth:
    """The outcomes, the breaker and the counters of one model.

    It has neither lock nor clock: `Availability` locks, and passes the time.
    """

    def __init__(self, name: str, limits: BreakerLimits, *, guarded: bool = True) -> None:
        """Start with a model that is well.

        Args:
            name: name of the model.
            limits: limits of its breaker.
            guarded: give the model a breaker. False: outcomes are counted, and the model is always available.

        Raises:
            MissingExtraError: pybreaker is not installed.
        """
        self.name, self._limits = name, limits
        self._outcomes = CallOutcomes(limits.window, limits.window_s)
        self._breaker = Breaker(name, limits) if guarded else None
        self._kind: SkipKind = "failures"
        self._why = ""
        self._last_error: str | None = None
        self._requests = self._failures = self._ignored = self._opened = self._closed = 0
        self._skipped: dict[SkipKind, int] = dict.fromkeys(SKIP_KINDS, 0)

    @property
    def state(self) -> BreakerState:
        """The state of the breaker; a model without a breaker counts as closed."""
        return "closed" if self._breaker is None else self._breaker.state

    def wait_s(self, now: float) -> float:
        """Seconds until a request may go to the model; 0 when one may go now, possibly as a probe."""
        return 0.0 if self._breaker is None else self._breaker.wait_s(now)

    def claim(self, now: float, changes: list[Change]) -> int | None:
        """Claim the lease of a probe if one may go; a change of state is appended to `changes`."""
        if self._breaker is None:
            return None
        before = self.state
        lease = self._breaker.claim(now)
        self._changed(before, self._kind, f"{self._limits.reset_timeout_s:.3g} s have passed", changes)
        return lease

    def skip(self, wait_s: float) -> str:
        """Count that the model was skipped, and return the reason."""
        kind: SkipKind = self._kind if self.state == "open" else "probing"
        self._skipped[kind] += 1
        if kind == "probing":
            return f"{self.name} is being probed"
        error = f", last error {self._last_error}" if self._last_error else ""
        return f"{self.name} is out for another {wait_s:.3g} s ({self._why}{error})"

    def ignore(self, lease: int | None, by_name: bool, interrupted: bool, now: float, changes: list[Change]) -> None:
        """Count a call that says nothing about the model.

        Args:
            lease: as in `record`.
            by_name: as in `record`.
            interrupted: the process was interrupted; else, too many such probes open the breaker again.
            now: as in `record`.
            changes: as in `record`.
        """
        self._requests += 1
        self._ignored += 1
        if self._breaker is None:
            return
        lease = self._breaker.oldest_probe if by_name else lease
        if lease is not None:
            before = self.state
            self._breaker.release(lease, now, counts=not interrupted)
            why = f"{self._limits.failures} probes ended without saying whether the model is well"
            self._changed(before, "probe", why, changes)

    def record(
        self,
        ok: bool,
        latency_s: float | None,
        error: str | None,
        lease: int | None,
        by_name: bool,
        now: float,
        changes: list[Change],
    ) -> None:
        """Record a success or a failure.

        Args:
            ok: True for a success.
            latency_s: duration of the call in seconds, or None.
            error: description of the error, or None.
            lease: the lease, when the call was a probe; else None.
            by_name: the caller gave only the model's name. The outcome then belongs to the oldest running probe; when
                none is running but one is due, the call counts as that probe.
            now: the time in seconds.
            changes: changes of state are appended here, in their order.
        """
        self._requests += 1
        self._failures += not ok
        if error is not None:
            self._last_error = error
        self._outcomes.add(now, ok, latency_s)
        if self._breaker is None:
            return
        if self._breaker.state == "closed":
            self._judge(self._breaker, ok, now, changes)
            return
        if by_name:
            lease = self._breaker.oldest_probe or self.claim(now, changes)
        if lease is not None:  # without a lease the call began before the breaker opened, or was the last resort
            self._settle(self._breaker, lease, ok, latency_s, now, changes)

    def hold(self, seconds: float, why: str, now: float, changes: list[Change]) -> None:
        """Open the breaker for so many seconds, for a reason outside; a change of state is appended to `changes`."""
        if self._breaker is not None:
            before = self.state
            self._breaker.hold(seconds, now)
            self._changed(before, "held", why, changes)

    def release(self, why: str, now: float, changes: list[Change]) -> None:
        """Close the breaker, for a reason outside; a change of state is appended to `changes`."""
        if self._breaker is not None and self.state != "closed":
            before = self.state
            self._breaker.close(now)
            self._outcomes.clear()
            self._changed(before, "held", why, changes)

    def _judge(self, breaker: Breaker, ok: bool, now: float, changes: list[Change]) -> None:
        """Open the breaker when the failures in a row or the window reach a limit."""
        outcomes, limits = self._outcomes, self._limits
        rate, p95 = outcomes.error_rate, outcomes.percentile(0.95)
        breaker.record(ok, now)
        if breaker.state == "open":
            self._changed("closed", "failures", f"{breaker.failures_in_a_row} failures in a row", changes)
        elif rate is not None and rate >= limits.error_rate and outcomes.count >= limits.min_requests:
            breaker.open(now)
            self._changed("closed", "error-rate", f"error rate {rate:.0%} of {outcomes.count} requests", changes)
        elif self._is_slow(p95) and outcomes.latencies >= limits.min_requests:
            breaker.open(now)
            self._changed("closed", "latency", f"P95 latency {p95:.3g} s, above {limits.max_p95_s:.3g} s", changes)

    def _settle(
        self, breaker: Breaker, lease: int, ok: bool, latency_s: float | None, now: float, changes: list[Change]
    ) -> None:
        """Let the outcome of a probe close the breaker or open it again."""
        before = breaker.state
        slow = ok and self._is_slow(latency_s)
        breaker.settle(lease, ok and not slow, now)
        if breaker.state == "closed":
            self._outcomes.clear()  # the outcomes that opened the breaker must not open it again
        why = f"a probe took {latency_s:.3g} s" if slow else "a probe succeeded" if ok else "a probe failed"
        self._changed(before, "probe", why, changes)

    def _is_slow(self, latency_s: float | None) -> bool:
        return self._limits.max_p95_s is not None and latency_s is not None and latency_s > self._limits.max_p95_s

    def _changed(self, before: BreakerState, kind: SkipKind, why: str, changes: list[Change]) -> None:
        """Note a change of state, if the state differs from the one before."""
        if self.state == before:
            return
        self._kind, self._why = kind, why
        self._opened += self.state == "open"
        self._closed += self.state == "closed"
        changes.append(Change(self.name, before, self.state, why))

    def status(self, now: float) -> ModelStatus:
        """The status of the model at this time."""
        self._outcomes.expire(now)
        return ModelStatus(
            model=self.name,
            state=self.state,
            count=self._outcomes.count,
            error_rate=self._outcomes.error_rate,
            p50_s=self._outcomes.percentile(0.5),
            p95_s=self._outcomes.percentile(0.95),
            requests=self._requests,
            failures=self._failures,
            ignored=self._ignored,
            opened=self._opened,
            closed=self._closed,
            skipped=dict(self._skipped),
            last_error=self._last_error,
            why=self._why,
        )
