"""The same batch job on many machines: Ray Data hands the parts to a pool of actors, each with a router of its own.

A part is scored and written by the same code as on one machine, so the files are the same bit for bit. Sources and
folder must be where every machine of the cluster can reach them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...routers.base import Router
from ...routers.errors import InputError, require
from .folder import BatchResult, claim, existing, finished, score_part
from .parts import Part, expand, is_parquet, parquet_chunks, parquet_parts
from .selection import BatchOptions


def score_with_ray(
    open_router: Callable[[], Router],
    sources: Sequence[str],
    folder: str | Path,
    options: BatchOptions,
    *,
    identity: str,
    workers: int,
    on_rows: Callable[[int], object] | None = None,
) -> BatchResult:
    """Score parquet files into a folder of parts with Ray; see `score_folder`.

    On the cluster that Ray is connected to or that `RAY_ADDRESS` names, else on one of this machine.

    Args:
        open_router: makes a router in each worker; it is sent there.
        sources: parquet files, or folders of them.
        folder: the parts.
        options: what is done with each row.
        identity: of the router.
        workers: actors, of one CPU each.
        on_rows: called with the rows that were just done, after each part.

    Raises:
        InputError: a source is no parquet file, the folder holds something else, or the cluster has too few CPUs.
        DataError: a row has no query (unless skipped).
        MissingExtraError: Ray is not installed.
    """
    ray: Any = require("ray", "ray")
    ray_data: Any = require("ray.data", "ray")
    folder = Path(folder).resolve()
    files = expand([str(Path(source).resolve()) for source in sources])
    others = [file for file in files if not is_parquet(file)]
    if others:
        raise InputError(f"{others[:5]}: with Ray, parts are read alone; expected parquet files")
    claim(folder, files, options, identity)
    parts = [part for number, file in enumerate(files) for part in parquet_parts(file, number, options.rows_per_part)]
    result = BatchResult()
    missing: list[Part] = []
    for part in parts:
        done = finished(folder, part)
        if done is None:
            missing.append(part)
        else:
            result.add(done)
            _tell(on_rows, done)
    if not missing:
        return result
    if not ray.is_initialized():
        # One CPU more than the actors take, or Ray Data's own tasks would wait for them for ever.
        here = None if os.environ.get("RAY_ADDRESS") else workers + 1
        ray.init(num_cpus=here, include_dashboard=False, log_to_driver=False)
    cpus = int(ray.cluster_resources().get("CPU", 0))
    if cpus <= workers:
        raise InputError(f"{workers} workers and {cpus} CPUs in the Ray cluster; expected at least one CPU more")
    context = ray_data.DataContext.get_current()
    context.enable_progress_bars = False
    items = [{"number": number} for number in range(len(missing))]
    # A block a part, so that every actor gets some.
    numbers = ray_data.from_items(items, override_num_blocks=len(items))
    outcomes = numbers.map_batches(
        _Worker,
        fn_constructor_args=(open_router, missing, folder, options),
        batch_size=1,
        concurrency=min(workers, len(missing)),
        num_cpus=1,
    )
    for row in outcomes.iter_rows():
        if row["error"] is not None:
            raise row["error"]
        result.add(row["result"])
        _tell(on_rows, row["result"])
    return result


def _tell(on_rows: Callable[[int], object] | None, done: BatchResult) -> None:
    if on_rows is not None:
        on_rows(done.rows)


class _Worker:
    """An actor: loads a router once, then scores parts."""

    def __init__(
        self, open_router: Callable[[], Router], parts: Sequence[Part], folder: Path, options: BatchOptions
    ) -> None:
        self._router = open_router()
        self._parts = parts
        self._folder = folder
        self._options = options

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        outcomes: dict[str, list[Any]] = {"result": [], "error": []}
        for number in batch["number"].tolist():
            part = self._parts[number]
            try:
                chunks = parquet_chunks(part, existing(part.source, self._options))
                outcomes["result"].append(score_part(self._router, part, chunks, self._folder, self._options))
                outcomes["error"].append(None)
            except Exception as error:  # noqa: BLE001 - raised again where the user is, without Ray's own traceback
                outcomes["result"].append(None)
                outcomes["error"].append(error)
        return outcomes
