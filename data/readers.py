"""Tables to records: preference records, performance records, or wide tables with a score column a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..routers.errors import DataError, InputError
from .labels import number
from .parser import Kind, ReadOptions, RecordParser
from .records import Record
from .rows import open_table


@dataclass
class RecordSet:
    """What was read from one source.

    Attributes:
        source: the file or hub id.
        kind: what the table holds.
        records: in the order of the rows.
        rows: rows read.
        bad: one error for every row that was skipped.
        censored: rows of which only "did not win" was known.
        tie_share: the share of ties assumed for those.
    """

    source: str
    kind: Kind
    records: list[Record] = field(default_factory=list)
    rows: int = 0
    bad: list[DataError] = field(default_factory=list)
    censored: int = 0
    tie_share: float | None = None


def read_records(
    source: str | Path, options: ReadOptions | None = None, *, on_row: Callable[[int], object] | None = None
) -> RecordSet:
    """Read every record of a table. docs/data.md lists the columns.

    Args:
        source: a parquet, jsonl, csv or tsv file, a folder that `datasets` loads, or a hub id.
        options: how to read it.
        on_row: called with the number of rows read so far, every thousand rows.

    Raises:
        DataError: a row is bad (the first, unless they are skipped), or a column is missing.
        InputError: there is no such source.
    """
    options = options or ReadOptions()
    table = open_table(source)
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
    parser.check_kept(result.records)
    try:
        result.records, result.censored, result.tie_share = parser.resolve_censored(result.records)
    except InputError as error:
        raise DataError(table.name, None, "strong_win", str(error), "a preference in more rows") from error
    return result


def read_many(sources: Iterable[str | Path], options: ReadOptions | None = None) -> list[RecordSet]:
    """Read several sources; ``path@0.2`` gives its records the weight 0.2, and every record knows its source.

    Raises:
        DataError, InputError: see `read_records`.
    """
    sets = []
    for spec in sources:
        source, weight = parse_source(str(spec))
        result = read_records(source, options)
        result.records = [replace(record, weight=record.weight * weight, source=source) for record in result.records]
        sets.append(result)
    return sets


def parse_source(spec: str) -> tuple[str, float]:
    """Split ``path@weight``; without a weight it is 1.

    Raises:
        InputError: the weight is not above 0.
    """
    match = re.fullmatch(r"(.+)@([0-9.eE+-]+)", spec)
    if match is None or Path(spec).exists():
        return spec, 1.0
    try:
        return match[1], number(match[2], 1e-9, 1e9)
    except InputError as error:
        raise InputError(f"{spec}: weight {error}") from error
