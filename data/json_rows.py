"""Reads JSON: one object a line, or an array of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from ..routers.errors import DataError
from .raw_source import Item, RawSource, Row, is_text, lone_surrogate

_LINE = "one JSON object a line"
_ENDS = frozenset({"", "\n", "\r\n"})
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def json_lines(source: RawSource) -> Iterator[Item]:
    """The objects of a file with one a line; empty lines are passed over."""
    return chain.from_iterable(_blocks(source))


def _blocks(source: RawSource) -> Iterator[list[Item]]:
    before = 0
    for block in source.blocks("\n"):
        text = "".join(block)
        plain, escaped = is_text(text), "\\u" in text
        items: list[Item] = []
        for number, line in enumerate(block, before + 1):
            row = (_plain_row(line) if plain else None) or _checked_row(source, number, line)
            if escaped and isinstance(row, dict) and "\\u" in line and _SURROGATE.search(line):
                row = _row(source, number, row, check=True)
            if row is not None:
                items.append((number, row))
        before += len(block)
        yield items


def _plain_row(line: str) -> Row | None:
    """The object of a line; None: the line needs a closer look."""
    try:
        value, end = _DECODER.raw_decode(line)
    except (ValueError, RecursionError):
        return None
    return value if type(value) is dict and line[end:] in _ENDS else None


def _checked_row(source: RawSource, number: int, line: str) -> Row | DataError | None:
    """The object of a line, or its error; None: the line is empty."""
    if not line.strip():
        return None
    if not line.isascii() and (error := source.undecodable(number, None, line)):
        return error
    try:
        value = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        expected = _LINE if number > 1 or line.strip() != "[" else f"{_LINE}, or a .json file with one array"
        return DataError(source.name, number, None, f"not JSON ({str(error)[:200]})", expected)
    return _row(source, number, value, check=False)


def json_array(source: RawSource) -> Iterator[Item]:
    """The objects of a file that is one array, or an object with one array of objects.

    Raises:
        DataError: the file is none.
    """
    text = "".join(source.lines("\n"))
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 1 and all(line.lstrip().startswith("{") for line in lines[:2]):
            yield from json_lines(source)  # a .json file with one object a line
            return
        problem = f"not JSON ({str(error)[:200]})"
        raise DataError(source.name, None, None, problem, "an array of objects, or .jsonl with one a line") from error
    if isinstance(value, dict):
        lists = [content for content in value.values() if isinstance(content, list)]
        value = lists[0] if len(lists) == 1 and all(isinstance(row, dict) for row in lists[0]) else [value]
    if not isinstance(value, list):
        raise DataError(source.name, None, None, f"a {type(value).__name__}", "an array of objects")
    check = _SURROGATE.search(text) is not None or not text.isascii()
    for number, row in enumerate(value, 1):
        yield number, _row(source, number, row, check=check)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        double = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"keys named alike: {double}")
    return found


#: Made once: json.loads would make a decoder for every line.
_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _row(source: RawSource, number: int, value: object, *, check: bool) -> Row | DataError:
    if not isinstance(value, dict):
        return DataError(source.name, number, None, f"a {type(value).__name__}", _LINE)
    if check:
        for column, cell in value.items():
            code = _lone(column, cell)
            if code is not None:
                return source.undecodable(number, column, chr(code)) or lone_surrogate(
                    source.name, number, column, code
                )
    return value


def _lone(column: str, cell: object) -> int | None:
    """The first lone surrogate of a cell; None: there is none."""
    if isinstance(cell, (int, float)) or cell is None:
        cell = ""
    try:
        text = column + (cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False))
        text.encode()
    except UnicodeEncodeError as error:
        return ord(error.object[error.start])
    except (ValueError, RecursionError):
        return None
    return None
