"""Reads CSV as people have it: any delimiter, rows that name their errors, and no cell that swallows the rest."""

from __future__ import annotations

import csv
import re
import sys
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice, repeat
from operator import contains

from ..routers.errors import DataError
from .csv_cells import MAYBE_GUARDED, unguarded
from .raw_source import Item, RawSource, Row, is_text

_DELIMITERS = (",", ";", "\t", "|")
#: Lines that tell the delimiter.
_SAMPLE = 30
#: Characters of the longest row; an open quotation mark would collect all that follows it.
_LONGEST_ROW = 1 << 26
#: Rows that are read at a time.
_ROWS = 128
_LINE_ENDS = re.compile("\r\n?|\n")


class CsvRows:
    """The rows of a CSV file.

    Attributes:
        header: the names of the columns.
    """

    def __init__(self, source: RawSource, preferred: str) -> None:
        """Read the header.

        Args:
            source: the file.
            preferred: the delimiter that the name of the file promises.

        Raises:
            DataError: the file is empty, a name of a column is not text, or two columns have one name.
        """
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        self._source = source
        lines = list(islice(source.lines(), _SAMPLE))
        self._says_delimiter = bool(lines) and lines[0].lower().startswith("sep=") and len(lines[0].strip()) == 5
        self._delimiter = lines[0][4] if self._says_delimiter else _delimiter(lines, preferred)
        first = self._first_row()
        if not first:
            raise DataError(source.name, None, None, "an empty file", "a header line")
        for name in first:
            if not name.isascii() and (error := source.undecodable(None, None, name)):
                raise DataError(source.name, None, None, f"in the header: {error.problem}", error.expected)
        self.header = [unguarded(name) or f"column {place}" for place, name in enumerate(first, 1)]
        check_names(source, self.header)

    def __iter__(self) -> Iterator[Item]:
        return chain.from_iterable(self._items())

    def _first_row(self) -> list[str] | None:
        """The first row with content; counts the lines to its end."""
        self._head = int(self._says_delimiter)
        for lines, row in self._parsed(islice(self._source.lines(), self._head, None)):
            self._head += lines
            if not isinstance(row, DataError) and any(row):
                return row
        return None

    def _items(self) -> Iterator[list[Item]]:
        """The rows behind the header, some hundred at a time; from those with an error on, one by one."""
        number, done = 0, 0
        kept = _KeptLines(self._source.blocks())
        lines = chain.from_iterable(kept)
        for _ in islice(lines, self._head):
            pass
        kept.take(self._head)
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        while True:
            rows: list[list[str]] = []
            failed: DataError | None = None
            try:
                rows.extend(islice(reader, _ROWS))  # keeps the rows before an error
            except csv.Error:
                break
            except DataError as error:
                failed = error
            text = kept.take(reader.line_num - done)
            done = reader.line_num
            yield self._numbered(number, rows, text)
            number += len(rows) - rows.count([])
            if failed is not None:
                raise failed
            if not rows:
                return
        for _, row in self._parsed(kept.rest()):
            if isinstance(row, DataError):
                number += 1
                yield [(number, DataError(row.file, number, None, row.problem, row.expected))]
            else:
                yield self._numbered(number, [row], "".join(row))
                number += bool(row)

    def _numbered(self, number: int, rows: list[list[str]], text: str) -> list[Item]:
        """Rows that are CSV as items; `number` rows stand before them, and `text` holds all their cells."""
        header, width = self.header, len(self.header)
        plain = is_text(text) and not MAYBE_GUARDED.search(text)
        if plain and set(map(len, rows)) == {width} and all(map(any, rows)):  # the hot path of batch scoring
            whole: Iterator[Row] = map(dict, map(zip, repeat(header), rows))
            if any(map(contains, rows, repeat(""))):
                whole = ({name: cell or None for name, cell in zip(header, row, strict=True)} for row in rows)
            return list(enumerate(whole, number + 1))
        items: list[Item] = []
        for row in rows:
            number += bool(row)  # an empty line of a spreadsheet has delimiters, so it counts
            if any(row):
                items.append((number, self._row(number, row)))
        return items

    def _row(self, number: int, cells: list[str]) -> Row | DataError:
        if len(cells) != len(self.header):
            lines = 1 + sum(len(_LINE_ENDS.findall(cell)) for cell in cells)
            over = "" if lines == 1 else f" over {lines} lines"
            expected = (
                f"{len(self.header)} cells, as in the header; a cell with {self._delimiter!r} or a quotation mark "
                'stands in quotation marks, with those inside doubled ("")'
            )
            return DataError(self._source.name, number, None, f"{len(cells)} cells{over}", expected)
        for name, cell in zip(self.header, cells, strict=True):
            if not cell.isascii() and (error := self._source.undecodable(number, name, cell)):
                return error
        # An empty cell means a missing value: CSV has no other way to express it.
        return {name: unguarded(cell) or None for name, cell in zip(self.header, cells, strict=True)}

    def _parsed(self, lines: Iterator[str]) -> Iterator[tuple[int, list[str] | DataError]]:
        """The rows, and the number of lines of each. After a broken row the reading goes on at its second line."""
        feed = _Feed(lines)
        reader = csv.reader(feed, delimiter=self._delimiter, strict=True)
        while True:
            feed.start()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                feed.give_back()
                reader = csv.reader(feed, delimiter=self._delimiter, strict=True)
                problem = "a quotation mark is never closed" if feed.ended else f"not CSV ({error})"
                expected = 'a closed cell; double the quotation marks in a cell that has some (""), or use .jsonl'
                yield 1, DataError(self._source.name, None, None, problem, expected)
                continue
            yield feed.taken, cells


