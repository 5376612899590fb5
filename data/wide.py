"""Tells the columns of a wide table that hold the scores of a model from those that hold something else."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from .columns import fold

#: Columns of a wide table that never hold the scores of a model, folded.
_NO_MODEL = frozenset(
    {"prompt", "messages", "queryid", "questionid", "id", "index", "task", "category", "split", "splithint"}
    | {"source", "weight", "turn", "contaminated", "promptdup", "reference", "indexlevel0", "column1"}
)
#: Words in the name of a column of numbers that are no scores.
_MEASURES = frozenset(
    {"latency", "cost", "costs", "price", "usd", "eur", "token", "tokens", "id", "ids", "uid", "difficulty", "length"}
    | {"len", "chars", "characters", "words", "count", "time", "seconds", "duration", "timestamp", "tstamp", "created"}
    | {"index", "date", "year", "rank", "temperature", "seed", "unnamed", "ms", "num", "turns"}
)
_WORD = re.compile(r"[a-z]+")


class WideColumns:
    """Which columns of a wide table are models.

    Attributes:
        models: the columns whose scores were read, in their order.
        left_out: the columns of numbers that look like something else: a latency, a cost, an id.
    """

    def __init__(self, columns: Sequence[str], named: Sequence[str] | None, ours: Mapping[str, str]) -> None:
        """Take the columns that the user named, or else tell them by their names.

        Args:
            columns: the columns of the table.
            named: the models' columns that the user named; None: none named.
            ours: the columns that are read as something else.
        """
        self._named = named
        self._ours = set(ours.values())
        self.models: list[str] = list(named or ())
        self.left_out = [name for name in columns if named is None and _measures(name) and not self._is_known(name)]
        self._text: set[str] = set()

    def may_be_model(self, column: str) -> bool:
        """Whether a column may hold the scores of a model."""
        if self._named is not None:
            return column in self._named
        return not (self._is_known(column) or _measures(column) or column in self._text)

    def is_model(self, column: str) -> bool:
        """Whether scores of this column were read before, or the user named it."""
        return column in self.models

    def add(self, column: str) -> None:
        """A score was read from this column."""
        if column not in self.models:
            self.models.append(column)

    def is_text(self, column: str) -> None:
        """This column holds text, so it is no model's."""
        self._text.add(column)

    def _is_known(self, column: str) -> bool:
        return column in self._ours or fold(column) in _NO_MODEL


def _measures(column: str) -> bool:
    words: Collection[str] = _WORD.findall(column.lower())
    return not _MEASURES.isdisjoint(words)
