"""Recognises repeated queries, which say nothing new about traffic: retries, hedges, loops of agents, health checks."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

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
        self._order: deque[set[Hashable]] = deque()
        self._known: set[Hashable] = set()

    def add_all(self, keys: set[Hashable]) -> bool:
        """Keep some keys at once; returns False, and keeps none, when one of them was there already."""
        if not self._known.isdisjoint(keys):
            return False
        self._keep(keys)
        return True

    def add(self, key: Hashable) -> bool:
        """Keep a key; returns False when it was there already, or cannot be a key (a list, for example)."""
        try:
            if key in self._known:
                return False
        except TypeError:
            return False
        self._keep({key})
        return True

    def __contains__(self, key: Hashable) -> bool:
        return key in self._known

    def _keep(self, keys: set[Hashable]) -> None:
        self._known |= keys
        self._order.append(keys)
        while len(self._known) > self._most:
            self._known -= self._order.popleft()

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
        return int(score * GRID) * 2**32 + int(other * GRID)
    except (TypeError, ValueError, OverflowError, IndexError):  # no numbers: the monitor leaves them out
        return None


def numbers_keys(scores: Sequence[Any], novelties: Sequence[Any], vectors: Sequence[Any]) -> list[Hashable | None]:
    """The keys of some queries by what was measured of them, as `numbers_key` gives them."""
    try:
        numbers = np.array((scores, novelties), np.float64) * GRID
    except (TypeError, ValueError, OverflowError):
        numbers = np.empty(0)
    if numbers.shape == (2, len(scores)) and (np.abs(numbers) < 2**31).all():  # all are numbers: much faster
        whole = numbers.astype(np.int64)
        return [*(whole[0] * 2**32 + whole[1]).tolist()]
    return list(map(numbers_key, scores, novelties, vectors))


def query_key(query: Query) -> int | None:
    """The key of a query by its text; it does not hold the text. None when the query cannot be read."""
    if isinstance(query, str):
        return hash(query)
    try:
        return hash(tuple(turns(query)))
    except InputError:
        return None
