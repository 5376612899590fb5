"""Reads parquet files row by row, with pyarrow alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..routers.errors import DataError, require
from .raw_source import Item

_BATCH = 1000


def parquet_file(name: str, source: Path | IO[bytes], **options: Any) -> Any:
    """Open a parquet file with pyarrow. A path is the path of one file, whatever characters it holds.

    Raises:
        DataError: it cannot be read, or two columns have one name.
    """
    arrow: Any = require("pyarrow", "data")
    parquet: Any = require("pyarrow.parquet", "data")
    try:
        opened = arrow.OSFile(str(source), "rb") if isinstance(source, Path) else arrow.PythonFile(source, "r")
        file = parquet.ParquetFile(opened, **options)
        names = file.schema_arrow.names
    except Exception as error:  # pyarrow raises several unrelated classes
        raise DataError(name, None, None, f"cannot be read ({error})", "a parquet file") from error
    double = sorted({column for column in names if names.count(column) > 1})
    if double:
        raise DataError(name, None, double[0], f"columns named alike: {double}", "a name of its own for each")
    return file


def parquet_rows(name: str, file: Any) -> Iterator[Item]:
    """The rows of an open parquet file."""
    number = 0
    try:
        for batch in file.iter_batches(_BATCH):
            for row in _rows(name, number, batch):
                number += 1
                yield number, row
    except DataError:
        raise
    except Exception as error:  # pyarrow raises many unrelated classes
        raise DataError(name, number + 1, None, f"cannot be read ({error})", "a readable row") from error


def _rows(name: str, before: int, batch: Any) -> Iterator[Any]:
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass  # one of the rows: below each is tried alone
    for place in range(batch.num_rows):
        try:
            yield batch.slice(place, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            yield DataError(name, before + place + 1, None, f"not UTF-8 ({error})", "text in UTF-8")
