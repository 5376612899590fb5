"""Cells of CSV files that a spreadsheet would take for formulas.

A spreadsheet computes a cell that begins with ``=``, ``+``, ``-`` or ``@``, and some do after a tab or a carriage
return; a formula can start programs and send data away. Such a cell is written with an apostrophe before it, which
spreadsheets read as "this is text". Our readers take the apostrophe off again, so what was written is what is read.
Numbers stay numbers.
"""

from __future__ import annotations

import re
from typing import Any

#: The signs before a formula; some programs read their wide forms alike.
_SIGNS = "[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]"
#: Apostrophes are counted in, so that a cell that had one already gets it back.
_FORMULA = re.compile(f"'*{_SIGNS}")
_GUARDED = re.compile(f"'+{_SIGNS}")
#: Found in every text that holds a guarded cell.
MAYBE_GUARDED = re.compile(f"'{_SIGNS}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


def guarded(value: Any) -> Any:
    """The value of a cell; a text that a spreadsheet would compute gets an apostrophe. Numbers stay as they are."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return "'" + value
    return value


def unguarded(cell: str) -> str:
    """The text that `guarded` was given."""
    return cell[1:] if _GUARDED.match(cell) else cell
