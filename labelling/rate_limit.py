"""Keeps the calls of one model below the rate limits of its service, and pauses when the service asks for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

#: Seconds of the limits that may be used up at once.
BURST_S = 1.0


class RateLimit:
    """Requests a minute and tokens a minute, each spread evenly, with bursts of one second.

    The limit is a virtual clock for each of the two (GCRA, the generic cell rate algorithm): a call moves the clock on
    by the time that it uses up, and waits where the clock is more than a second ahead.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with nothing used up.

        Args:
            requests_per_minute: None: no limit.
            tokens_per_minute: None: no limit.
            clock: returns the time in seconds.
        """
        self._request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._requests_until = self._tokens_until = self._paused_until = clock()

    def take(self, tokens: float) -> float:
        """Take one request of so many tokens, and return the seconds to wait before it may start."""
        now = self._clock()
        requests, read = max(self._requests_until, now), max(self._tokens_until, now)
        self._requests_until = requests + self._request_s
        self._tokens_until = read + tokens * self._token_s
        return max(requests - BURST_S - now, read - BURST_S - now, self._paused_until - now, 0.0)

    def correct(self, tokens: float) -> None:
        """Count so many more tokens for a call that is over (below 0: fewer) than were taken for it."""
        self._tokens_until += tokens * self._token_s

    def pause(self, seconds: float) -> None:
        """Start no call for so many seconds, as the service asked."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    async def wait(self, tokens: float) -> None:
        """Wait until a call of so many tokens may start."""
        seconds = self.take(tokens)
        while seconds > 0:
            await asyncio.sleep(seconds)
            seconds = self._paused_until - self._clock()  # a pause may have come meanwhile
