"""Splits tables larger than memory into parts, which a job can redo one by one, and reads each part in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ...routers.errors import DataError, InputError, require
from ..arrow_rows import parquet_file
from ..rows import SUFFIXES, Item, Row, SourceOptions, open_table
from .arrow_types import ArrowTypes
from .engine import ROWS_PER_CHUNK, LateColumnError

#: Approximate number of rows of a part. A job that is killed loses at most one part.
ROWS_PER_PART = 131_072
#: Number of bytes that are read at a time from a column of a parquet file, instead of whole row groups.
_BUFFER = 1 << 20

#: The number of the first row, from 1, and the rows as a pyarrow.Table.
Chunk = tuple[int, Any]


@dataclass(frozen=True)
class Part:
    """A range of consecutive rows of a source.

    Attributes:
        source: the file or hub id, as the user named it.
        file: place of the source among all sources, from 0.
        number: place of the part within the source, from 0.
        first_row: number of the first row of the part, from 1.
        groups: for a parquet file, the first row group of the part and the one after its last; otherwise None.
    """

    source: str
    file: int
    number: int
    first_row: int = 1
    groups: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Name of the output file of the part."""
        return f"{self.file:04d}-{self.number:05d}.parquet"


def expand(sources: Sequence[str]) -> list[str]:
    """Replace each folder of parquet files by its files, sorted by name.

    Raises:
        InputError: there is no file, or a file is named twice.
    """
    files: list[str] = []
    for source in sources:
        path = Path(source)
        inside = sorted(path.rglob("*.parquet")) if path.is_dir() else []
        files += [str(file) for file in inside] or [source]
    if not files or len(set(files)) != len(files):
        raise InputError(f"the sources are {files[:20]}; expected one or more distinct files")
    return files


def is_parquet(source: str) -> bool:
    """Whether the source is a parquet file, whose parts can be read alone."""
    return SUFFIXES.get(Path(source).suffix.lower()) == "parquet" and Path(source).is_file()


def parquet_parts(source: str, file: int, rows_per_part: int = ROWS_PER_PART) -> list[Part]:
    """The parts of a parquet file. Each part is as many whole row groups as make `rows_per_part` rows.

    Raises:
        DataError: the file cannot be read.
    """
    metadata = _open(source).metadata
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    parts: list[Part] = []
    first_group, first_row, rows = 0, 1, 0
    for group, size in enumerate(sizes):
        rows += size
        if rows >= rows_per_part or group == len(sizes) - 1:
            parts.append(Part(source, file, len(parts), first_row, (first_group, group + 1)))
            first_group, first_row, rows = group + 1, first_row + rows, 0
    return parts or [Part(source, file, 0, 1, (0, 0))]


def parquet_shape(source: str) -> tuple[Any, int]:
    """The pyarrow schema of a parquet file, and its number of rows.

    Raises:
        DataError: the file cannot be read.
    """
    file = _open(source)
    return file.schema_arrow, file.metadata.num_rows


def parquet_chunks(part: Part, columns: Sequence[str] | None = None) -> Iterator[Chunk]:
    """Read the chunks of a part of a parquet file.

    Args:
        part: a part with row groups, from `parquet_parts`.
        columns: names of the columns to read; None: all columns.

    Raises:
        DataError: the file cannot be read.
    """
    arrow: Any = require("pyarrow", "data")
    assert part.groups is not None
    number = part.first_row
    file = _open(part.source)
    try:
        wanted = None if columns is None else list(columns)
        batches = file.iter_batches(ROWS_PER_CHUNK, row_groups=list(range(*part.groups)), columns=wanted)
        for batch in batches:
            yield number, arrow.Table.from_batches([batch])
            number += batch.num_rows
    except (arrow.ArrowException, OSError) as error:
        raise DataError(part.source, number, None, f"cannot be read ({error})", "a readable row") from error


def stream_chunks(
    source: str,
    on_bad: Callable[[DataError], object] | None = None,
    options: SourceOptions | None = None,
    *,
    columns: Sequence[str] | None = None,
    suffice: Callable[[Sequence[str]], bool] = bool,
) -> Iterator[Chunk]:
    """Read the chunks of a source that can only be read from its start.

    Text files are read by our own readers, which know the row number of an error, and hub ids by the `datasets`
    library. The first chunk decides the types of the columns; a column that only later rows have is text.

    Args:
        source: a csv, tsv, jsonl, json, xlsx or txt file, or a hub id.
        on_bad: called with the error of each row that cannot be read; None: the first such row raises.
        options: encoding and format of the source, where it does not say them itself.
        columns: the names of all columns; None: those of the first chunk, as long as no other turns up.
        suffice: whether the columns of the first chunk suffice; otherwise the source is read once more for all.

    Raises:
        DataError: a row cannot be read, or its types differ from those of the rows before.
        InputError: there is no such file.
        LateColumnError: a row has a column that is not in `columns`, or not in the first chunk.
    """
    arrow: Any = require("pyarrow", "data")
    table = open_table(source, options)
    types = ArrowTypes(table.name, table.schema)
    rows = iter(table.rows)
    known: frozenset[str] = frozenset()
    while items := list(islice(rows, ROWS_PER_CHUNK)):
        kept = _good(items, on_bad)
        found = [row for _, row in kept]
        if columns is None:
            first = () if table.source is None else chain.from_iterable(found)
            columns = tuple(dict.fromkeys(chain(table.columns, first)))
            columns = columns if suffice(columns) else table.all_columns()
        known = known or frozenset(columns)
        if table.source is not None and not all(map(known.issuperset, found)):
            raise LateColumnError(source)
        built = types.build(found)
        if built is None:
            built = types.first(found, columns)
        if built is None:  # a row does not fit
            fitting = _good(types.fitting(kept), on_bad)
            built = arrow.Table.from_pylist([row for _, row in fitting], schema=types.schema(columns))
        yield items[0][0], built


def _good(items: Sequence[Item], on_bad: Callable[[DataError], object] | None) -> list[tuple[int, Row]]:
    good = [(number, row) for number, row in items if not isinstance(row, DataError)]
    if len(good) < len(items):
        for _, row in items:
            if isinstance(row, DataError):
                if on_bad is None:
                    raise row
                on_bad(row)
    return good


def _open(source: str) -> Any:
    return parquet_file(source, Path(source), buffer_size=_BUFFER, pre_buffer=False)
