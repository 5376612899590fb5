"""A clock that never goes back."""

from __future__ import annotations

from collections.abc import Callable


class RisingClock:
    """Seconds since the start, which never fall: steps back of the clock are left out. It has no lock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._last, self._elapsed = clock, clock(), 0.0

    def __call__(self) -> float:
        now = self._clock()
        self._elapsed += max(0.0, now - self._last)
        self._last = now
        return self._elapsed
