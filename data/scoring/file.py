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
from ...routers.errors import InputError, require
from ..raw_source import STANDARD
from ..rows import SUFFIXES, SourceOptions, Table, open_table
from ..writers import atomic_path, csv_row_writer
from .arrow_types import ArrowTypes
from .engine import ADDED, ROWS_PER_CHUNK, LateColumnError, ScoringResult, check_table, score_chunk, usable_rows


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
    options: SourceOptions | None = None,
    on_rows: Callable[[int], object] | None = None,
) -> ScoringResult:
    """Score every row of a file and write the rows with the columns ``score``, ``model`` and ``source`` added.

    Memory does not grow with the file.

    Args:
        router: any router. A `FallbackRouter` names its source, so one sees which rows the rules answered.
        source: a txt (one query a line), jsonl, json, csv, tsv, xlsx or parquet file. "-" reads standard input, whose
            format its first bytes tell, or the options.
        output: the file to write; its suffix is the format (jsonl, csv or parquet). It is written under a temporary
            name and renamed at the end. None or "-": jsonl to standard output.
        threshold: a score at or above it goes to strong; None: the router's own threshold.
        columns: the table's name of our columns ``prompt`` and ``messages``.
        prefix: text before the names of the three added columns, for tables that have such columns already.
        skip_bad: leave bad rows out; the result counts them.
        raw: write the cells of a csv file as they are. By default a text that a spreadsheet would compute as a formula
            gets an apostrophe before it, which our readers take off again.
        options: encoding and format of the source, where it does not say them itself.
        on_rows: called after each chunk with the number of rows that were scored in it.

    Raises:
        DataError: a row has no query, and `skip_bad` is false.
        InputError: there is no such file, its format is unknown, or a column is there already.
    """
    table = open_table(source, options)
    added = [prefix + name for name in ADDED]
    found = check_table(table.name, table.columns, columns or {}, added)
    job = partial(
        _score_table,
        router,
        output=output,
        threshold=router.threshold if threshold is None else threshold,
        added=added,
        found=found,
        skip_bad=skip_bad,
        raw=raw,
        on_rows=on_rows,
    )
    try:
        return job(table)
    except LateColumnError:
        return job(table.opened_again())


def _score_table(
    router: Router,
    table: Table,
    *,
    output: str | None,
    threshold: float,
    added: list[str],
    found: dict[str, str],
    skip_bad: bool,
    raw: bool,
    on_rows: Callable[[int], object] | None,
) -> ScoringResult:
    kind = None if output is None or output == STANDARD else SUFFIXES.get(Path(output).suffix.lower())
    columns = frozenset(table.columns) if kind in {"csv", "parquet"} and table.source is not None else None
    types = ArrowTypes(table.name, table.schema) if kind == "parquet" and table.schema is None else None
    models = (router.weak, router.strong)
    result = ScoringResult()
    with _writer(output, table, added, types, raw=raw) as write:
        rows = iter(table.rows)
        while chunk := list(islice(rows, ROWS_PER_CHUNK)):
            if types is not None:
                chunk = types.fitting(chunk)
            usable, queries = usable_rows(table.name, chunk, found, result.skip if skip_bad else None)
            if columns is not None and not all(columns.issuperset(row) for row in usable.values()):
                raise LateColumnError
            scored = score_chunk(router, queries, threshold)
            values = zip(scored.scores.tolist(), scored.to_strong.tolist(), scored.sources, strict=True)
            for row, (score, to_strong, decided_by) in zip(usable.values(), values, strict=True):
                write({**row, **dict(zip(added, (score, models[to_strong], decided_by), strict=True))})
            result.add(scored.result())
            if on_rows is not None:
                on_rows(len(usable))
    return result


@contextmanager
def _writer(
    output: str | None, table: Table, added: list[str], types: ArrowTypes | None, *, raw: bool
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
    if types is not None:
        writers["parquet"] = partial(_parquet_writer, types=types)
    with atomic_path(output) as staging, writers[kind](staging, table, added) as write:
        yield write


def _cell(value: object) -> object:
    """A value for a CSV cell: lists and mappings as JSON, which readers of JSON understand."""
    return json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, (list, tuple, dict)) else value


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
    with path.open("w", encoding="utf-8", newline="") as file:
        write = csv_row_writer(file, raw=raw)
        write(names)
        yield lambda row: write([_cell(row.get(name, "")) for name in names])


@contextmanager
def _parquet_writer(
    path: Path, table: Table, added: list[str], types: ArrowTypes | None = None
) -> Iterator[Callable[[dict[str, Any]], object]]:
    arrow: Any = require("pyarrow", "data")
    parquet: Any = require("pyarrow.parquet", "data")
    waiting: list[dict[str, Any]] = []
    writer: Any = None

    def schema() -> Any:
        known = table.schema if types is None else types.schema(table.columns)
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
