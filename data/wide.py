"""Reads the rows of a wide table, and tells its columns of scores from those that hold something else."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from ..routers.errors import DataError, InputError
from .columns import fold
from .labels import is_number, score_of
from .rows import Row

#: Columns of a wide table that never hold the scores of a model, folded.
_NO_MODEL = frozenset(
    {"prompt", "messages", "queryid", "questionid", "id", "index", "task", "category", "split", "splithint"}
    | {"source", "weight", "turn", "contaminated", "promptdup", "reference", "indexlevel0", "column1"}
)
#: Words in the name of a column of numbers that are not scores.
_MEASURES = frozenset(
    {"latency", "cost", "costs", "price", "usd", "eur", "token", "tokens", "id", "ids", "uid", "difficulty", "length"}
    | {"len", "chars", "characters", "words", "count", "time", "seconds", "duration", "timestamp", "tstamp", "created"}
    | {"index", "date", "year", "rank", "temperature", "seed", "unnamed", "ms", "num", "turns"}
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
#: What people write where a model has no score.
_NO_SCORE = frozenset({"", "-", "--", "?", "na", "n/a", "#n/a", "nan", "null", "none", "missing"})


@dataclass
class _TextColumn:
    """A column whose first filled cell is text: the number of its row, and how many cells are text and scores."""

    row: int
    texts: int = 0
    scores: int = 0


class WideColumns:
    """Which columns of a wide table are models.

    Attributes:
        models: the columns whose scores were read, in their order.
        measures: the columns of numbers that look like something else: a latency, a cost, an id.
    """

    def __init__(
        self, columns: Sequence[str], named: Sequence[str] | None, ours: Mapping[str, str], scale: float = 1.0
    ) -> None:
        """Take the columns that the user named, or else tell them by their names.

        Args:
            columns: the columns of the table.
            named: the models' columns that the user named; None: none named.
            ours: the columns that are read as something else.
            scale: the highest score that there can be.
        """
        self._named = named
        self._ours = set(ours.values())
        self._scale = scale
        self.models: list[str] = list(named or ())
        self.measures = [name for name in columns if named is None and _measures(name) and not self._is_known(name)]
        self._texts: dict[str, _TextColumn] = {}

    @property
    def texts(self) -> list[str]:
        """The columns that were left out because they hold text."""
        return list(self._texts)

    def may_be_model(self, column: str) -> bool:
        """Whether a column may hold the scores of a model, by its name."""
        if self._named is not None:
            return column in self._named
        return not (self._is_known(column) or _measures(column))

    def scores(self, number: int, row: Row, fail: Callable[..., DataError]) -> list[tuple[str, float]]:
        """The model and the score, from 0 to 1, of each column of a row that holds one.

        Args:
            number: number of the row.
            row: the values by column.
            fail: makes an error of a column, what is wrong, and what was expected.

        Raises:
            DataError: a cell is out of range, a cell of a model is text, or the row has no score.
        """
        found: list[tuple[str, float]] = []
        for column, value in row.items():
            if not self.may_be_model(column) or _is_empty(value):  # empty: not measured on this query
                continue
            try:
                score = score_of(value, self._scale)
            except InputError as error:
                if column in self.models:
                    raise fail(column, error, "a score from 0 to 1, or an empty cell") from error
                if is_number(value):
                    raise fail(column, error, "a score from 0 to 1; name the models with --models") from error
                self._texts.setdefault(column, _TextColumn(number)).texts += 1
                continue
            if column in self._texts:
                self._texts[column].scores += 1
                continue
            if column not in self.models:
                self.models.append(column)
            found.append((column, score))
        if not found:
            expected = (
                "a score from 0 to 1 in a column for each model; or model_a, model_b and winner; or model and score"
            )
            raise fail("prompt", "no score in the row", expected)
        return found

    def check_texts(self, name: str) -> None:
        """Refuse a table with a column that was taken for text, and holds more scores than texts.

        Raises:
            DataError: there is one.
        """
        for column, cells in self._texts.items():
            if cells.scores > cells.texts:
                problem = f"text, in a column with {cells.scores} scores"
                expected = "a score from 0 to 1, or an empty cell; or the models alone with --models"
                raise DataError(name, cells.row, column, problem, expected)

    def _is_known(self, column: str) -> bool:
        return column in self._ours or fold(column) in _NO_MODEL


def _measures(column: str) -> bool:
    words: Collection[str] = [word.lower() for word in _WORD.findall(column)]
    return not _MEASURES.isdisjoint(words)


def _is_empty(value: object) -> bool:
    """Whether a cell says that a model has no score: None, NaN, or a word for it."""
    if isinstance(value, str):
        return value.strip().lower() in _NO_SCORE
    return value is None or value != value  # noqa: PLR0124 - NaN
