"""A budget that many requests share: money is set aside before a call, and settled with its true cost after it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from ..routers.errors import InputError


class Budget:
    """A cap on what calls cost together, for ever or within a rolling window. Safe to share between threads.

    What is set aside counts as spent, so calls that run at the same time cannot
    all take the last dollar. A call that costs more than was expected of it is
    paid all the same: the cap can be overrun by that difference, no further.
    """

    def __init__(
        self, max_usd: float, window_s: float | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start with nothing spent.

        Args:
            max_usd: the cap in USD, 0 or more.
            window_s: only what was settled within the last so many seconds counts; None: all of it.
            clock: seconds, rising.

        Raises:
            InputError: a number is out of range.
        """
        if not (math.isfinite(max_usd) and max_usd >= 0):
            raise InputError(f"max_usd is {max_usd}; expected 0 or more")
        if window_s is not None and not window_s > 0:
            raise InputError(f"window_s is {window_s}; expected seconds above 0, or None")
        self.max_usd = float(max_usd)
        self.window_s = window_s
        self._clock = clock
        self._lock = threading.Lock()
        self._reserved: dict[int, float] = {}
        self._next = 0
        self._spent = 0.0
        self._settled: deque[tuple[float, float]] = deque()  # (when, USD); only with a window

    def reserve(self, usd: float) -> int | None:
        """Set money aside for a call.

        Returns:
            A ticket for `settle`, or None when it does not fit into the budget.
        """
        with self._lock:
            self._expire()
            if self._spent + math.fsum(self._reserved.values()) + usd > self.max_usd:
                return None
            self._next += 1
            self._reserved[self._next] = usd
            return self._next

    def settle(self, ticket: int, usd: float) -> None:
        """Put the true cost in the place of what was set aside; a ticket is settled once.

        Raises:
            InputError: the ticket is unknown, or settled already.
        """
        with self._lock:
            if self._reserved.pop(ticket, None) is None:
                raise InputError(f"ticket {ticket} is not open; expected one that reserve gave, settled once")
            self._spent += usd
            if self.window_s is not None and usd:
                self._settled.append((self._clock(), usd))

    @property
    def spent_usd(self) -> float:
        """What was settled, within the window where there is one."""
        with self._lock:
            self._expire()
            return self._spent

    @property
    def reserved_usd(self) -> float:
        """What is set aside for calls that still run."""
        with self._lock:
            return math.fsum(self._reserved.values())

    def _expire(self) -> None:
        if self.window_s is None:
            return
        oldest = self._clock() - self.window_s
        expired = False
        while self._settled and self._settled[0][0] <= oldest:
            self._settled.popleft()
            expired = True
        if expired:  # summed anew, so that no rounding error piles up
            self._spent = math.fsum(usd for _, usd in self._settled)
