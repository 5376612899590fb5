"""Reads the rows of a table of any format. Each row is a mapping, with a row number that errors can name.

The `datasets` library streams parquet files and hub ids. Text formats are read line by line, so that an error can name
the right row.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..routers.errors import DataError, InputError, require
from .csv_cells import unguarded

Row = Mapping[str, Any]

#: The format of a file by its suffix. A name with another suffix that is no file is taken as a hub id.
SUFFIXES = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
}

_BATCH = 1000


@dataclass(frozen=True)
class Table:
    """An open table.

    Attributes:
        name: the file or hub id, as the user named it.
        columns: names of the columns. For jsonl they are the keys of the first good row.
        rows: pairs of a row number, from 1, and the row. An error stands in the place of a bad row.
        schema: the pyarrow schema of a parquet file; None for other formats.

    Example:
        >>> from routelearn.data import open_table
        >>> number, row = next(open_table("queries.txt").rows)
        >>> number, list(row)
        (1, ['prompt'])
    """

    name: str
    columns: tuple[str, ...]
    rows: Iterator[tuple[int, Row | DataError]]
    schema: Any = None


def open_table(source: str | Path) -> Table:
    """Open a parquet, jsonl, csv, tsv or txt file, a folder that the `datasets` library loads, or a hub id.

    A hub id is ``org/name`` or ``org/name:split``; the default split is train.

    Raises:
        InputError: there is no such file, or its format is unknown.
        DataError: the file cannot be read as a table of its format.
    """
    path = Path(source)
    if path.is_file():
        kind = SUFFIXES.get(path.suffix.lower())
        if kind is None:
            raise InputError(f"{source}: unknown format {path.suffix!r}; expected one of {sorted(SUFFIXES)}")
        readers = {"parquet": _parquet, "jsonl": _jsonl, "csv": _csv, "tsv": _csv, "txt": _txt}
        return readers[kind](path)
    if path.is_dir() or (str(source).count("/") == 1 and path.suffix.lower() not in SUFFIXES):
        return _hub(str(source))
    raise InputError(f"{source}: no such file; expected a file, a folder or a hub id")


def _parquet(path: Path) -> Table:
    datasets: Any = require("datasets", "data")
    parquet: Any = require("pyarrow.parquet", "data")
    try:
        schema = parquet.read_schema(path)
    except Exception as error:  # pyarrow raises several unrelated classes
        raise DataError(str(path), None, None, f"cannot be read ({error})", "a parquet file") from error
    stream = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    return Table(str(path), tuple(schema.names), _stream(stream, str(path)), schema)


def _hub(source: str) -> Table:
    datasets: Any = require("datasets", "data")
    name, _, split = source.partition(":")
    try:
        stream = datasets.load_dataset(name, split=split or "train", streaming=True)
        columns = stream.column_names or list(next(iter(stream)))
    except Exception as error:  # the hub client raises many unrelated classes
        raise InputError(
            f"{source}: no such file, and the hub gives no such data set ({error}); expected a file or a hub id"
        ) from error
    return Table(source, tuple(columns), _stream(stream, source))


def _stream(stream: Any, name: str) -> Iterator[tuple[int, Row | DataError]]:
    number = 0
    try:
        for batch in stream.iter(batch_size=_BATCH):
            keys = list(batch)
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield number, dict(zip(keys, values, strict=True))
    except Exception as error:  # pyarrow and datasets raise many unrelated classes
        raise DataError(name, number + 1, None, f"cannot be read ({error})", "a readable row") from error


def _jsonl(path: Path) -> Table:
    rows = _json_rows(path)
    first: list[tuple[int, Row | DataError]] = []
    columns: tuple[str, ...] = ()
    for item in rows:
        first.append(item)
        if not isinstance(item[1], DataError):
            columns = tuple(item[1])
            break

    def chained() -> Iterator[tuple[int, Row | DataError]]:
        yield from first
        yield from rows

    return Table(str(path), columns, chained())


def _json_rows(path: Path) -> Iterator[tuple[int, Row | DataError]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, DataError(str(path), number, None, f"not JSON ({error})", "one JSON object a line")
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                kind = type(row).__name__
                yield number, DataError(str(path), number, None, f"a {kind}", "one JSON object a line")


def _csv(path: Path) -> Table:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = next(csv.reader(file, delimiter=delimiter), None)
    if not header:
        raise DataError(str(path), None, None, "an empty file", "a header line")
    header = [unguarded(name) for name in header]
    return Table(str(path), tuple(header), _csv_rows(path, delimiter, header))


def _csv_rows(path: Path, delimiter: str, header: list[str]) -> Iterator[tuple[int, Row | DataError]]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        next(reader)
        number = 0
        while True:
            number += 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, DataError(str(path), number, None, f"not CSV ({error})", f"{len(header)} cells")
                continue
            if not cells:
                continue
            if len(cells) != len(header):
                yield number, DataError(str(path), number, None, f"{len(cells)} cells", f"{len(header)} cells")
                continue
            # An empty cell means a missing value: CSV has no other way to express it.
            yield number, {name: unguarded(cell) or None for name, cell in zip(header, cells, strict=True)}


def _txt(path: Path) -> Table:
    def rows() -> Iterator[tuple[int, Row | DataError]]:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, 1):
                yield number, {"prompt": line.removesuffix("\n").removesuffix("\r")}

    return Table(str(path), ("prompt",), rows())
