"""The deadline of one request: how much time is left, and work that may not run longer than that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from .accounts import stop
from .tiers import Tier

T = TypeVar("T")


class Deadline:
    """The time that one request may take. The clock runs from `start` on."""

    def __init__(self, seconds: float | None) -> None:
        """Set the time.

        Args:
            seconds: longest time that the request may take. None: no limit.
        """
        self._seconds = seconds
        self._started = 0.0

    def start(self) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, below 0 when it has passed; None: there is no deadline."""
        return None if self._seconds is None else self._started + self._seconds - time.monotonic()

    def passed(self) -> bool:
        """Whether the deadline has passed."""
        remaining = self.remaining_s()
        return remaining is not None and remaining <= 0

    def too_late_for(self, tier: Tier) -> bool:
        """Whether a call of this tier is not expected to end before the deadline."""
        remaining = self.remaining_s()
        return remaining is not None and remaining <= max(0.0, tier.expected_s or 0.0)

    async def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work that is not a call of a model, and cancel it at the deadline.

        Raises:
            TimeoutError: the work was not done before the deadline.
            Exception: whatever the work raised.
        """
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task}, timeout=self.remaining_s())
            if not task.done():
                raise TimeoutError("not done before the deadline")
            if task.cancelled():  # the work cancelled itself: a cancellation of the request raises at the `await`
                raise RuntimeError("it cancelled itself")
            return task.result()
        finally:
            stop(task)
