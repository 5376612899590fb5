"""Prepares the rows of a batch job: selects rows, reads their queries, and keeps the wanted columns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...routers.errors import DataError, InputError, require
from ...routers.query import Query
from ..arrow_rows import rows_of
from ..rows import SourceOptions
from .engine import ADDED, check_table, usable_rows
from .parts import ROWS_PER_PART

_COMPARISON = re.compile(r"\s*(.+?)\s*(==|!=|<=|>=|<|>| in | not in )\s*(.+?)\s*")


@dataclass(frozen=True)
class BatchOptions:
    """Settings of a batch job.

    Attributes:
        threshold: a score at or above it goes to strong.
        columns: the table's name of our columns ``prompt`` and ``messages``.
        keep: names of the columns to write beside the three added ones; None: all columns.
        where: comparisons such as "language == en". Rows for which one of them does not hold are left out.
        prefix: text before the names of the three added columns.
        skip_bad: leave rows without a query out, and count them.
        rows_per_part: approximate number of rows of a part. A part of a parquet file is whole row groups.
        encoding: encoding of text files; None: by their byte order mark, otherwise UTF-8.
        format: format of the files; None: by their suffix.

    Example:
        >>> from routelearn.data import BatchOptions
        >>> options = BatchOptions(threshold=0.5, keep=("id",), where=("language == en",), prefix="routed_")
        >>> options.added
        ['routed_score', 'routed_model', 'routed_source']
        >>> options.needed
        ['id', 'language', 'prompt', 'messages']
    """

    threshold: float
    columns: dict[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] | None = None
    where: tuple[str, ...] = ()
    prefix: str = ""
    skip_bad: bool = False
    rows_per_part: int = ROWS_PER_PART
    encoding: str | None = None
    format: str | None = None

    @property
    def source(self) -> SourceOptions:
        """What the sources do not say of themselves."""
        return SourceOptions(self.encoding, self.format)

    @property
    def added(self) -> list[str]:
        """The names of the three added columns."""
        return [self.prefix + name for name in ADDED]

    @property
    def needed(self) -> list[str] | None:
        """The names of the columns to read; None: all columns."""
        if self.keep is None:
            return None
        compared = [comparison(text)[0] for text in self.where]
        queries = [self.columns.get(name, name) for name in ("prompt", "messages")]
        return list(dict.fromkeys([*self.keep, *compared, *queries]))


def comparison(text: str) -> tuple[str, str, Any]:
    """Split "column == value" into column, operator and value. The value is read as JSON, or else taken as text.

    Raises:
        InputError: the text is not a comparison.
    """
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise InputError(f"--where {text!r}; expected a comparison as 'language == en' or 'turns in [1, 2]'")
    column, operator, value = match.groups()
    try:
        return column, operator.strip(), json.loads(value)
    except ValueError:
        return column, operator.strip(), value


def prepare(
    name: str, first: int, table: Any, options: BatchOptions, on_bad: Callable[[DataError], object]
) -> tuple[Any, list[Query]]:
    """Select the rows of a chunk that are wanted and usable, and read their queries.

    Args:
        name: name of the source, for messages.
        first: number of the first row of the chunk, from 1.
        table: the chunk, a pyarrow table.
        options: settings of the job.
        on_bad: called with the error of each row that is skipped.

    Returns:
        The chunk with the selected rows and columns, and the query of each row.

    Raises:
        DataError: a row has no query, and bad rows are not skipped.
        InputError: the options do not fit the table.
    """
    found = check_table(name, table.column_names, options.columns, options.added)
    numbers = np.arange(first, first + table.num_rows)
    if options.where:
        table, numbers = _filtered(name, table, numbers, options.where)
    queries = _plain(table, found)
    if queries is None:
        rows = rows_of(name, table.select(list(found.values())), numbers.tolist())
        numbered = zip(numbers.tolist(), rows, strict=True)
        usable, queries = usable_rows(name, numbered, found, on_bad if options.skip_bad else None)
        if len(usable) < len(rows):
            table = table.take(np.fromiter(usable, np.int64, len(usable)))  # also when no row is usable
    if options.keep is not None:
        missing = [column for column in options.keep if column not in table.column_names]
        if missing:
            raise InputError(f"{name} has no columns {missing}; expected some of {table.column_names}")
        table = table.select(list(options.keep))
    return table, queries


def _filtered(name: str, table: Any, numbers: Any, where: Sequence[str]) -> tuple[Any, Any]:
    arrow: Any = require("pyarrow", "data")
    parquet: Any = require("pyarrow.parquet", "data")
    compared = [comparison(text)[0] for text in where]
    missing = [column for column in compared if column not in table.column_names]
    if missing:
        raise InputError(
            f"{name}: --where compares {', '.join(map(repr, missing))}, and there is no such column; "
            f"expected one of {table.column_names}"
        )
    try:
        expression = parquet.filters_to_expression([comparison(text) for text in where])
        numbered = table.append_column("", arrow.array(numbers)).filter(expression)
    except (arrow.ArrowException, TypeError) as error:
        raise InputError(f"{name}: --where {' and '.join(where)}: {error}") from error
    return numbered.drop_columns([""]), numbered.column("").to_numpy()


def _plain(table: Any, found: Mapping[str, str]) -> list[Query] | None:
    """The prompts as one column, which is fast; None when a row has no prompt, or may be a chat."""
    arrow: Any = require("pyarrow", "data")
    filled = [name for name in found.values() if table.column(name).null_count < table.num_rows]
    if filled != [found.get("prompt")]:
        return None
    column = table.column(filled[0])
    if column.null_count or not (arrow.types.is_string(column.type) or arrow.types.is_large_string(column.type)):
        return None
    try:
        queries: list[Query] = column.to_pylist()
    except UnicodeDecodeError:
        return None
    lists = [query for query in queries if "[" in query]
    return None if any(query.lstrip().startswith("[") for query in lists) else queries  # type: ignore[union-attr]
