"""Queries of a table that need no labels: prompts, or chats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..routers.errors import DataError, InputError
from ..routers.query import Query, parse_messages
from .rows import Row, open_table

PROMPT, MESSAGES = "prompt", "messages"


def query_of(name: str, number: int, row: Row, columns: Mapping[str, str]) -> Query:
    """The query of a row: its chat where it has one, else its prompt.

    Args:
        name: of the table, for messages.
        number: of the row.
        row: by column.
        columns: their column for ours, for ``prompt`` and ``messages``.

    Raises:
        DataError: the row has no query.
    """
    prompt, messages = columns.get(PROMPT, PROMPT), columns.get(MESSAGES, MESSAGES)
    chat = row.get(messages)
    try:
        if chat is not None:
            return parse_messages(chat)
    except InputError as error:
        raise DataError(name, number, messages, str(error), "a list of {role, content}") from error
    text = row.get(prompt)
    if not isinstance(text, str):
        problem = "missing" if text is None else f"a {type(text).__name__}"
        raise DataError(name, number, prompt, problem, "a query")
    return text


def check_columns(name: str, columns: Iterable[str], names: Mapping[str, str]) -> None:
    """Refuse a table without a column of queries; one that does not say its columns passes.

    Raises:
        DataError: lists the columns that there are.
    """
    there = list(columns)
    prompt = names.get(PROMPT, PROMPT)
    if there and not {prompt, names.get(MESSAGES, MESSAGES)} & set(there):
        raise DataError(name, None, prompt, "no such column", f"one of {there}; see --map prompt=THEIR_COLUMN")


def read_queries(
    sources: Iterable[str], columns: Mapping[str, str] | None = None, *, skip_bad: bool = False
) -> list[Query]:
    """The queries of files (txt, jsonl, csv, tsv, parquet) or hub ids, in the order of the rows.

    Args:
        sources: files or hub ids.
        columns: their column for ours, for ``prompt`` and ``messages``.
        skip_bad: leave rows without a query out.

    Raises:
        DataError: a row has no query (unless skipped).
        InputError: no such file, or an unknown format.
    """
    names = columns or {}
    found: list[Query] = []
    for source in sources:
        table = open_table(source)
        check_columns(table.name, table.columns, names)
        for number, row in table.rows:
            try:
                if isinstance(row, DataError):
                    raise row
                found.append(query_of(table.name, number, row, names))
            except DataError:
                if not skip_bad:
                    raise
    return found
