"""Reads the first sheet with content of an Excel file; its first filled row names the columns."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import count, dropwhile
from typing import Any

from ..routers.errors import DataError, require
from .csv_rows import check_names
from .raw_source import Item, RawSource

logger = logging.getLogger(__name__)


def sheet(source: RawSource) -> tuple[list[str], Iterator[Item]]:
    """The names of the columns, and the rows. Further sheets with content are named in a warning.

    Raises:
        DataError: the file is not a sheet with a header, or two columns have one name.
        MissingExtraError: openpyxl is not installed.
    """
    openpyxl: Any = require("openpyxl", "excel")
    try:
        book = openpyxl.load_workbook(source.open_seekable(), read_only=True, data_only=True)
        filled = [found for found in book.worksheets if any(map(_is_filled, found.iter_rows(values_only=True)))]
    except Exception as error:  # openpyxl raises many unrelated classes
        raise DataError(source.name, None, None, f"cannot be read ({error})", "an .xlsx file") from error
    if not filled:
        raise DataError(source.name, None, None, "an empty sheet", "a header row")
    if len(filled) > 1:
        others = ", ".join(found.title for found in filled[1:])
        logger.warning("%s: only the sheet %s is read, not %s", source.name, filled[0].title, others)
    rows = dropwhile(lambda cells: not _is_filled(cells), filled[0].iter_rows(values_only=True))
    header = list(next(rows))
    while header[-1] is None:
        header.pop()
    names = [f"column {place}" if name is None else str(name) for place, name in enumerate(header, 1)]
    check_names(source, names)
    return names, _items(source, names, rows)


def _items(source: RawSource, names: list[str], rows: Iterator[tuple[Any, ...]]) -> Iterator[Item]:
    width = len(names)
    for number in count(1):
        try:
            cells = next(rows)
        except StopIteration:
            return
        except Exception as error:  # openpyxl raises many unrelated classes
            raise DataError(source.name, number, None, f"cannot be read ({error})", "a readable row") from error
        if _is_filled(cells[width:]):
            expected = f"{width} cells, as in the header"
            yield (
                number,
                DataError(source.name, number, None, f"a value behind the last column {names[-1]!r}", expected),
            )
        elif _is_filled(cells):
            values = (*cells, *(None,) * width)[:width]
            yield number, {name: None if cell == "" else cell for name, cell in zip(names, values, strict=True)}


def _is_filled(cells: tuple[Any, ...]) -> bool:
    return any(cell not in (None, "") for cell in cells)
