"""Score a file: the rows as they are, with the score, the chosen model and the source added; in constant memory."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ...routers.base import Policy, Router
from ...routers.errors import DataError, InputError, require
from ...routers.query import Query
from ..queries import check_columns, query_of
from ..rows import SUFFIXES, Row, Table, open_table
from ..writers import atomic_path

#: Rows scored at a time.
ROWS_PER_CHUNK = 8_192
ADDED = ("score", "model", "source")
STANDARD = "-"

Item = tuple[int, Row | DataError]


@dataclass
class Scored:
    """What was done: rows scored, how many went to strong, how many were answered by which source, and bad rows."""

    rows: int = 0
    to_strong: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    bad: list[DataError] = field(default_factory=list)


def score_file(
    router: Router,
    source: str,
    output: str | None,
    *,
    policy: Policy | None = None,
    columns: dict[str, str] | None = None,
    prefix: str = "",
    skip_bad: bool = False,
    on_rows: Callable[[int], object] | None = None,
) -> Scored:
    """Score every row of a file and write it with ``score``, ``model`` and ``source`` added.

    Args:
        router: any router; a `FallbackRouter` says where it answered by rules.
        source: txt (a query a line), jsonl, csv, tsv or parquet; "-" reads stdin, as jsonl when its
            lines are objects, else as text.
        output: a path, written under a temporary name and renamed at the end; its suffix is the format
            (jsonl, csv, parquet). None or "-": jsonl to stdout.
        policy: the threshold; None: the router's own.
        columns: their column for ours, for ``prompt`` and ``messages``.
        prefix: put before the three added names, for tables that have such columns.
        skip_bad: leave bad rows out; they are counted and returned.
        on_rows: called with the number of rows that were just done, after each chunk.

    Raises:
        DataError: a row has no query (unless skipped).
        InputError: no such file, an unknown format, or a column that is there already.
    """
    table = _standard_input() if source == STANDARD else open_table(source)
    names = columns or {}
    added = [prefix + name for name in ADDED]
    taken = [name for name in added if name in table.columns]
    if taken:
        raise InputError(f"{table.name} has columns {taken} already; choose other names with --prefix routed_")
    check_columns(table.name, table.columns, names)
    scored = Scored()
    with _writer(output, table, added) as write:
        rows = iter(table.rows)
        while chunk := list(islice(rows, ROWS_PER_CHUNK)):
            kept, queries = _queries(table.name, chunk, names, skip_bad=skip_bad, bad=scored.bad)
            for row, decision in zip(kept, router.route_batch(queries, policy), strict=True):
                write({**row, **dict(zip(added, (decision.score, decision.model, decision.source), strict=True))})
                scored.sources[decision.source] = scored.sources.get(decision.source, 0) + 1
                scored.to_strong += decision.model == router.strong
            scored.rows += len(kept)
            if on_rows is not None:
                on_rows(len(kept))
    return scored


def _queries(
    name: str, chunk: list[Item], columns: dict[str, str], *, skip_bad: bool, bad: list[DataError]
) -> tuple[list[Row], list[Query]]:
    kept: list[Row] = []
    queries: list[Query] = []
    for number, row in chunk:
        try:
            if isinstance(row, DataError):
                raise row
            queries.append(query_of(name, number, row, columns))
        except DataError as error:
            if not skip_bad:
                raise
            bad.append(error)
        else:
            kept.append(row)
    return kept, queries


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
def _writer(output: str | None, table: Table, added: list[str]) -> Iterator[Callable[[dict[str, Any]], object]]:
    if output is None or output == STANDARD:
        yield lambda row: sys.stdout.write(_json(row) + "\n")
        return
    kind = SUFFIXES.get(Path(output).suffix.lower())
    writers: dict[str, Callable[[Path, Table, list[str]], AbstractContextManager[Any]]] = {
        "jsonl": _jsonl_writer,
        "csv": _csv_writer,
        "parquet": _parquet_writer,
    }
    if kind not in writers:
        raise InputError(f"{output}: unknown output format; expected one of .jsonl, .csv, .parquet")
    with atomic_path(output) as staging, writers[kind](staging, table, added) as write:
        yield write


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, default=str)  # ASCII: lone surrogates survive


@contextmanager
def _jsonl_writer(path: Path, table: Table, added: list[str]) -> Iterator[Callable[[dict[str, Any]], object]]:
    del table, added
    with path.open("w", encoding="utf-8") as file:
        yield lambda row: file.write(_json(row) + "\n")


@contextmanager
def _csv_writer(path: Path, table: Table, added: list[str]) -> Iterator[Callable[[dict[str, Any]], object]]:
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.DictWriter(file, [*table.columns, *added], extrasaction="ignore")
        writer.writeheader()
        yield writer.writerow


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
