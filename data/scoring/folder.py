"""Score tables larger than memory into a folder of parts: constant memory, every core, and a kill costs one part.

A part is written under a temporary name and renamed, so what has its name is whole: a job that is started again goes
on with the parts that are not there. The same part gives the same bytes, whoever scores it and when.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ...routers.base import Router
from ...routers.errors import DataError, InputError, require
from ...routers.query import Query
from ..writers import atomic_path
from .parts import (
    ROWS_PER_CHUNK,
    Chunk,
    Part,
    expand,
    is_parquet,
    parquet_chunks,
    parquet_parts,
    parquet_shape,
    stream_chunks,
)
from .selection import BatchOptions, prepare

#: Describes the job in its folder. Readers of parquet folders pass over names that begin with an underscore.
STATE = "_scored.json"
#: Bad rows whose errors are kept; the rest is counted.
MAX_ERRORS = 20
#: Chunks in a row group of the output.
_CHUNKS_PER_GROUP = 8
#: Chunks that are scored at a time: while Python prepares one, the tokenizer and the graph have the other.
_SCORING = 2
_METADATA = b"routelearn"


@dataclass
class BatchResult:
    """What was done, over parts of this run and of earlier ones.

    Attributes:
        rows: scored.
        to_strong: how many went to strong.
        sources: how many were answered by whom.
        skipped: rows left out because they have no query.
        parts: written, in all.
        reused: of them, by earlier runs.
        errors: of the first bad rows of this run.
    """

    rows: int = 0
    to_strong: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    parts: int = 0
    reused: int = 0
    errors: list[DataError] = field(default_factory=list)

    def skip(self, error: DataError) -> None:
        """Count a bad row."""
        self.skipped += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)

    def add(self, other: BatchResult) -> None:
        """Count in another result."""
        self.rows += other.rows
        self.to_strong += other.to_strong
        self.skipped += other.skipped
        self.parts += other.parts
        self.reused += other.reused
        for name, count in other.sources.items():
            self.sources[name] = self.sources.get(name, 0) + count
        self.errors += other.errors[: MAX_ERRORS - len(self.errors)]


def score_folder(
    router: Router,
    sources: Sequence[str],
    folder: str | Path,
    options: BatchOptions,
    *,
    identity: str,
    on_rows: Callable[[int], object] | None = None,
) -> BatchResult:
    """Score files, folders of parquet files or hub ids into a folder of parquet parts; go on where a run ended.

    Args:
        router: any router.
        sources: parquet files are read part by part; what else there is, from its start.
        folder: made if need be; it may hold parts of the same job only.
        options: what is done with each row.
        identity: of the router, so that parts of two routers never mix.
        on_rows: called with the rows that were just done, after each chunk.

    Raises:
        DataError: a row has no query (unless skipped), or a file cannot be read. Finished parts stay.
        InputError: the folder holds something else, or the options do not fit the tables.
    """
    folder = Path(folder)
    files = expand(sources)
    claim(folder, files, options, identity)
    result = BatchResult()
    for number, source in enumerate(files):
        for part, chunks in _parts(source, number, options, result.skip):
            done = finished(folder, part)
            if done is None:
                done = score_part(router, part, chunks, folder, options, on_rows)
            elif on_rows is not None:
                on_rows(done.rows)
            result.add(done)
    return result


def _parts(
    source: str, file: int, options: BatchOptions, on_bad: Callable[[DataError], object]
) -> Iterator[tuple[Part, Iterable[Chunk]]]:
    """The parts of a source in order, with their rows."""
    if is_parquet(source):
        columns = existing(source, options)
        for part in parquet_parts(source, file, options.rows_per_part):
            yield part, parquet_chunks(part, columns)
        return
    chunks = stream_chunks(source, on_bad if options.skip_bad else None)
    per_part = max(1, options.rows_per_part // ROWS_PER_CHUNK)
    for number, group in groupby(enumerate(chunks), key=lambda item: item[0] // per_part):
        yield Part(source, file, number), (chunk for _, chunk in group)


def existing(source: str, options: BatchOptions) -> list[str] | None:
    """The columns to read of a parquet file, of those that it has; None: all."""
    if options.needed is None:
        return None
    there = parquet_shape(source)[0].names
    return [name for name in options.needed if name in there]


def score_part(
    router: Router,
    part: Part,
    chunks: Iterable[Chunk],
    folder: Path,
    options: BatchOptions,
    on_rows: Callable[[int], object] | None = None,
) -> BatchResult:
    """Score one part and write it: one thread reads ahead, two score, this one writes."""
    result = BatchResult(parts=1)
    prepared = (prepare(part.source, first, table, options, result.skip) for first, table in chunks)
    path = folder / part.name
    with _PartWriter(path) as write, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(_SCORING) as scorers:
        scoring: deque[Future[tuple[Any, BatchResult]]] = deque()

        def take() -> None:
            table, counts = scoring.popleft().result()
            result.add(counts)
            write(table)
            if on_rows is not None:
                on_rows(counts.rows)

        ahead = reader.submit(next, prepared, None)
        while (chunk := ahead.result()) is not None:
            ahead = reader.submit(next, prepared, None)
            scoring.append(scorers.submit(_score, router, *chunk, options))
            if len(scoring) > _SCORING:
                take()
        while scoring:
            take()
        write.finish(asdict(replace(result, errors=[])))
    return result if path.exists() else replace(result, parts=0)


class _PartWriter:
    """Writes one part under a temporary name, which `finish` makes its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._staging = path.with_name(f".{path.name}.tmp")  # a kill leaves it, and the next run writes it anew
        self._waiting: list[Any] = []
        self._writer: Any = None

    def __enter__(self) -> _PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        self._staging.unlink(missing_ok=True)

    def __call__(self, table: Any) -> None:
        self._waiting.append(table)
        if len(self._waiting) == _CHUNKS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        arrow: Any = require("pyarrow", "data")
        parquet: Any = require("pyarrow.parquet", "data")
        group = arrow.concat_tables(self._waiting)
        self._waiting.clear()
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._staging, group.schema, compression="zstd")
        self._writer.write_table(group, row_group_size=group.num_rows or None)

    def finish(self, content: dict[str, Any]) -> None:
        """The part is whole; without a single table there is none."""
        if self._waiting:
            self._flush()
        if self._writer is None:
            return
        self._writer.add_key_value_metadata({_METADATA.decode(): json.dumps(content, sort_keys=True)})
        self._writer.close()
        self._writer = None
        self._staging.replace(self._path)


