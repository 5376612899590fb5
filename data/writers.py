"""Writes records to files that `read_records` can read. A file is written whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from ..routers.errors import InputError, require
from .csv_cells import guarded
from .records import PreferenceRecord, Record, check_records

_COMMON = ("weight", "task", "split", "source")
PREFERENCE_COLUMNS = ("prompt", "messages", "model_a", "model_b", "preference", "response_a", "response_b", *_COMMON)
PERFORMANCE_COLUMNS = ("prompt", "messages", "model", "score", "cost_usd", "response", *_COMMON)
#: Columns of parquet files that are no texts.
_NUMBERS = ("preference", "score", "cost_usd", "weight", "latency_s")
_COUNTS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
_FLAGS = ("tokens_estimated",)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary file beside the path to write to. It is renamed to the path at the end, or removed on an error.

    Raises:
        InputError: the path is a folder, or its parent folder is missing.
    """
    final = Path(path)
    if final.is_dir():
        raise InputError(f"{final} is a folder; expected the path of a file")
    if not final.parent.is_dir():
        raise InputError(f"{final.parent} is not a folder; expected an existing folder")
    handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".tmp" + final.suffix, dir=final.parent)
    os.close(handle)
    staging = Path(name)
    try:
        yield staging
        staging.chmod(0o644)
        staging.replace(final)
    finally:
        staging.unlink(missing_ok=True)


def write_records(records: Sequence[Record], path: str | Path, *, raw: bool = False) -> Path:
    """Write records of one kind as parquet, jsonl or csv. The suffix of the path decides.

    Args:
        records: performance records, or preference records.
        path: the file to write.
        raw: write the cells of a csv file as they are, also those that a spreadsheet would compute as formulas.

    Raises:
        InputError: there are no records, or records of both kinds, or the suffix is another one.
    """
    check_records(records)
    path = Path(path)
    kinds = {isinstance(record, PreferenceRecord) for record in records}
    if len(kinds) != 1:
        raise InputError(
            f"there are {'records of both kinds' if kinds else 'no records'}; expected records of one kind"
        )
    columns = PREFERENCE_COLUMNS if kinds.pop() else PERFORMANCE_COLUMNS
    rows = [_row(record, columns) for record in records]
    write_rows(rows, columns, path, raw=raw)
    return path


def write_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], path: Path, *, raw: bool = False) -> None:
    """Write rows as parquet, jsonl or csv, whole or not at all. The suffix of the path decides.

    Raises:
        InputError: the suffix is another one.
    """
    writers: dict[str, Callable[..., None]] = {
        ".parquet": _write_parquet,
        ".jsonl": _write_jsonl,
        ".csv": partial(_write_csv, raw=raw),
    }
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise InputError(f"{path}: unknown format {path.suffix!r}; expected one of {sorted(writers)}")
    with atomic_path(path) as staging:
        writer(rows, columns, staging)


def _row(record: Record, columns: Sequence[str]) -> dict[str, Any]:
    row = {name: getattr(record, name, None) for name in columns}
    is_chat = not isinstance(record.query, str)
    row["prompt"] = None if is_chat else record.query
    row["messages"] = json.dumps(list(record.query), ensure_ascii=False) if is_chat else None
    return row


def _write_parquet(rows: Sequence[dict[str, Any]], columns: Sequence[str], path: Path) -> None:
    arrow: Any = require("pyarrow", "data")
    parquet: Any = require("pyarrow.parquet", "data")
    kinds = {
        **dict.fromkeys(_NUMBERS, arrow.float64()),
        **dict.fromkeys(_COUNTS, arrow.int64()),
        **dict.fromkeys(_FLAGS, arrow.bool_()),
    }
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in columns])
    parquet.write_table(arrow.Table.from_pylist(list(rows), schema=schema), path, compression="zstd")


def _write_jsonl(rows: Sequence[dict[str, Any]], columns: Sequence[str], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({name: row[name] for name in columns if row[name] is not None}) + "\n")


def _write_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str], path: Path, *, raw: bool) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        write = csv_row_writer(file, raw=raw)
        write(columns)
        for row in rows:
            write([row[name] for name in columns])


def csv_row_writer(file: TextIO, *, raw: bool) -> Callable[[Iterable[Any]], object]:
    """A function that writes one row of cells; it guards them from spreadsheets (data/csv_cells.py) unless `raw`."""
    writer = csv.writer(file)
    return writer.writerow if raw else lambda cells: writer.writerow(map(guarded, cells))
