"""Scores one chunk of a table. Scoring of a file, of a folder and on a cluster all use this engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...routers.base import Router
from ...routers.decision import Flags, Floats, Source
from ...routers.errors import DataError, InputError
from ...routers.query import Query
from ..queries import query_columns, read_query
from ..rows import Row

#: Rows of a chunk: enough for batches of queries of similar length, and a few megabytes.
ROWS_PER_CHUNK = 8_192
#: Names of the columns that scoring adds to a table.
ADDED = ("score", "model", "source")
#: Number of bad rows whose errors are kept. Further bad rows are only counted.
MAX_ERRORS = 20


class LateColumnError(Exception):
    """A row has a column that the rows before did not have, and their output names its columns."""


@dataclass
class ScoringResult:
    """Counts of a scoring job, over this run and over the parts that earlier runs wrote.

    Attributes:
        rows: number of rows scored.
        to_strong: number of these rows that go to the strong model.
        sources: number of rows by source of the decision ("learned", "rules" or "default").
        skipped: number of rows that were left out because they are bad.
        parts: number of parts written; 0 when the output is one file.
        reused: number of these parts that earlier runs wrote.
        errors: errors of the first bad rows of this run, at most 20.
        causes: number of bad rows by cause: the column, and what was expected in it.

    Example:
        >>> import routelearn
        >>> from routelearn.data import score_file
        >>> result = score_file(routelearn.load("router/"), "queries.txt", "scored-example.csv")
        >>> result.skipped, result.parts, result.rows == sum(result.sources.values())
        (0, 0, True)
    """

    rows: int = 0
    to_strong: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    parts: int = 0
    reused: int = 0
    errors: list[DataError] = field(default_factory=list)
    causes: dict[str, int] = field(default_factory=dict)

    def skip(self, error: DataError) -> None:
        """Count a bad row."""
        self.skipped += 1
        self.causes[error.cause] = self.causes.get(error.cause, 0) + 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)

    def add(self, other: ScoringResult) -> None:
        """Add the counts of another result."""
        self.rows += other.rows
        self.to_strong += other.to_strong
        self.skipped += other.skipped
        self.parts += other.parts
        self.reused += other.reused
        for name, count in other.sources.items():
            self.sources[name] = self.sources.get(name, 0) + count
        for cause, count in other.causes.items():
            self.causes[cause] = self.causes.get(cause, 0) + count
        self.errors += other.errors[: MAX_ERRORS - len(self.errors)]


@dataclass(frozen=True, slots=True)
class ChunkScores:
    """The scores and decisions of the n rows of a chunk, in their order.

    Attributes:
        scores: float32 (n,), score of each row.
        to_strong: bool (n,), whether the row goes to the strong model.
        sources: source of each decision.
    """

    scores: Floats
    to_strong: Flags
    sources: list[Source]

    def result(self) -> ScoringResult:
        """The counts of this chunk."""
        return ScoringResult(
            rows=len(self.sources),
            to_strong=int(np.count_nonzero(self.to_strong)),
            sources=dict(Counter(self.sources)),
        )


def score_chunk(router: Router, queries: Sequence[Query], threshold: float) -> ChunkScores:
    """Score the queries of a chunk and decide each at a threshold."""
    assessment = router.assess(queries)
    scores, to_strong, _ = router.goes_to_strong(assessment, threshold)
    return ChunkScores(scores=scores, to_strong=to_strong, sources=assessment.sources)


def check_table(name: str, columns: Sequence[str], names: Mapping[str, str], added: Iterable[str]) -> dict[str, str]:
    """Find the columns of queries. Refuse a table without one, or with a column that scoring would add.

    Args:
        name: name of the table, for messages.
        columns: the columns of the table; empty when they are not known.
        names: the table's name of our columns ``prompt`` and ``messages``.
        added: the columns that scoring adds.

    Returns:
        The table's name of each of our columns of queries that it has.

    Raises:
        DataError: there is no column of queries.
        InputError: a column is there already.
    """
    found = query_columns(name, columns, names)
    taken = [column for column in added if column in columns]
    if taken:
        raise InputError(f"{name} has columns {taken} already; choose other names with --prefix routed_")
    return found


def usable_rows(
    name: str,
    rows: Iterable[tuple[int, Row | DataError]],
    found: Mapping[str, str],
    on_bad: Callable[[DataError], object] | None,
) -> tuple[dict[int, Row], list[Query]]:
    """The rows of a chunk that hold a query.

    Args:
        name: name of the table, for messages.
        rows: row number and row, or the error in its place.
        found: the columns of queries, from `check_table`.
        on_bad: called with the error of each bad row; None: the first bad row raises.

    Returns:
        The usable rows by their place in the chunk, from 0, and their queries.

    Raises:
        DataError: a row is bad, and `on_bad` is None.
    """
    usable: dict[int, Row] = {}
    queries: list[Query] = []
    for place, (number, row) in enumerate(rows):
        try:
            if isinstance(row, DataError):
                raise row
            queries.append(read_query(name, number, row, found).query)
        except DataError as error:
            if on_bad is None:
                raise
            on_bad(error)
        else:
            usable[place] = row
    return usable, queries
