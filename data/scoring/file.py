"""Scores one file into one file: each row as it is, with its score, its model and the source of the decision added."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ...routers.base import Router
from ...routers.errors import DataError, InputError, require
from ..rows import SUFFIXES, Row, Table, open_table
from ..writers import atomic_path, csv_row_writer
from .engine import ADDED, ROWS_PER_CHUNK, ScoringResult, check_table, score_chunk, usable_rows

#: As an input: standard input. As an output: standard output.
STANDARD = "-"

Item = tuple[int, Row | DataError]


def score_file(
    router: Router,
    source: str,
    output: str | None,
    *,
    threshold: float | None = None,
    columns: dict[str, str] | None = None,
    prefix: str = "",
    skip_bad: bool = False,
    raw: bool = False,
    on_rows: Callable[[int], object] | None = None,
) -> ScoringResult:
    """Score every row of a file and write the rows with the columns ``score``, ``model`` and ``source`` added.

    Memory does not grow with the file.

    Args:
        router: any router. A `FallbackRouter` names its source, so one sees which rows the rules answered.
        source: a txt (one query a line), jsonl, csv, tsv or parquet file. "-" reads standard input: jsonl when its
            first line starts an object, otherwise text.
        output: the file to write; its suffix is the format (jsonl, csv or parquet). It is written under a temporary
            name and renamed at the end. None or "-": jsonl to standard output.
        threshold: a score at or above it goes to strong; None: the router's own threshold.
        columns: the table's name of our columns ``prompt`` and ``messages``.
        prefix: text before the names of the three added columns, for tables that have such columns already.
        skip_bad: leave bad rows out; the result counts them.
        raw: write the cells of a csv file as they are. By default a text that a spreadsheet would compute as a formula
            gets an apostrophe before it, which our readers take off again.
        on_rows: called after each chunk with the number of rows that were scored in it.

    Raises:
        DataError: a row has no query, and `skip_bad` is false.
        InputError: there is no such file, its format is unknown, or a column is there already.
    """
    table = _standard_input() if source == STANDARD else open_table(source)
    names = columns or {}
    added = [prefix + name for name in ADDED]
    check_table(table.name, table.columns, names, added)
    threshold = router.threshold if threshold is None else threshold
    models = (router.weak, router.strong)
    result = ScoringResult()
    with _writer(output, table, added, raw) as write:
        rows = iter(table.rows)
        while chunk := list(islice(rows, ROWS_PER_CHUNK)):
            usable, queries = usable_rows(table.name, chunk, names, result.skip if skip_bad else None)
            scored = score_chunk(router, queries, threshold)
            values = zip(scored.scores.tolist(), scored.to_strong.tolist(), scored.sources, strict=True)
            for row, (score, to_strong, decided_by) in zip(usable.values(), values, strict=True):
                write({**row, **dict(zip(added, (score, models[to_strong], decided_by), strict=True))})
            result.add(scored.result())
            if on_rows is not None:
                on_rows(len(usable))
    return result


def _standard_input() -> Table:
    first = sys.stdin.readline()

    def lines() -> Iterator[str]:
        if first:
            yield first
        yield from sys.stdin

    is_json = first.lstrip().startswith("{")

    def rows() -> Iterator[Item]:
        for number, line in enumerate(lines(), 1):
            if not is_json:
                yield number, {"prompt": line.removesuffix("\n")}
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                yield number, DataError("stdin", number, None, f"not JSON ({error})", "one JSON object a line")
                continue
            expected = "one JSON object a line"
            yield number, row if isinstance(row, dict) else DataError("stdin", number, None, "no object", expected)

    if not is_json:
        return Table("stdin", ("prompt",), rows())
    try:
        columns = tuple(json.loads(first))
    except ValueError:
        columns = ()
    return Table("stdin", columns, rows())


@contextmanager
def _writer(
    output: str | None, table: Table, added: list[str], raw: bool
) -> Iterator[Callable[[dict[str, Any]], object]]:
    if output is None or output == STANDARD:
        yield lambda row: sys.stdout.write(_json(row) + "\n")
        return
    kind = SUFFIXES.get(Path(output).suffix.lower())
    writers: dict[str, Callable[[Path, Table, list[str]], AbstractContextManager[Any]]] = {
        "jsonl": _jsonl_writer,
        "csv": partial(_csv_writer, raw=raw),
        "parquet": _parquet_writer,
    }
    if kind not in writers:
        raise InputError(f"{output}: unknown output format; expected one of .jsonl, .csv, .parquet")
    with atomic_path(output) as staging, writers[kind](staging, table, added) as write:
        yield write


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, default=str)  # as ASCII, so that lone surrogates can be written


@contextmanager
def _jsonl_writer(path: Path, table: Table, added: list[str]) -> Iterator[Callable[[dict[str, Any]], object]]:
    del table, added
    with path.open("w", encoding="utf-8") as file:
        yield lambda row: file.write(_json(row) + "\n")


@contextmanager
def _csv_writer(
    path: Path, table: Table, added: list[str], *, raw: bool
) -> Iterator[Callable[[dict[str, Any]], object]]:
    names = [*table.columns, *added]
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        write = csv_row_writer(file, raw=raw)
        write(names)
        yield lambda row: write([row.get(name, "") for name in names])


@contextmanager
def _parquet_writer(path: Path, table: Table, added: list[str]) -> Iterator[Callable[[dict[str, Any]], object]]:
    arrow: Any = require("pyarrow", "data")
    parquet: Any = require("pyarrow.parquet", "data")
    waiting: list[dict[str, Any]] = []
    writer: Any = None

    def schema() -> Any:
        known = table.schema
        if known is None:
            known = arrow.Table.from_pylist([{name: row.get(name) for name in table.columns} for row in waiting]).schema
        columns = []
        for name in table.columns:
            kind = known.field(name).type if name in known.names else arrow.null()
            if arrow.types.is_dictionary(kind):
                kind = kind.value_type
            columns.append((name, arrow.string() if arrow.types.is_null(kind) else kind))
        kinds = (arrow.float32(), arrow.string(), arrow.string())
        return arrow.schema([*columns, *zip(added, kinds, strict=True)])

    def flush() -> None:
        nonlocal writer
        if writer is None:
            writer = parquet.ParquetWriter(path, schema(), compression="zstd")
        try:
            writer.write_table(arrow.Table.from_pylist(waiting, schema=writer.schema))
        except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
            raise InputError(f"{table.name}: a column changes its type ({error}); write .jsonl or .csv") from error
        waiting.clear()

    def write(row: dict[str, Any]) -> None:
        waiting.append(row)
        if len(waiting) >= ROWS_PER_CHUNK:
            flush()

    try:
        yield write
        if waiting or writer is None:
            flush()
    finally:
        if writer is not None:
            writer.close()
