"""`routelearn score`: one file to one file, or any number of them to a folder of parts."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..data.scoring.cluster import score_with_ray
from ..data.scoring.engine import ScoringResult
from ..data.scoring.file import STANDARD, score_file
from ..data.scoring.folder import existing, score_folder
from ..data.scoring.parts import ROWS_PER_PART, expand, is_parquet, parquet_parts, parquet_shape
from ..data.scoring.parts import parquet_chunks as read
from ..data.scoring.selection import BatchOptions, prepare
from ..routers.base import Policy, Router, ThresholdPolicy
from ..routers.errors import InputError
from ..routers.fallback import FallbackRouter
from ..routers.learned import manifest_of
from .flags import with_flags
from .options import OUTPUT, RULES, Map, PolicyChoice, RouterChoice, RouterName, SkipBad, Threads, parse_pairs

PARTS = "Many files to a folder of parts"


@with_flags
def score_command(
    router: RouterName,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files of queries (txt, jsonl, csv, tsv, parquet), a folder of such files, the hub id of a dataset, "
            'or "-" for standard input.',
        ),
    ],
    policy: PolicyChoice,
    choice: RouterChoice,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write (jsonl, csv or parquet, by its suffix), or folder for parts. Without it: jsonl on "
            "standard output.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="Text to put before the names of the added columns.", rich_help_panel=OUTPUT)
    ] = "",
    columns: Map = None,
    skip_bad: SkipBad = False,
    threads: Threads = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Write only these columns and the added ones. Without it: all columns.",
            rich_help_panel=PARTS,
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COMPARISON",
            help="Score only the rows where this holds, as in --where 'language == en'. Can be repeated.",
            rich_help_panel=PARTS,
        ),
    ] = None,
    rows_per_part: Annotated[
        int,
        typer.Option(
            min=1,
            help="Rows of a part, roughly. After a kill at most one part of each worker is scored again.",
            rich_help_panel=PARTS,
        ),
    ] = ROWS_PER_PART,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="Where to score: on this machine, or on the Ray cluster that $RAY_ADDRESS names.",
            rich_help_panel=PARTS,
        ),
    ] = "local",
    workers: Annotated[
        int, typer.Option(min=1, help="Workers on the Ray cluster, of one CPU each.", rich_help_panel=PARTS)
    ] = 2,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say how long it would take, and write nothing.", rich_help_panel=PARTS),
    ] = False,
) -> None:
    """Score files of queries: every row gets a score, the model that should answer, and what decided.

    One file is written to one file. Many files, or files larger than memory, are written to a folder of parquet parts:
    a command that was killed goes on where it ended when it is typed again.

    Example: routelearn score router/ queries.txt -o scored.jsonl --strong-share 0.3

    Example: routelearn score router/ data/*.parquet -o scored/ --keep id --where 'language == en'
    """
    console = Console(stderr=True)
    chosen = choice.open(router, threads=threads)
    threshold = _threshold(chosen, policy.policy())
    names = parse_pairs(columns or [], "--map")
    if output is None or not _is_folder(output):
        of_parts = {"--keep": keep, "--where": where, "--dry-run": dry_run, "--engine ray": engine == "ray"}
        given = [name for name, value in of_parts.items() if value]
        if given:
            raise InputError(f"{', '.join(given)}: expected a folder for the parts as well, as in -o scored/")
        if len(sources) != 1:
            raise InputError(f"{len(sources)} inputs for one output; expected a folder for the parts, as in -o scored/")
        bar, on_rows = _progress(console, None)
        with bar:
            result = score_file(
                chosen, sources[0], output, threshold=threshold, columns=names, prefix=prefix, skip_bad=skip_bad,
                on_rows=on_rows,
            )  # fmt: skip
        _report(console, chosen, result, in_parts=False)
        return
    options = BatchOptions(
        threshold=threshold,
        columns=names,
        keep=None if keep is None else tuple(filter(None, (name.strip() for name in keep.split(",")))),
        where=tuple(where or ()),
        prefix=prefix,
        skip_bad=skip_bad,
        rows_per_part=rows_per_part,
    )
    if dry_run:
        console.print(_estimate(chosen, sources, options), markup=False)
        return
    identity = _identity(chosen, choice.rules)
    files = expand(sources)
    total = sum(parquet_shape(file)[1] for file in files) if all(map(is_parquet, files)) else None
    bar, on_rows = _progress(console, None if where else total)
    with bar:
        if engine == "ray":
            opened = partial(choice.open, router, threads=1)
            result = score_with_ray(opened, files, output, options, identity=identity, workers=workers, on_rows=on_rows)
        else:
            result = score_folder(chosen, files, output, options, identity=identity, on_rows=on_rows)
    _report(console, chosen, result, in_parts=True)


def _is_folder(output: str) -> bool:
    path = Path(output)
    return output != STANDARD and (path.is_dir() or output.endswith("/") or not path.suffix)


def _identity(router: Router, rules: Path | None) -> str:
    """Text that differs between routers that decide differently: the bundle, the two models, the rules."""
    manifest = manifest_of(router)
    words = [RULES if manifest is None else manifest.digest(), router.strong, router.weak]
    return " ".join([*words, *([hashlib.sha256(rules.read_bytes()).hexdigest()] if rules else [])])


def _threshold(router: Router, policy: Policy | None) -> float:
    """The threshold of a command. Rules without a bundle have a threshold of their own."""
    rules_alone = isinstance(router, FallbackRouter) and router.learned is None
    if isinstance(policy, ThresholdPolicy) and not rules_alone:
        return policy.threshold_of(router)
    return router.threshold


def _progress(console: Console, total: int | None) -> tuple[Progress, Callable[[int], object]]:
    bar = Progress(
        SpinnerColumn(),
        TextColumn("scored {task.completed:,} rows"),
        BarColumn(),
        TimeElapsedColumn(),
        *([TimeRemainingColumn()] if total else []),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("score", total=total)
    return bar, lambda rows: bar.advance(task, rows)


def _report(console: Console, router: Router, result: ScoringResult, *, in_parts: bool) -> None:
    share = result.to_strong / result.rows if result.rows else 0.0
    answered = ", ".join(f"{name} {count:,}" for name, count in sorted(result.sources.items()))
    parts = ""
    if in_parts:
        parts = f" in {result.parts:,} parts{f', {result.reused:,} of them already there' if result.reused else ''}"
    console.print(f"{result.rows:,} rows{parts}, {share:.1%} to {router.strong}; answered by: {answered}", markup=False)
    for error in result.errors:
        console.print(f"skipped: {error}", markup=False, highlight=False)
    if result.skipped > len(result.errors):
        console.print(f"... and {result.skipped - len(result.errors):,} more bad rows")


def _estimate(router: Router, sources: list[str], options: BatchOptions) -> str:
    """Rows, parts and time of a job, estimated from the first chunks of its first file."""
    files = expand(sources)
    others = [file for file in files if not is_parquet(file)]
    if others:
        raise InputError(
            f"--dry-run counts rows, and {others[:5]} do not say how many they have; expected parquet files alone"
        )
    parts = [part for number, file in enumerate(files) for part in parquet_parts(file, number, options.rows_per_part)]
    rows = sum(parquet_shape(file)[1] for file in files)
    done, seconds = 0, 0.0
    for turn, (first, table) in enumerate(islice(read(parts[0], existing(files[0], options)), 4)):
        _, queries = prepare(files[0], first, table, options, lambda _: None)
        started = time.perf_counter()
        router.assess(queries)
        if turn or table.num_rows == rows:  # the first chunk warms up
            seconds += time.perf_counter() - started
            done += table.num_rows
    left = f"; some {rows * seconds / done:,.0f} s on this machine ({done / seconds:,.0f} rows/s)" if done else ""
    return f"{rows:,} rows of {len(files):,} files into {len(parts):,} parts{left}. Nothing was written."
