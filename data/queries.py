"""Reads the queries of a table: prompts or chats. Every command that reads a table reads its queries here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..routers.errors import DataError, InputError
from ..routers.query import Query, ends_with_question, parse_messages, parse_query, split_answer
from .columns import find_columns
from .rows import Row, SourceOptions, open_table, source_list

#: Our columns of queries. A row is read from the first one that it fills.
QUERY_COLUMNS = ("messages", "conversation_a", "contents", "request", "prompt", "input")
_TEXTS = frozenset({"prompt", "input", "request"})


class ReadQuery(NamedTuple):
    """The query of a row, the answer that stood behind it in the same chat, and the column of both."""

    query: Query
    answer: str | None
    column: str


def query_columns(name: str, columns: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    """The table's name of each of our columns of queries that it has.

    Args:
        name: name of the table, for messages.
        columns: the columns of the table; empty when they are not known.
        names: the table's name of some of our columns, as the user gave it.

    Raises:
        DataError: there is no such column; the message lists the columns.
    """
    mapped = {ours: theirs for ours, theirs in names.items() if ours in QUERY_COLUMNS}
    found = find_columns(name, columns, mapped, QUERY_COLUMNS, strict=bool(columns))
    if columns and not found:
        raise DataError(
            name, None, "prompt", "no such column", f"one of {list(columns)}; see --map prompt=THEIR_COLUMN"
        )
    return {ours: found[ours] for ours in QUERY_COLUMNS if ours in found}


def read_query(name: str, number: int, row: Row, found: Mapping[str, str]) -> ReadQuery:
    """The query of a row: its chat up to the last user turn if it has one, otherwise its prompt.

    Args:
        name: name of the table, for messages.
        number: number of the row, for messages.
        row: the values by column.
        found: the columns, from `query_columns`.

    Raises:
        DataError: the row has no query.
    """
    for ours, theirs in found.items():
        value = row.get(theirs)
        if type(value) is str and ours in _TEXTS and value.lstrip()[:1] != "[":  # the hot path of batch scoring
            return ReadQuery(value, None, theirs)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        if ends_with_question(value):  # the hot path of chats
            return ReadQuery(tuple(value), None, theirs)
        try:
            query = parse_query(value) if ours in _TEXTS else parse_messages(value)
            if isinstance(query, str):
                return ReadQuery(query, None, theirs)
            asked, answer = split_answer(query)
            return ReadQuery(tuple(asked), answer, theirs)
        except InputError as error:
            problem, _, expected = str(error).partition("; expected ")
            expected = expected or "a prompt, or a chat as a list of {role, content}"
            raise DataError(name, number, theirs, problem, expected) from error
    late = {ours: ours for ours in QUERY_COLUMNS if ours not in found and row.get(ours) is not None}
    if late:  # JSON whose first rows have no such column
        return read_query(name, number, row, late)
    column = next(iter(found.values()), "prompt")
    expected = "a prompt, or a chat in messages; rows without one can be left out with --skip-bad"
    raise DataError(name, number, column, "missing", expected)


def read_queries(
    sources: Iterable[str],
    columns: Mapping[str, str] | None = None,
    *,
    on_bad: Callable[[DataError], object] | None = None,
    options: SourceOptions | None = None,
) -> list[Query]:
    """Read the queries of files or hub ids, in the order of the rows.

    Args:
        sources: files or hub ids.
        columns: the table's name of some of our columns, such as ``{"prompt": "question"}``.
        on_bad: called with the error of each row without a query, which is left out; None: the first one raises.
        options: encoding and format of the files, where they do not say them themselves.

    Raises:
        DataError: a row has no query, and `on_bad` is None.
        InputError: there is no such file, or its format is unknown.
    """
    queries: list[Query] = []
    for source in source_list(sources):
        table = open_table(source, options)
        found = query_columns(table.name, table.columns, columns or {})
        for number, row in table.rows:
            try:
                if isinstance(row, DataError):
                    raise row
                queries.append(read_query(table.name, number, row, found).query)
            except DataError as error:
                if on_bad is None:
                    raise
                on_bad(error)
    return queries
