"""Tables larger than memory, in parts that a job can do again alone; each part comes as Arrow tables of few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ...routers.errors import DataError, InputError, require
from ..rows import SUFFIXES, Row, open_table

#: Rows of a chunk: enough for batches of like length, and a few megabytes.
ROWS_PER_CHUNK = 8_192
#: Rows of a part, about: what is done again after a kill.
ROWS_PER_PART = 131_072
#: Bytes read at a time from a column of a parquet file, in the place of whole row groups.
_BUFFER = 1 << 20

Chunk = tuple[int, Any]  # number of the first row, from 1; pyarrow.Table


@dataclass(frozen=True)
class Part:
    """Some consecutive rows of a source.

    Attributes:
        source: the file or hub id, as the user named it.
        file: its place among the sources.
        number: of the part within the source.
        first_row: number of its first row, from 1.
        groups: of a parquet file, its row groups, from and before.
    """

    source: str
    file: int
    number: int
    first_row: int = 1
    groups: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Of the file that holds what became of it."""
        return f"{self.file:04d}-{self.number:05d}.parquet"


def expand(sources: Sequence[str]) -> list[str]:
    """The files meant: of a folder of parquet files, each of them, by name.

    Raises:
        InputError: none, or one of them twice.
    """
    found: list[str] = []
    for source in sources:
        path = Path(source)
        inside = sorted(path.rglob("*.parquet")) if path.is_dir() else []
        found += [str(file) for file in inside] or [source]
    if not found or len(set(found)) != len(found):
        raise InputError(f"expected distinct files, got {found[:20]}")
    return found


def is_parquet(source: str) -> bool:
    """Whether parts of it can be read alone."""
    return SUFFIXES.get(Path(source).suffix.lower()) == "parquet" and Path(source).is_file()


def parquet_parts(source: str, file: int, rows_per_part: int = ROWS_PER_PART) -> list[Part]:
    """The parts of a parquet file: as many whole row groups as make `rows_per_part` rows.

    Raises:
        DataError: it cannot be read.
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
    """The pyarrow schema of a parquet file, and how many rows it has.

    Raises:
        DataError: it cannot be read.
    """
    file = _open(source)
    return file.schema_arrow, file.metadata.num_rows


def parquet_chunks(part: Part, columns: Sequence[str] | None = None) -> Iterator[Chunk]:
    """The rows of a part of a parquet file.

    Args:
        part: with row groups.
        columns: those to read; None: all.

    Raises:
        DataError: it cannot be read.
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


def stream_chunks(source: str, on_bad: Callable[[DataError], object] | None = None) -> Iterator[Chunk]:
    """The rows of a source that can only be read from its start.

    Text files through our own readers, which know the true row of an error; hub ids through the `datasets` library.
    Columns and their types are those of the first chunk.

    Args:
        source: a csv, tsv, jsonl or txt file, or a hub id.
        on_bad: called for each row that cannot be read; None: the first of them is raised.

    Raises:
        DataError: a row cannot be read, or has other types than the rows before.
        InputError: no such file.
    """
    arrow: Any = require("pyarrow", "data")
    table = open_table(source)
    schema = table.schema
    rows = iter(table.rows)
    while items := list(islice(rows, ROWS_PER_CHUNK)):
        kept: list[Row] = []
        for _, row in items:
            if not isinstance(row, DataError):
                kept.append(row)
            elif on_bad is None:
                raise row
            else:
                on_bad(row)
        try:
            schema = schema or _schema(arrow, kept)
            yield items[0][0], arrow.Table.from_pylist(kept, schema=schema)
        except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
            problem = f"a column changes its type ({error})"
            raise DataError(table.name, items[0][0], None, problem, "rows of one type") from error


def _schema(arrow: Any, rows: list[Row]) -> Any:
    """Every column of the rows; one without a value is text."""
    names = dict.fromkeys(name for row in rows for name in row)
    found = arrow.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]).schema
    return arrow.schema(
        [field.with_type(arrow.string()) if arrow.types.is_null(field.type) else field for field in found]
    )


def _open(source: str) -> Any:
    parquet: Any = require("pyarrow.parquet", "data")
    try:
        return parquet.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
    except Exception as error:  # pyarrow raises several unrelated classes
        raise DataError(source, None, None, f"cannot be read ({error})", "a parquet file") from error
