"""Reads parquet files row by row, with pyarrow alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ..routers.errors import DataError, require
from .raw_source import Item, Row

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
            for row in rows_of(name, batch, range(number + 1, number + 1 + batch.num_rows)):
                number += 1
                yield number, row
    except DataError:
        raise
    except Exception as error:  # pyarrow raises many unrelated classes
        raise DataError(name, number + 1, None, f"cannot be read ({error})", "a readable row") from error


def rows_of(name: str, batch: Any, numbers: Sequence[int]) -> list[Row | DataError]:
    """The rows of a pyarrow table or batch. In the place of a row with text that is not UTF-8 stands its error.

    Args:
        name: name of the file, for messages.
        batch: the rows.
        numbers: the number of each row.
    """
    try:
        return batch.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:  # in one of the rows
        return [_row_of(name, batch.slice(place, 1), number) for place, number in enumerate(numbers)]


def _row_of(name: str, batch: Any, number: int) -> Row | DataError:
    try:
        return batch.to_pylist()[0]  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:
        return DataError(name, number, None, f"not UTF-8 ({error})", "text in UTF-8")