class _KeptLines:
    """Gives blocks of lines to the CSV reader, and keeps those of rows that may have to be read again."""

    def __init__(self, blocks: Iterator[list[str]]) -> None:
        self._blocks = blocks
        self._lines: list[str] = []
        self._length = 0

    def __iter__(self) -> Iterator[list[str]]:
        for block in self._blocks:
            self._lines += block
            self._length += sum(map(len, block))
            if self._length > _LONGEST_ROW:  # perhaps one row; read one by one, they tell
                raise csv.Error
            yield block

    def take(self, count: int) -> str:
        """The first of the kept lines as one text; they are kept no longer."""
        text = "".join(self._lines[:count])
        del self._lines[:count]
        self._length -= len(text)
        return text

    def rest(self) -> Iterator[str]:
        """The kept lines, and all that come after them."""
        return chain(self._lines, chain.from_iterable(self._blocks))


class _Feed:
    """Gives lines to the CSV reader, and takes back those of a broken row."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self._row: list[str] = []
        self._length = 0
        self.ended = False

    @property
    def taken(self) -> int:
        """The number of lines of the present row."""
        return len(self._row)

    def start(self) -> None:
        """Begin a row."""
        self._row, self._length, self.ended = [], 0, False

    def give_back(self) -> None:
        """Read the lines of the present row again, all but its first."""
        self._again.extendleft(reversed(self._row[1:]))

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        if self._length > _LONGEST_ROW:
            self.ended = True
            raise csv.Error("the row is too long")
        line = self._again.popleft() if self._again else next(self._lines, None)
        if line is None:
            self.ended = bool(self._row)
            raise StopIteration
        self._row.append(line)
        self._length += len(line)
        return line


def check_names(source: RawSource, names: list[str]) -> None:
    """Refuse two columns with one name: which of the two is meant, nobody knows.

    Raises:
        DataError: two columns have one name.
    """
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise DataError(source.name, None, double[0], f"columns named alike: {double}", "a name of its own for each")


def _delimiter(lines: list[str], preferred: str) -> str:
    """The delimiter that splits the header into most cells, and most rows into as many; else the preferred one."""
    best, most = preferred, (-1.0, 1)
    for delimiter in dict.fromkeys((preferred, *_DELIMITERS)):
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 1
        if width < 2:
            continue
        whole = rows[1:-1] if len(lines) == _SAMPLE else rows[1:]
        share = sum(len(row) == width for row in whole) / len(whole) if whole else 1.0
        if (share, width) > most:
            best, most = delimiter, (share, width)
    return best
