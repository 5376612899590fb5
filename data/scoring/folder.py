"""Scores tables larger than memory into a folder of parts, in constant memory and on every core.

A part is written under a temporary name and renamed when it is whole. A job that is killed loses at most one part; when
it is started again, it scores only the parts that are missing. A part has the same bytes wherever it is scored.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ...routers.base import Router
from ...routers.errors import DataError, InputError, require
from ...routers.query import Query
from ..queries import query_columns
from ..rows import open_table
from ..writers import atomic_path
from .engine import ROWS_PER_CHUNK, LateColumnError, ScoringResult, score_chunk
from .part_writer import METADATA, PartWriter
from .parts import (
    Chunk,
    Part,
    expand,
    is_parquet,
    parquet_chunks,
    parquet_parts,
    parquet_shape,
    stream_chunks,
)
from .selection import BatchOptions, comparison, prepare

#: The file that describes the job in its folder. Readers of parquet folders ignore names that begin with "_".
STATE = "_scored.json"
#: Number of chunks that are scored at a time: Python prepares one while the tokenizer and the graph run on the other.
_SCORING = 2
#: Names of parts (`Part.name`).
_PART = re.compile(r"\d{4,}-\d{5,}\.parquet")


def score_folder(
    router: Router,
    sources: Sequence[str],
    folder: str | Path,
    options: BatchOptions,
    *,
    identity: str,
    on_rows: Callable[[int], object] | None = None,
) -> ScoringResult:
    """Score files, folders of parquet files or hub ids into a folder of parquet parts.

    Parts that an earlier run of the same job wrote are not scored again.

    Args:
        router: any router.
        sources: files, folders of parquet files, or hub ids. A part of a parquet file is read alone; other formats are
            read from their start.
        folder: the folder for the parts. It is created if it is missing; it may hold only parts of the same job.
        options: what the job does with each row.
        identity: text that identifies the router, so that parts of two routers never mix.
        on_rows: called after each chunk with the number of rows that were scored in it. Rows are scored twice, and
            counted twice here, when JSON has a column only behind rows that were written without it.

    Returns:
        The counts of all parts.

    Raises:
        DataError: a row has no query, and bad rows are not skipped; or a file cannot be read. Finished parts stay.
        InputError: the folder holds something else, or the options do not fit the tables.

    Example:
        >>> import routelearn
        >>> from routelearn.data import BatchOptions, score_folder
        >>> router = routelearn.load("router/")
        >>> options = BatchOptions(threshold=router.threshold)
        >>> result = score_folder(router, ["queries.txt"], "parts-example", options, identity="router 1")
        >>> result.parts, result.skipped
        (1, 0)
    """
    folder = Path(folder)
    files = expand(sources)
    claim(folder, files, options, identity)
    result = ScoringResult()
    for number, source in enumerate(files):
        job = partial(_score_source, router, source, number, folder, options, on_rows)
        try:
            result.add(job())
        except LateColumnError:  # parts without the column are scored again, so that all parts have the same columns
            result.add(job(open_table(source, options.source).all_columns()))
    return result


def _score_source(
    router: Router,
    source: str,
    number: int,
    folder: Path,
    options: BatchOptions,
    on_rows: Callable[[int], object] | None,
    columns: Sequence[str] | None = None,
) -> ScoringResult:
    """Score one source. Parts that are there stay, if they have all columns.

    Raises:
        LateColumnError: the columns were not given, and a row has one that the first rows did not have.
    """
    result = ScoringResult()
    written = () if columns is None else [name for name in columns if options.keep is None or name in options.keep]
    for part, chunks in _parts(source, number, options, result.skip, columns):
        done = finished(folder, part, written)
        if done is None:
            done = score_part(router, part, chunks, folder, options, on_rows)
        elif on_rows is not None:
            on_rows(done.rows)
        result.add(done)
    return result


def _suffice(source: str, options: BatchOptions, columns: Sequence[str]) -> bool:
    """Whether a table with these columns has queries, and all columns that the options name."""
    named = {*(options.keep or ()), *(comparison(text)[0] for text in options.where)}
    try:
        return named.issubset(columns) and bool(query_columns(source, columns, options.columns))
    except DataError:
        return False


def _parts(
    source: str,
    file: int,
    options: BatchOptions,
    on_bad: Callable[[DataError], object],
    columns: Sequence[str] | None,
) -> Iterator[tuple[Part, Iterable[Chunk]]]:
    """The parts of a source in order, with the chunks of each."""
    if is_parquet(source):
        there = existing(source, options)
        for part in parquet_parts(source, file, options.rows_per_part):
            yield part, parquet_chunks(part, there)
        return
    chunks = stream_chunks(
        source,
        on_bad if options.skip_bad else None,
        options.source,
        columns=columns,
        suffice=partial(_suffice, source, options),
    )
    per_part = max(1, options.rows_per_part // ROWS_PER_CHUNK)
    for number, group in groupby(enumerate(chunks), key=lambda item: item[0] // per_part):
        yield Part(source, file, number), (chunk for _, chunk in group)


def existing(source: str, options: BatchOptions) -> list[str] | None:
    """The columns of a parquet file that the job reads; None: all columns."""
    if options.needed is None:
        return None
    there = parquet_shape(source)[0].names
    queries = query_columns(source, there, options.columns).values()
    return [name for name in dict.fromkeys([*options.needed, *queries]) if name in there]


def score_part(
    router: Router,
    part: Part,
    chunks: Iterable[Chunk],
    folder: Path,
    options: BatchOptions,
    on_rows: Callable[[int], object] | None = None,
) -> ScoringResult:
    """Score one part and write it. One thread reads ahead, two threads score, and the calling thread writes."""
    result, left_out = ScoringResult(parts=1), ScoringResult()
    prepared = (prepare(part.source, first, table, options, left_out.skip) for first, table in chunks)
    path = folder / part.name
    with PartWriter(path) as write, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(_SCORING) as scorers:
        scoring: deque[Future[tuple[Any, ScoringResult]]] = deque()

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
        result.add(left_out)
        write.finish(asdict(replace(result, errors=[])))
    return result if path.exists() else replace(result, parts=0)


def _score(router: Router, table: Any, queries: list[Query], options: BatchOptions) -> tuple[Any, ScoringResult]:
    """The chunk with the columns score, model and source, and its counts."""
    arrow: Any = require("pyarrow", "data")
    scored = score_chunk(router, queries, options.threshold)
    names = arrow.array([router.weak, router.strong])
    models = names.take(arrow.array(np.asarray(scored.to_strong, np.int8)))
    added = (arrow.array(np.asarray(scored.scores, np.float32)), models, arrow.array(scored.sources, arrow.string()))
    for name, column in zip(options.added, added, strict=True):
        table = table.append_column(name, column)
    return table, scored.result()


def finished(folder: Path, part: Part, columns: Sequence[str] = ()) -> ScoringResult | None:
    """The counts of a part that an earlier run wrote; None when the part is missing, or lacks one of the columns."""
    parquet: Any = require("pyarrow.parquet", "data")
    path = folder / part.name
    if not path.is_file():
        return None
    try:
        metadata = parquet.read_metadata(path)
        content = json.loads(metadata.metadata[METADATA])
        if not set(columns).issubset(metadata.schema.to_arrow_schema().names):
            return None
    except Exception as error:  # pyarrow raises several unrelated classes
        raise InputError(
            f"{path} is not part of this job ({error}); remove the file to score the part again"
        ) from error
    return replace(ScoringResult(**content), reused=1)


def claim(folder: Path, files: Sequence[str], options: BatchOptions, identity: str) -> None:
    """Take a folder for this job: describe the job in it, or check that it holds this same job.

    A job that wrote no part holds nothing, so its folder is free. Parts that were written without leaving out a row are
    those that `skip_bad` would write.

    Raises:
        InputError: the folder holds the parts of another job, or something else.
    """
    job = _job(files, options, identity)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder for the parts")
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / STATE
    if not state.exists():
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if others:
            raise InputError(f"{folder} holds {others[:5]} and no {STATE}; choose an empty folder")
        _write_state(state, job)
        return
    changed = _changed(job, state)
    if changed and _parts_in(folder):
        raise InputError(
            f"{folder} holds parts of another job: other {' and '.join(changed)} (see {state}); choose another folder, "
            "or remove the parts (score does so with --force)"
        )
    _write_state(state, job)


def remove_other_job(folder: str | Path, files: Sequence[str], options: BatchOptions, identity: str) -> None:
    """Remove the parts in a folder, if another job wrote them; those of this job stay, to go on from.

    Args:
        folder: the folder of parts, which may be missing.
        files: the sources, from `expand`.
        options: what the job does with each row.
        identity: text that identifies the router.
    """
    state = Path(folder) / STATE
    if state.is_file() and _changed(_job(files, options, identity), state):
        for part in _parts_in(Path(folder)):
            part.unlink()
        state.unlink()


def _parts_in(folder: Path) -> list[Path]:
    """The parts in a folder."""
    return sorted(path for path in folder.iterdir() if _PART.fullmatch(path.name))


def _job(files: Sequence[str], options: BatchOptions, identity: str) -> dict[str, Any]:
    # Folders of before these two settings have no entry for them.
    settings = {key: value for key, value in asdict(options).items() if key not in {"encoding", "format"} or value}
    job = {"router": identity, "options": settings, "files": [_fingerprint(file) for file in files]}
    described: dict[str, Any] = json.loads(json.dumps(job))
    return described


def _changed(job: dict[str, Any], state: Path) -> list[str]:
    """What a job does otherwise than the one that the folder's description names."""
    try:
        earlier = json.loads(state.read_text())
        if job["options"]["skip_bad"] and not earlier["options"]["skip_bad"]:
            earlier["options"]["skip_bad"] = True
        return [name for name in job if job[name] != earlier.get(name)]
    except (ValueError, TypeError, KeyError, AttributeError):  # a file that was cut off, or somebody else's
        return ["description"]


def _write_state(state: Path, job: dict[str, Any]) -> None:
    with atomic_path(state) as staging:
        staging.write_text(json.dumps(job, indent=1))


def _fingerprint(source: str) -> dict[str, Any]:
    path = Path(source)
    if not path.is_file():
        return {"name": source}
    status = path.stat()
    return {"name": source, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
