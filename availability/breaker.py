"""A circuit breaker (Nygard, Release It!, 2007) that is told outcomes, with a bounded number of probes.

The states and their changes are pybreaker's. Added here: outcomes are told
after the call, so that no lock is held while a model answers; time is the
caller's clock; half-open lets a bounded number of probes through, each with a
lease, where pybreaker lets everything through.
"""

from __future__ import annotations

import contextlib
from typing import Literal, cast

from ..routers.errors import require

BreakerState = Literal["closed", "open", "half-open"]


class _FailedError(Exception):
    """Stands for a call that failed, when pybreaker is told of it."""


def _fail() -> None:
    raise _FailedError


def _succeed() -> None:
    pass


class Breaker:
    """The breaker of one model. Not locked: its owner locks.

    Attributes:
        opened_at: seconds of the clock when it opened last.
    """

    def __init__(self, name: str, failures: int, reset_timeout_s: float, probes: int, probe_lease_s: float) -> None:
        """A closed breaker.

        Args:
            name: of the model.
            failures: so many in a row open it.
            reset_timeout_s: seconds from opening to the first probe.
            probes: how many may be under way at a time.
            probe_lease_s: after so many seconds without an outcome another probe may take the place of one.

        Raises:
            MissingExtraError: pybreaker is not installed.
        """
        self._breaker = require("pybreaker", "availability").CircuitBreaker(
            fail_max=failures, reset_timeout=reset_timeout_s, name=name, throw_new_error_on_trip=False
        )
        self._reset_timeout_s, self._probes, self._probe_lease_s = reset_timeout_s, probes, probe_lease_s
        self._leases: dict[int, float] = {}  # probe under way: when its lease ends; in the order they were let through
        self._next = 0
        self.opened_at = 0.0

    @property
    def state(self) -> BreakerState:
        """The state: closed, open or half-open."""
        return cast(BreakerState, self._breaker.current_state)

    @property
    def failures_in_a_row(self) -> int:
        """Failures since the last success."""
        return int(self._breaker.fail_counter)

    @property
    def oldest_probe(self) -> int | None:
        """The lease of the probe that is under way for longest, or None."""
        return next(iter(self._leases), None)

    def wait_s(self, now: float) -> float:
        """Seconds until a request may go to the model: 0 when closed, or when a probe may go now."""
        if self.state == "open":
            return max(0.0, self.opened_at + self._reset_timeout_s - now)
        if self.state == "half-open" and len(self._leases) >= self._probes:
            return max(0.0, next(iter(self._leases.values())) - now)
        return 0.0

    def claim(self, now: float) -> int | None:
        """Let a probe through if one may go; an open breaker is half-open then.

        Returns:
            Its lease, for `settle` or `release`; None: closed, or no probe may go.
        """
        if self.state == "closed" or self.wait_s(now) > 0:
            return None
        if self.state == "open":
            self._breaker.half_open()
        if len(self._leases) >= self._probes:  # the outcome of the oldest was never told
            del self._leases[next(iter(self._leases))]
        self._next += 1
        self._leases[self._next] = now + self._probe_lease_s
        return self._next

    def settle(self, lease: int, ok: bool, now: float) -> None:
        """Tell the outcome of a probe: success closes, failure opens; a lease that is over changes nothing."""
        if self._leases.pop(lease, None) is not None:
            self._tell(ok, now)

    def release(self, lease: int) -> None:
        """A probe ended without an outcome: the next one may go."""
        self._leases.pop(lease, None)

    def record(self, ok: bool, now: float) -> None:
        """Tell the outcome of a call while closed."""
        self._tell(ok, now)

    def open(self, now: float) -> None:
        """Open it for a reason of its owner's."""
        self._breaker.open()
        self._changed(now)

    def _tell(self, ok: bool, now: float) -> None:
        before = self.state
        with contextlib.suppress(_FailedError):
            self._breaker.call(_succeed if ok else _fail)
        if self.state != before:
            self._changed(now)

    def _changed(self, now: float) -> None:
        self._leases.clear()  # outcomes of these probes come too late now
        if self.state == "open":
            self.opened_at = now
