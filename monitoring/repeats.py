"""Recognises repeated queries, which say nothing new about traffic: retries, hedges, loops of agents, health checks."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any

from ..routers.errors import InputError
from ..routers.query import Query, turns

#: Two queries are equal when their numbers are equal to this part of one. The same query gets slightly different
#: numbers in batches of different sizes.
GRID = 1e5


class RecentKeys:
    """The keys of the last different queries, so many at most. The owner guards it with a lock."""

    def __init__(self, most: int) -> None:
        """Start without keys; at most `most` are kept, and the oldest one goes first."""
        self._most = most
        self._order: deque[Hashable] = deque()
        self._known: set[Hashable] = set()

    def add(self, key: Hashable) -> bool:
        """Keep a key; returns False when it was there already, or cannot be a key (a list, for example)."""
        known = self._known
        try:
            if key in known:
                return False
        except TypeError:
            return False
        known.add(key)
        self._order.append(key)
        if len(self._order) > self._most:
            known.discard(self._order.popleft())
        return True

    def __contains__(self, key: Hashable) -> bool:
        return key in self._known

    def clear(self) -> None:
        """Forget all keys."""
        self._order.clear()
        self._known.clear()


def numbers_key(score: Any, novelty: Any, vector: Any) -> Hashable | None:
    """The key of a query by what was measured of it; None when this does not tell queries apart.

    A score alone is no key, because different queries have equal scores where scores are rounded or come from rules.
    """
    other = novelty
    try:
        if other is None:
            if vector is None:
                return None
            other = vector[0]
        if score is None:
            return int(other * GRID)
        return int(other * GRID), int(score * GRID)
    except (TypeError, ValueError, OverflowError, IndexError):  # no numbers: the monitor leaves them out
        return None


def query_key(query: Query) -> int | None:
    """The key of a query by its text; it does not hold the text. None when the query cannot be read."""
    if isinstance(query, str):
        return hash(query)
    try:
        return hash(tuple(turns(query)))
    except InputError:
        return None
