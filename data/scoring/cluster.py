"""Scores a folder of parts on many machines: Ray Data hands the parts to a pool of actors, each with its own router.

An actor scores and writes a part with the same code as one machine, so the files have the same bytes. Every machine of
the cluster must reach the sources and the folder under the same paths.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...routers.base import Router
from ...routers.errors import InputError, require
from .engine import ScoringResult
from .folder import claim, existing, finished, score_part
from .parts import Part, expand, is_parquet, parquet_chunks, parquet_parts
from .selection import BatchOptions

#: What Ray reads when it is imported, unless it is set already: no statistics of use are sent, and no tip is given
#: about accelerators.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def score_with_ray(
    open_router: Callable[[], Router],
    sources: Sequence[str],
    folder: str | Path,
    options: BatchOptions,
    *,
    identity: str,
    workers: int,
    on_rows: Callable[[int], object] | None = None,
) -> ScoringResult:
    """Score parquet files into a folder of parts with Ray, as `score_folder` does on one machine.

    The job runs on the cluster that Ray is connected to, or on the one that `RAY_ADDRESS` names. Otherwise it starts a
    cluster on this machine.

    Args:
        open_router: opens the router; it is sent to each worker and called there.
        sources: parquet files, or folders of them.
        folder: the folder for the parts.
        options: what the job does with each row.
        identity: text that identifies the router, so that parts of two routers never mix.
        workers: number of actors, which use one CPU each.
        on_rows: called after each part with its number of rows.

    Returns:
        The counts of all parts.

    Raises:
        InputError: a source is not a parquet file, the folder holds something else, or the cluster has too few CPUs.
        DataError: a row has no query, and bad rows are not skipped.
        MissingExtraError: Ray is not installed.
    """
    ray = _quiet_ray()
    folder = Path(folder).resolve()
    files = expand([str(Path(source).resolve()) for source in sources])
    others = [file for file in files if not is_parquet(file)]
    if others:
        raise InputError(f"{others[:5]} can only be read from their start; expected parquet files")
    claim(folder, files, options, identity)
    result = ScoringResult()

    def count(part: ScoringResult) -> None:
        result.add(part)
        if on_rows is not None:
            on_rows(part.rows)

    missing: list[Part] = []
    for number, file in enumerate(files):
        for part in parquet_parts(file, number, options.rows_per_part):
            written = finished(folder, part)
            if written is None:
                missing.append(part)
            else:
                count(written)
    if missing:
        _connect(ray, workers)
        for scored in _score_parts(open_router, missing, folder, options, workers):
            count(scored)
    return result


def _quiet_ray() -> Any:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    return require("ray", "ray")


def _connect(ray: Any, workers: int) -> None:
    """Connect to a cluster, or start one, and check that it has room for the workers.

    Ray then logs errors alone. A program that is connected already keeps its own settings.
    """
    if not ray.is_initialized():
        # One CPU more than the actors take. Without it, Ray Data's own tasks would wait for ever.
        cpus = None if os.environ.get("RAY_ADDRESS") else workers + 1
        ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        require("ray.data", "ray")  # sets the level of its logger at the import
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    available = int(ray.cluster_resources().get("CPU", 0))
    if available <= workers:
        raise InputError(
            f"workers is {workers}, and the Ray cluster has {available} CPUs; expected at least one CPU more than "
            "there are workers"
        )


def _score_parts(
    open_router: Callable[[], Router], parts: list[Part], folder: Path, options: BatchOptions, workers: int
) -> Iterator[ScoringResult]:
    """Score parts on a cluster; yields the counts of each part when it is written."""
    ray_data: Any = require("ray.data", "ray")
    ray_data.DataContext.get_current().enable_progress_bars = False
    items = [{"number": number} for number in range(len(parts))]
    # One block for each part, so that every actor gets some.
    numbers = ray_data.from_items(items, override_num_blocks=len(items))
    outcomes = numbers.map_batches(
        _Worker,
        fn_constructor_args=(open_router, parts, folder, options),
        batch_size=1,
        compute=ray_data.ActorPoolStrategy(size=min(workers, len(parts))),
        num_cpus=1,
    )
    for row in outcomes.iter_rows():
        if row["error"] is not None:
            raise row["error"]
        yield row["result"]


class _Worker:
    """An actor: it opens a router once, then scores parts."""

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
            except Exception as error:  # noqa: BLE001 - raised again in the user's process, without Ray's traceback
                outcomes["result"].append(None)
                outcomes["error"].append(error)
        return outcomes
