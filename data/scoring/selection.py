"""The rows of a batch job: which are wanted, what their queries are, and what stays of their columns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...routers.errors import DataError, InputError, require
from ...routers.query import Query
from ..queries import MESSAGES, PROMPT, check_columns, query_of
from .file import ADDED
from .parts import ROWS_PER_PART

_COMPARISON = re.compile(r"\s*(.+?)\s*(==|!=|<=|>=|<|>| in | not in )\s*(.+?)\s*")


@dataclass(frozen=True)
class BatchOptions:
    """What a job does with each row.

    Attributes:
        threshold: a score at or above it goes to strong.
        columns: their column for ours, for ``prompt`` and ``messages``.
        keep: the columns to write beside the three added ones; None: all.
        where: comparisons "column == value", of which all must hold; the other rows are left out.
        prefix: put before the three added names.
        skip_bad: leave rows without a query out, and count them.
        rows_per_part: about; of a parquet file, whole row groups.
    """

    threshold: float
    columns: dict[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] | None = None
    where: tuple[str, ...] = ()
    prefix: str = ""
    skip_bad: bool = False
    rows_per_part: int = ROWS_PER_PART

    @property
    def added(self) -> list[str]:
        """Names of the three added columns."""
        return [self.prefix + name for name in ADDED]

    @property
    def needed(self) -> list[str] | None:
        """The columns to read; None: all."""
        if self.keep is None:
            return None
        compared = [comparison(text)[0] for text in self.where]
        queries = [self.columns.get(name, name) for name in (PROMPT, MESSAGES)]
        return list(dict.fromkeys([*self.keep, *compared, *queries]))


def comparison(text: str) -> tuple[str, str, Any]:
    """Column, operator and value of "column == value"; the value is JSON, or else the text itself.

    Raises:
        InputError: it is no comparison.
    """
    found = _COMPARISON.fullmatch(text)
    if found is None:
        raise InputError(f"--where {text!r}; expected a comparison as 'language == en' or 'turns in [1, 2]'")
    column, operator, value = found.groups()
    try:
        return column, operator.strip(), json.loads(value)
    except ValueError:
        return column, operator.strip(), value


def prepare(
    name: str, first: int, table: Any, options: BatchOptions, on_bad: Callable[[DataError], object]
) -> tuple[Any, list[Query]]:
    """The rows of a chunk that are wanted and usable, and their queries.

    Args:
        name: of the source, for messages.
        first: number of the chunk's first row.
        table: a pyarrow table.
        options: of the job.
        on_bad: called for each row that is skipped.

    Raises:
        DataError: a row has no query (unless skipped).
        InputError: the options do not fit the table.
    """
    check_columns(name, table.column_names, options.columns)
    taken = [column for column in options.added if column in table.column_names]
    if taken:
        raise InputError(f"{name} has columns {taken} already; choose other names with --prefix routed_")
    numbers = np.arange(first, first + table.num_rows)
    if options.where:
        table, numbers = _filtered(name, table, numbers, options.where)
    prompt, messages = (options.columns.get(column, column) for column in (PROMPT, MESSAGES))
    queries = _plain(table, prompt, messages)
    if queries is None:
        rows = table.select([column for column in (prompt, messages) if column in table.column_names]).to_pylist()
        queries, kept = [], []
        for place, row in enumerate(rows):
            try:
                queries.append(query_of(name, int(numbers[place]), row, options.columns))
                kept.append(place)
            except DataError as error:
                if not options.skip_bad:
                    raise
                on_bad(error)
        if len(kept) < len(rows):
            table = table.take(kept)
    if options.keep is not None:
        missing = [column for column in options.keep if column not in table.column_names]
        if missing:
            raise InputError(f"{name} has no columns {missing}; there are {table.column_names}")
        table = table.select(list(options.keep))
    return table, queries


def _filtered(name: str, table: Any, numbers: Any, where: Sequence[str]) -> tuple[Any, Any]:
    arrow: Any = require("pyarrow", "data")
    parquet: Any = require("pyarrow.parquet", "data")
    try:
        expression = parquet.filters_to_expression([comparison(text) for text in where])
        numbered = table.append_column("", arrow.array(numbers)).filter(expression)
    except (arrow.ArrowException, TypeError) as error:
        raise InputError(f"{name}: --where {' and '.join(where)}: {error}") from error
    return numbered.drop_columns([""]), numbered.column("").to_numpy()


def _plain(table: Any, prompt: str, messages: str) -> list[Query] | None:
    """The prompts, where every row has one and none is a chat: the quick way."""
    arrow: Any = require("pyarrow", "data")
    if prompt not in table.column_names:
        return None
    if messages in table.column_names and table.column(messages).null_count < table.num_rows:
        return None
    column = table.column(prompt)
    if column.null_count or not (arrow.types.is_string(column.type) or arrow.types.is_large_string(column.type)):
        return None
    try:
        queries: list[Query] = column.to_pylist()
    except UnicodeDecodeError:
        return None
    return queries
