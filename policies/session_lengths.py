"""How many requests a session still has, from how long the sessions before it were."""

from __future__ import annotations

import numpy as np

from ..routers.checks import check_number, check_whole
from ..routers.errors import InputError
from ..routers.forks import new_lock

#: The expectation is computed anew after so many requests.
_EVERY = 64


class SessionLengths:
    """The lengths of sessions, learned from the requests. Threads may share one.

    `left` is the mean number of requests from the present one to the end, over the sessions that came as far: the
    mean residual life. Before the first sessions, lengths are geometric with the mean `expected`; that assumption
    weighs as much as `weight` sessions.

    Example:
        >>> from routelearn.policies import SessionLengths
        >>> lengths = SessionLengths(expected=5)
        >>> round(lengths.left(1), 2)
        5.0
        >>> for _ in range(2000):
        ...     lengths.reached(1)  # sessions of one request
        >>> round(lengths.left(1), 2)
        1.04
    """

    def __init__(self, expected: float = 6.0, *, weight: float = 20.0, longest: int = 500, learns: bool = True) -> None:
        """Set what is assumed before the first sessions.

        Args:
            expected: mean number of requests of a session, 1 or more.
            weight: how many sessions the assumption weighs, above 0.
            longest: requests beyond this number count as this one.
            learns: learn from the sessions; False: a session is always expected to have `expected` requests left.

        Raises:
            InputError: an argument is out of its range.
        """
        check_number("expected", expected, "a number of requests, 1 or more")
        check_number("weight", weight, "a number of sessions above 0")
        check_whole("longest", longest, 2)
        if not 1 <= expected <= longest or not 0 < weight < np.inf:
            raise InputError(
                f"expected is {expected} and weight {weight}; expected 1 to {longest} requests, and a weight above 0"
            )
        self._longest = longest
        self._fixed = None if learns else float(expected)
        self._assumed = weight * (1 - 1 / expected) ** np.arange(longest)
        # Requests beyond the last place stand there, so that `left` of the first is `expected` exactly.
        self._rest = weight * expected - float(self._assumed.sum())
        self._lock = new_lock()
        self._counts = np.zeros(longest, np.int64)  # sessions that reached their first, second, ... request
        self._since = 0
        self._left = self._means()

    def reached(self, request: int) -> None:
        """Count that a session has made so many requests."""
        if self._fixed is not None:
            return
        with self._lock:
            self._counts[self._place(request)] += 1
            self._since += 1
            if self._since >= _EVERY:
                self._since, self._left = 0, self._means()

    def left(self, request: int) -> float:
        """The expected number of requests of a session that makes this one now, this one included."""
        return float(self._left[self._place(request)]) if self._fixed is None else self._fixed

    def _place(self, request: int) -> int:
        return min(max(request, 1), self._longest) - 1

    def _means(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        came = self._counts + self._assumed
        after = np.cumsum(came[::-1])[::-1] + self._rest
        # Where next to no session came, more requests are not expected than where some did.
        return np.maximum(after / np.maximum(came, 1e-9), 1.0).clip(max=self._longest)
