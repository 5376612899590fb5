"""Reads the queries of a table: prompts or chats, without labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..routers.errors import DataError, InputError
from ..routers.query import Query, parse_messages
from .rows import Row, open_table

PROMPT, MESSAGES = "prompt", "messages"


def query_of(name: str, number: int, row: Row, columns: Mapping[str, str]) -> Query:
    """The query of a row: its chat if it has one, otherwise its prompt.

    Args:
        name: name of the table, for messages.
        number: number of the row, for messages.
        row: the values by column.
        columns: the table's name of our columns ``prompt`` and ``messages``.

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
    """Refuse a table without a column of queries. A table whose columns are not known passes.

    Args:
        name: name of the table, for messages.
        columns: the columns of the table; empty when they are not known.
        names: the table's name of our columns ``prompt`` and ``messages``.

    Raises:
        DataError: there is no such column; the message lists the columns.
    """
    there = list(columns)
    prompt = names.get(PROMPT, PROMPT)
    if there and not {prompt, names.get(MESSAGES, MESSAGES)} & set(there):
        raise DataError(name, None, prompt, "no such column", f"one of {there}; see --map prompt=THEIR_COLUMN")


def read_queries(
    sources: Iterable[str], columns: Mapping[str, str] | None = None, *, skip_bad: bool = False
) -> list[Query]:
    """Read the queries of files (txt, jsonl, csv, tsv, parquet) or hub ids, in the order of the rows.

    Args:
        sources: files or hub ids.
        columns: the table's name of our columns ``prompt`` and ``messages``.
        skip_bad: leave rows without a query out.

    Raises:
        DataError: a row has no query, and `skip_bad` is false.
        InputError: there is no such file, or its format is unknown.
    """
    names = columns or {}
    queries: list[Query] = []
    for source in sources:
        table = open_table(source)
        check_columns(table.name, table.columns, names)
        for number, row in table.rows:
            try:
                if isinstance(row, DataError):
                    raise row
                queries.append(query_of(table.name, number, row, names))
            except DataError:
                if not skip_bad:
                    raise
    return queries


def json_list(text: str) -> list[Any] | None:
    """The list that a text holds as JSON; None when it holds none."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, list) else None


def lmsys_query(prompt: str) -> Query:
    """The query of an LMSYS file, which holds the user turns of a battle as a JSON list of strings."""
    turns = json_list(prompt)
    if not turns or not all(turn is None or isinstance(turn, str) for turn in turns):
        return prompt
    if len(turns) == 1:
        return turns[0] or ""
    return tuple({"role": "user", "content": turn or ""} for turn in turns)


def up_to_last_user_turn(conversation: Any) -> list[Any]:
    """The messages of a conversation up to its last user turn.

    Args:
        conversation: a list of messages, or such a list as JSON.

    Raises:
        InputError: it is not a conversation, or has no user turn.
    """
    if isinstance(conversation, str):
        conversation = json_list(conversation)
    if not isinstance(conversation, Sequence) or not conversation:
        raise InputError("the conversation is empty or not a list; expected a list of messages")
    users = [i for i, turn in enumerate(conversation) if isinstance(turn, Mapping) and turn.get("role") == "user"]
    if not users:
        raise InputError("the conversation has no user turn; expected one or more")
    return list(conversation[: users[-1] + 1])
