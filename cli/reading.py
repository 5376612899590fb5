"""Reads the records of a command, and says what was left out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from ..data.parser import ReadOptions
from ..data.readers import RecordSet, parse_source, read_records
from ..data.records import Record
from ..routers.errors import DataError

#: Bad rows that are shown one by one; of the others the causes are counted.
_SHOWN_BAD = 20


def read_listed(console: Console, sources: Sequence[str], options: ReadOptions) -> list[Record]:
    """Read the records of several sources into one list, and say what was left out.

    Raises:
        DataError: a column is missing, or a row is bad and bad rows are not skipped.
        InputError: there is no such source.
    """
    records: list[Record] = []
    for spec in sources:
        result = read_records(parse_source(spec)[0], options)
        say(console, columns_left_out(result))
        say(console, bad_rows(result.bad))
        records += result.records
    return records


def columns_left_out(result: RecordSet) -> list[str]:
    """Which columns of a wide table were taken for models, and which were left out; nothing of other tables."""
    if result.kind != "wide":
        return []
    lines = [f"{result.source}: scores of the models {', '.join(result.score_columns)}"]
    if result.left_out:
        names = ", ".join(result.left_out)
        lines.append(f"{result.source}: left out, not scores by their names: {names}; --models takes them")
    if result.text_columns:
        lines.append(f"{result.source}: left out, because they hold text: {', '.join(result.text_columns)}")
    return lines


def bad_rows(errors: Sequence[DataError]) -> list[str]:
    """The first bad rows that were skipped, and all of them by cause."""
    lines = [f"skipped: {error}" for error in errors[:_SHOWN_BAD]]
    if len(errors) > _SHOWN_BAD:
        lines.append(f"... and {len(errors) - _SHOWN_BAD:,} more")
    return lines + [f"{number:,} bad rows, {cause}" for cause, number in Counter(e.cause for e in errors).most_common()]


def say(console: Console, lines: Sequence[str]) -> None:
    """Print lines as they are; a terminal wraps them, a file does not."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
