"""Reads the first sheet of an Excel file; its first row names the columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..routers.errors import DataError, require
from .csv_rows import check_names
from .raw_source import Item, RawSource


def sheet(source: RawSource) -> tuple[list[str], Iterator[Item]]:
    """The names of the columns, and the rows.

    Raises:
        DataError: the file is no sheet with a header.
        MissingExtraError: openpyxl is not installed.
    """
    openpyxl: Any = require("openpyxl", "excel")
    try:
        book = openpyxl.load_workbook(source.open_bytes(), read_only=True, data_only=True)
        rows = book.worksheets[0].iter_rows(values_only=True)
        header = list(next(rows, ()))
    except Exception as error:
        raise DataError(source.name, None, None, f"cannot be read ({error})", "an .xlsx file") from error
    while header and header[-1] is None:
        header.pop()
    if not header:
        raise DataError(source.name, None, None, "an empty sheet", "a header row")
    names = [f"column {place}" if name is None else str(name) for place, name in enumerate(header, 1)]
    check_names(source, names)

    def items() -> Iterator[Item]:
        for number, cells in enumerate(rows, 1):
            if any(cell not in (None, "") for cell in cells):
                values = (*cells, *(None,) * len(names))[: len(names)]
                yield number, {name: None if cell == "" else cell for name, cell in zip(names, values, strict=True)}

    return names, items()
