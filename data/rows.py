"""Opens a table of any format. Each row is a mapping, with a row number that errors can name.

Files are read by pyarrow or line by line, so that an error can name the right row; hub ids by the `datasets` library.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ..routers.checks import check_path
from ..routers.errors import DataError, InputError, require
from .arrow_rows import parquet_file, parquet_rows
from .csv_rows import CsvRows
from .json_rows import json_array, json_lines
from .raw_source import (
    HEAD,
    STANDARD,
    SUFFIXES,
    Item,
    RawSource,
    Row,
    SourceOptions,
    binary_format,
    format_of,
    is_text,
)
from .sheet_rows import sheet

__all__ = ["SUFFIXES", "Item", "Row", "SourceOptions", "Table", "open_table"]

_BATCH = 1000
#: Rows of a JSON file that tell its columns.
_FIRST_ROWS = 1000
_SPLITS = {"train": "train", "test": "test", "eval": "test", "val": "validation", "valid": "validation"}
_SPLITS |= {"validation": "validation", "dev": "validation"}


@dataclass(frozen=True)
class Table:
    """An open table.

    Attributes:
        name: the file or hub id, as the user named it.
        columns: names of the columns. For JSON they are the keys of the first thousand good rows.
        rows: pairs of a row number, from 1, and the row. An error stands in the place of a bad row.
        schema: the pyarrow schema of a parquet file; None for other formats.
        source: what the rows are read from, for JSON whose later rows may have further columns; None: no others come.

    Example:
        >>> from routelearn.data import open_table
        >>> number, row = next(open_table("queries.txt").rows)
        >>> number, list(row)
        (1, ['prompt'])
    """

    name: str
    columns: tuple[str, ...]
    rows: Iterator[Item]
    schema: Any = None
    source: RawSource | None = None

    def all_columns(self) -> tuple[str, ...]:
        """The names of all columns, also of those that only later rows have; reads a JSON file once more."""
        if self.source is None:
            return self.columns
        rows = _json_rows(self.source)
        return tuple(dict.fromkeys(name for _, row in rows if not isinstance(row, DataError) for name in row))

    def opened_again(self) -> Table:
        """The table from its first row, with all columns; for JSON, whose later rows may have further ones."""
        if self.source is None:
            return self
        return replace(self, columns=self.all_columns(), rows=_json_rows(self.source))


def source_list(sources: object) -> list[str | Path]:
    """The sources of a call as a list.

    Raises:
        InputError: it is one source, whose name would be taken apart into its letters, or no list.
    """
    if isinstance(sources, (str, os.PathLike)):
        raise InputError(f"sources is {str(sources)!r}; expected a list of sources: [{str(sources)!r}]")
    if not isinstance(sources, Iterable):
        raise InputError(f"sources is {sources!r:.80}; expected a list of sources")
    return list(sources)


def open_table(source: str | Path, options: SourceOptions | None = None) -> Table:
    """Open a file, a folder, a hub id, or "-" for standard input.

    Files are parquet, jsonl, json, csv, tsv, txt or xlsx, also compressed (.gz, .zst). A hub id is ``org/name`` or
    ``org/name:split``; the default split is train.

    Args:
        source: what to open.
        options: its encoding and format, where it does not say them itself.

    Raises:
        InputError: there is no such file, or its format is unknown.
        DataError: the file cannot be read as a table of its format.
    """
    check_path("source", source)
    options = options or SourceOptions()
    if str(source) == STANDARD:
        return _open_raw(RawSource("stdin", None, options))
    path = Path(source)
    if path.is_file():
        if (options.format or format_of(path)) is None:
            raise InputError(
                f"{source}: unknown format {path.suffix!r}; expected one of {sorted(SUFFIXES)}, or the format with "
                "--format"
            )
        return _open_raw(RawSource(str(path), path, options))
    if path.is_dir():
        files = _of_split(path, "train")
        return _hub(str(source)) if not files else _parquet_folder(str(source), files)
    if str(source).count("/") == 1 and format_of(path) is None:
        return _hub(str(source))
    raise InputError(f"{source}: no such file; expected a file, a folder or a hub id")


def _open_raw(raw: RawSource) -> Table:
    kind = _format(raw)
    if kind == "parquet":
        plain = raw.path if raw.path is not None and raw.path.suffix.lower() == ".parquet" else raw.open_seekable()
        file = parquet_file(raw.name, plain)
        schema = file.schema_arrow
        return Table(raw.name, tuple(schema.names), parquet_rows(raw.name, file), schema)
    if kind in {"jsonl", "json"}:
        return _json(raw, _json_rows(raw))
    if kind in {"csv", "tsv"}:
        rows = CsvRows(raw, "\t" if kind == "tsv" else ",")
        return Table(raw.name, tuple(rows.header), iter(rows))
    if kind == "xlsx":
        names, items = sheet(raw)
        return Table(raw.name, tuple(names), items)
    return Table(raw.name, ("prompt",), _txt(raw))


def _format(raw: RawSource) -> str:
    """The format of a source; of standard input by its first bytes.

    Raises:
        DataError: standard input looks like CSV, which only --format tells from text.
    """
    if raw.format is not None:
        return raw.format
    with raw.open_bytes() as file:
        head = raw.guarded(lambda: file.read(HEAD))
    kind = binary_format(head)
    if kind is not None:
        return kind
    first = next((line.strip() for line in raw.lines("\n") if line.strip()), "")
    if first.startswith("{"):
        return "jsonl"
    if re.match(r"\[\s*(\{|$)", first):
        return "json"
    cells = re.split(r"[,;\t|]", first.lower())
    if len(cells) > 1 and {"prompt", "messages", "question", "query"} & {cell.strip(' "') for cell in cells}:
        problem = f"the first line looks like the header of a CSV file: {first[:80]!r}"
        raise DataError(raw.name, None, None, problem, "--format csv, or --format txt for one query a line")
    return "txt"


def _json_rows(raw: RawSource) -> Iterator[Item]:
    return json_array(raw) if _format(raw) == "json" else json_lines(raw)


def _json(raw: RawSource, rows: Iterator[Item]) -> Table:
    first = list(islice(rows, _FIRST_ROWS))
    columns = dict.fromkeys(name for _, row in first if not isinstance(row, DataError) for name in row)
    return Table(raw.name, tuple(columns), chain(first, rows), source=raw)


def _txt(raw: RawSource) -> Iterator[Item]:
    return chain.from_iterable(_txt_blocks(raw))


def _txt_blocks(raw: RawSource) -> Iterator[list[Item]]:
    number = 0
    for block in raw.blocks("\n"):
        text = "".join(block)
        lines = text.removesuffix("\n").split("\n")
        prompts = enumerate([line.removesuffix("\r") for line in lines] if "\r" in text else lines, number + 1)
        if is_text(text):
            yield [(place, {"prompt": prompt}) for place, prompt in prompts]
        else:
            yield [(place, raw.undecodable(place, None, prompt) or {"prompt": prompt}) for place, prompt in prompts]
        number += len(block)


def _of_split(folder: Path, split: str) -> list[Path]:
    """The parquet files of a split below a folder; when no file names a split, all of them are train."""
    files = sorted(folder.rglob("*.parquet"))
    named: dict[Path, str | None] = {}
    for file in files:
        words = re.split(r"[^a-z]+", "/".join(file.relative_to(folder).parts).lower())
        named[file] = next((_SPLITS[word] for word in words if word in _SPLITS), None)
    if not any(named.values()):
        return files if split == "train" else []
    return [file for file in files if named[file] == split]


def _parquet_folder(name: str, files: list[Path]) -> Table:
    opened = [parquet_file(str(file), file) for file in files]
    columns = dict.fromkeys(column for file in opened for column in file.schema_arrow.names)

    def rows() -> Iterator[Item]:
        number = 0
        for path, file in zip(files, opened, strict=True):
            for _, row in parquet_rows(str(path), file):
                number += 1
                yield number, row

    return Table(name, tuple(columns), rows())


def _hub(source: str) -> Table:
    datasets: Any = require("datasets", "hub")
    name, _, split = source.partition(":")
    try:
        stream = datasets.load_dataset(name, split=split or "train", streaming=True)
        columns = stream.column_names or list(next(iter(stream)))
    except Exception as error:  # the hub client raises many unrelated classes
        raise InputError(
            f"{source}: no such file, and the hub gives no such data set ({error}); expected a file or a hub id"
        ) from error
    return Table(source, tuple(columns), _stream(stream, source))


def _stream(stream: Any, name: str) -> Iterator[tuple[int, Row | DataError]]:
    number = 0
    try:
        for batch in stream.iter(batch_size=_BATCH):
            keys = list(batch)
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield number, dict(zip(keys, values, strict=True))
    except Exception as error:  # pyarrow and datasets raise many unrelated classes
        raise DataError(name, number + 1, None, f"cannot be read ({error})", "a readable row") from error
