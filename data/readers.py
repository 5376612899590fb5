"""Reads tables into records: preference records, performance records, or wide tables with one score column a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..routers.errors import DataError, InputError
from .labels import number
from .parser import Kind, ReadOptions, RecordParser
from .records import LEAST_WEIGHT, MOST_WEIGHT, Record
from .rows import open_table, source_list


@dataclass
class RecordSet:
    """The records of one source.

    Attributes:
        source: the file or hub id.
        kind: kind of the table: "preference", "performance" or "wide".
        records: the records, in the order of the rows.
        rows: number of rows read.
        bad: one error for each row that was skipped.
        censored: number of rows that say only that strong did not win.
        tie_share: share of ties assumed for these rows, in [0, 1]; None when there are none.
        score_columns: the columns of a wide table that were read as scores of models.
        left_out: its columns of numbers that do not look like scores: latencies, costs, tokens, ids.
        text_columns: its columns that were left out because they hold text.

    Example:
        >>> from routelearn.data import read_records
        >>> records = read_records("records.jsonl")
        >>> records.kind, records.rows == len(records.records), records.bad
        ('performance', True, [])
    """

    source: str
    kind: Kind
    records: list[Record] = field(default_factory=list)
    rows: int = 0
    bad: list[DataError] = field(default_factory=list)
    censored: int = 0
    tie_share: float | None = None
    score_columns: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    text_columns: list[str] = field(default_factory=list)


def read_records(
    source: str | Path, options: ReadOptions | None = None, *, on_row: Callable[[int], object] | None = None
) -> RecordSet:
    """Read all records of a table. docs/data.md lists the columns.

    Args:
        source: a parquet, jsonl, csv or tsv file, a folder that the `datasets` library loads, or a hub id.
        options: how to read the table; None: the default options.
        on_row: called after every thousand rows with the number of rows read so far.

    Raises:
        DataError: a column is missing, or a row is bad and bad rows are not skipped.
        InputError: there is no such source.
    """
    options = options or ReadOptions()
    table = open_table(source, options.source)
    if not table.columns:  # no good row tells the columns
        for _, row in table.rows:
            if isinstance(row, DataError):
                raise row
        raise DataError(table.name, None, None, "an empty file", "rows with a query")
    parser = RecordParser(table.name, table.columns, options)
    result = RecordSet(table.name, parser.kind)
    for row_number, row in table.rows:
        result.rows += 1
        if on_row is not None and result.rows % 1000 == 0:
            on_row(result.rows)
        try:
            if isinstance(row, DataError):
                raise row
            result.records.extend(parser.records(row_number, row))
        except DataError as error:
            if not options.skip_bad:
                raise
            result.bad.append(error)
    parser.check_whole(result.records)
    if parser.kind == "wide":
        result.score_columns, result.left_out = parser.wide.models, parser.wide.measures
        result.text_columns = parser.wide.texts
    try:
        result.records, result.censored, result.tie_share = parser.resolve_censored(result.records)
    except InputError as error:
        raise DataError(table.name, None, "strong_win", str(error), "a preference in more rows") from error
    return result


def read_many(sources: Iterable[str | Path], options: ReadOptions | None = None) -> list[RecordSet]:
    """Read several sources, with a weight each.

    Args:
        sources: files or hub ids. ``path@0.2`` multiplies the weights of its records by 0.2.
        options: how to read the tables; None: the default options.

    Returns:
        One set for each source. `source` of every record is set to its source.

    Raises:
        DataError: a column is missing, or a row is bad and bad rows are not skipped.
        InputError: there is no such source, or a weight is not above 0.
    """
    sets = []
    for spec in source_list(sources):
        source, weight = parse_source(str(spec))
        result = read_records(source, options)
        result.records = [replace(record, weight=record.weight * weight, source=source) for record in result.records]
        sets.append(result)
    return sets


def read_all(sources: Iterable[str | Path], options: ReadOptions | None = None) -> list[Record]:
    """Read the records of several sources into one list. Weights behind the names (``path@0.2``) are not used.

    Raises:
        DataError: a column is missing, or a row is bad and bad rows are not skipped.
        InputError: there is no such source.
    """
    return [
        record for spec in source_list(sources) for record in read_records(parse_source(str(spec))[0], options).records
    ]


def parse_source(spec: str) -> tuple[str, float]:
    """Split ``path@weight`` into path and weight. The weight is 1 when none is given.

    Raises:
        InputError: the weight is not above 0.
    """
    match = re.fullmatch(r"(.+)@([0-9.eE+-]+)", spec)
    if match is None or Path(spec).exists():
        return spec, 1.0
    try:
        return match[1], number(match[2], LEAST_WEIGHT, MOST_WEIGHT)
    except InputError as error:
        raise InputError(f"{spec}: weight {error}") from error
