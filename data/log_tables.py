"""Tables beside a log: the outcomes of its requests, and the prompts behind its hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..monitoring.decision_log import query_hash
from ..routers.errors import DataError, InputError
from ..routers.query import Query
from .columns import find_columns
from .labels import feedback_score
from .queries import query_columns, read_query
from .rows import SourceOptions, open_table

#: The columns that may name a request, and those that may hold its outcome; the first that a table has is meant.
ID_COLUMNS = ("id", "request_id", "decision_id", "query_hash", "custom_id", "litellm_call_id", "call_id")
SCORE_COLUMNS = ("score", "outcome", "feedback", "label", "rating", "thumbs", "value")
HASH_COLUMN = "query_hash"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of a table of outcomes.

    Attributes:
        row: its number.
        id: the name of a request, or the hash of a query.
        model: the model that answered; None: the table does not say.
        score: how good the answer was, in [0, 1].
    """

    row: int
    id: str
    model: str | None
    score: float


def read_outcomes(
    source: str | Path,
    columns: Mapping[str, str] | None = None,
    *,
    scale: float = 1.0,
    options: SourceOptions | None = None,
) -> list[Outcome]:
    """Read outcomes from a table with a column of ids, one of scores, and perhaps one of models.

    Args:
        source: the table.
        columns: its name of our columns "id", "score" and "model", where it has others than the usual ones.
        scale: the highest score.
        options: encoding and format of the table.

    Returns:
        The rows with a score, each with an id.

    Raises:
        DataError: a column is missing, or a row has no id or a score that cannot be read.
        InputError: there is no such file.
    """
    table = open_table(source, options)
    mapped = {ours: theirs for ours, theirs in (columns or {}).items() if ours in {"id", "score", "model"}}
    found = find_columns(table.name, table.columns, mapped, {*ID_COLUMNS, *SCORE_COLUMNS, "model"} - mapped.keys())
    id_column = _first(table.name, "id", found, table.columns, ID_COLUMNS)
    score_column = _first(table.name, "score", found, table.columns, SCORE_COLUMNS)
    outcomes = []
    for number, row in table.rows:
        if isinstance(row, DataError):
            raise row
        name, value = row.get(id_column), row.get(score_column)
        if _blank(name):
            raise DataError(table.name, number, id_column, "missing", "the id of a request, or the hash of a query")
        if _blank(value):
            continue
        try:
            score = feedback_score(value, scale)
        except InputError as error:
            expected = "a number from 0 to 1, or a word such as thumbs_up or bad"
            raise DataError(table.name, number, score_column, str(error), expected) from error
        model = row.get(found["model"]) if "model" in found else None
        outcomes.append(Outcome(number, str(name), None if _blank(model) else str(model), score))
    return outcomes


def read_hashed_prompts(
    source: str | Path,
    salt: str | bytes | None,
    columns: Mapping[str, str] | None = None,
    *,
    options: SourceOptions | None = None,
) -> dict[str, Query]:
    """The queries of a table by their hashes in a decision log.

    Args:
        source: a table of prompts. Where it has a column "query_hash", that is taken as it stands.
        salt: the salt of the log, for tables without this column.
        columns: the table's name of our columns, such as ``{"prompt": "question"}``.
        options: encoding and format of the table.

    Raises:
        DataError: a row has no prompt.
        InputError: there is neither a column of hashes nor a salt, or no such file.
    """
    table = open_table(source, options)
    hashes = find_columns(table.name, table.columns, {}, [HASH_COLUMN]).get(HASH_COLUMN)
    if hashes is None and salt is None:
        raise InputError(
            f"{table.name} has no column {HASH_COLUMN!r}, and hashes of a decision log are keyed; expected the salt "
            "that the log was written with (--salt-env), or a table with the hashes"
        )
    found = query_columns(table.name, table.columns, columns or {})
    prompts: dict[str, Query] = {}
    for number, row in table.rows:
        if isinstance(row, DataError):
            raise row
        query = read_query(table.name, number, row, found).query
        prompts[query_hash(query, salt or b"") if hashes is None else str(row.get(hashes))] = query
    return prompts


def _first(name: str, ours: str, found: Mapping[str, str], columns: Sequence[str], known: Sequence[str]) -> str:
    column = found.get(ours) or next((found[one] for one in known if one in found), None)
    if column is None:
        expected = f"one of {list(known)}; or its name with --map {ours}=COLUMN"
        raise DataError(name, None, ours, f"no such column among {list(columns)}", expected)
    return column


def _blank(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN
