"""Reads recorded conversations from tables of records with a column that names the session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...data.parser import ReadOptions, RecordParser
from ...data.records import PerformanceRecord
from ...data.rows import Table, open_table
from ...policies.cost import query_tokens
from ...routers.checks import as_number
from ...routers.errors import DataError
from ...routers.query import Query
from .turns import SessionRequest, Sessions

#: Columns of a session's rows beside those of records, and the names that tables have for them; the first one counts.
_NAMES: Mapping[str, Sequence[str]] = {
    "session": ("session", "session_id", "conversation_id", "thread_id"),
    "turn": ("turn", "turn_number"),
    "tokens": ("tokens", "input_tokens", "prompt_tokens"),
    "output_tokens": ("output_tokens", "completion_tokens"),
    "pause_s": ("pause_s",),
}
#: Tokens of an answer where the table does not say it.
OUTPUT_TOKENS = 300


@dataclass(slots=True)
class _Turn:
    """A request of a session, as its rows tell it."""

    query: Query
    order: float
    tokens: float | None
    pause_s: float
    output: dict[str, float] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)


def read_sessions(source: str | Path, options: ReadOptions | None = None) -> Sessions:
    """Read conversations from a table of performance records (long or wide) with a column `session`.

    The rows of a session are in order, or have a column `turn`. In a long table, the rows of one turn follow each
    other or have one `turn`. `tokens` is what a model reads for the request, with all that came before; without it,
    the sizes of the prompts and answers so far are added up. `output_tokens` and `pause_s` (seconds since the request
    before) are optional.

    Args:
        source: what `open_table` opens.
        options: how to read records; None: the defaults.

    Raises:
        InputError: there is no such source.
        DataError: a column is missing, or a row is bad; the message names the row and the column.
    """
    options = options or ReadOptions()
    table = open_table(source, options.source)
    found = {ours: name for ours, names in _NAMES.items() for name in reversed(names) if name in table.columns}
    if "session" not in found:
        raise DataError(
            table.name, None, "session", f"there are the columns {list(table.columns)}", "a column session, an id"
        )
    known = {name for names in _NAMES.values() for name in names}
    others = [name for name in table.columns if name not in known]
    parser = RecordParser(table.name, others, options)
    sessions: dict[str, list[_Turn]] = {}
    for number, row in table.rows:
        if isinstance(row, DataError):
            raise row
        name = row.get(found["session"])
        if name is None or str(name) == "":
            raise DataError(table.name, number, found["session"], "no value", "the id of the session")
        records = parser.records(number, {key: row.get(key) for key in others})
        values = {ours: _number(table, number, row, theirs) for ours, theirs in found.items() if ours != "session"}
        for record in records:
            if not isinstance(record, PerformanceRecord):
                raise DataError(table.name, number, None, "a preference", "scores of models")
            turn = _turn(sessions.setdefault(str(name), []), record, values)
            turn.quality[record.model] = record.score
            output = values.get("output_tokens")
            turn.output[record.model] = OUTPUT_TOKENS if output is None else output
    return {name: _requests(turns) for name, turns in sessions.items()}


def _number(table: Table, number: int, row: Mapping[str, Any], column: str) -> float | None:
    value = row.get(column)
    if value is None or value == "":
        return None
    try:
        found = as_number(float(value))
    except (TypeError, ValueError):
        found = float("nan")
    if not 0 <= found < float("inf"):
        raise DataError(table.name, number, column, repr(value)[:80], "a number of 0 or more")
    return found


def _turn(turns: list[_Turn], record: PerformanceRecord, values: Mapping[str, float | None]) -> _Turn:
    """The turn of a record: one that has no score of its model yet, and its number or its query."""
    order = values.get("turn")
    if order is not None:
        same = next((turn for turn in turns if turn.order == order), None)
    else:
        same = (
            turns[-1] if turns and turns[-1].query == record.query and record.model not in turns[-1].quality else None
        )
    if same is not None:
        return same
    turns.append(
        _Turn(record.query, len(turns) if order is None else order, values.get("tokens"), values.get("pause_s") or 0.0)
    )
    return turns[-1]


def _requests(turns: list[_Turn]) -> list[SessionRequest]:
    requests: list[SessionRequest] = []
    so_far = 0.0
    for turn in sorted(turns, key=lambda turn: turn.order):
        own = query_tokens(turn.query)
        # A chat holds what came before; a prompt does not.
        tokens = (
            turn.tokens if turn.tokens is not None else max(own, so_far + (own if isinstance(turn.query, str) else 0))
        )
        so_far = tokens + max(turn.output.values(), default=OUTPUT_TOKENS)
        requests.append(
            SessionRequest(
                query=turn.query,
                tokens=round(tokens),
                output_tokens=turn.output,
                quality=turn.quality,
                pause_s=turn.pause_s,
            )
        )
    return requests