def _score(router: Router, table: Any, queries: list[Query], options: BatchOptions) -> tuple[Any, BatchResult]:
    """The table with score, model and source, and what to count of it."""
    arrow: Any = require("pyarrow", "data")
    assessment = router.assess(queries)
    scores, to_strong, _ = router.goes_to_strong(assessment, options.threshold)
    names = arrow.array([router.weak, router.strong])
    models = names.take(arrow.array(np.asarray(to_strong, np.int8)))
    added = (arrow.array(np.asarray(scores, np.float32)), models, arrow.array(assessment.sources, arrow.string()))
    for name, column in zip(options.added, added, strict=True):
        table = table.append_column(name, column)
    return table, BatchResult(len(queries), int(np.count_nonzero(to_strong)), dict(Counter(assessment.sources)))


def finished(folder: Path, part: Part) -> BatchResult | None:
    """What an earlier run wrote of a part; None: nothing."""
    parquet: Any = require("pyarrow.parquet", "data")
    path = folder / part.name
    if not path.is_file():
        return None
    try:
        content = json.loads(parquet.read_metadata(path).metadata[_METADATA])
    except Exception as error:  # pyarrow raises several unrelated classes
        raise InputError(f"{path} is no part of this job ({error}); remove it, and it is scored again") from error
    return replace(BatchResult(**content), reused=1)


def claim(folder: Path, files: Sequence[str], options: BatchOptions, identity: str) -> None:
    """Make a folder this job's, or find that it is.

    Raises:
        InputError: it holds another job's parts, or something else.
    """
    job = {"router": identity, "options": asdict(options), "files": [_fingerprint(file) for file in files]}
    job = json.loads(json.dumps(job))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder for the parts")
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / STATE
    if not state.exists():
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if others:
            raise InputError(f"{folder} holds {others[:5]} and no {STATE}; choose an empty folder")
        with atomic_path(state) as staging:
            staging.write_text(json.dumps(job, indent=1))
        return
    earlier = json.loads(state.read_text())
    changed = [name for name in job if job[name] != earlier.get(name)]
    if changed:
        raise InputError(
            f"{folder} holds parts of another job: other {' and '.join(changed)} (see {state}); choose another folder"
        )


def _fingerprint(source: str) -> dict[str, Any]:
    path = Path(source)
    if not path.is_file():
        return {"name": source}
    status = path.stat()
    return {"name": source, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
