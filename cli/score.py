"""`routelearn score`: one file to one file, or any number of them to a folder of parts."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

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
from ..policies.threshold import policy_of
from ..routers.base import Policy, Router, ThresholdPolicy
from ..routers.errors import InputError
from ..routers.fallback import FallbackRouter
from ..routers.learned import manifest_of
from .data import Map, SkipBad
from .opening import RULES, open_router, parse_pairs

#: Arguments and options that mean the same in `score` and in `route`.
RouterName = Annotated[str, typer.Argument(help="A bundle folder, or the word rules.")]
Strong = Annotated[str | None, typer.Option(help="The strong model; needed for rules or with --fallback.")]
Weak = Annotated[str | None, typer.Option(help="The weak model; needed for rules or with --fallback.")]
Rules = Annotated[Path | None, typer.Option(help="TOML file of rules; default: the built-in ones.")]
AtThreshold = Annotated[float | None, typer.Option(help="A score at or above it goes to strong.")]
AtShare = Annotated[float | None, typer.Option(help="Send this share of queries like the calibration's to strong.")]
Guaranteed = Annotated[
    bool, typer.Option("--guaranteed", help="The bundle's guaranteed threshold; refused where it has none.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Batches in flight; default: every CPU of this process.")]
Fallback = Annotated[
    bool, typer.Option("--fallback", help="Answer by rules when the bundle does not load, instead of failing.")
]


class Engine(str, Enum):
    """What runs the job."""

    local = "local"
    ray = "ray"


def score_command(
    router: RouterName,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="txt, jsonl, csv, tsv, parquet, a folder of them, a dataset's id, or - (stdin)."
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="jsonl, csv or parquet, by the suffix, or a folder; default: jsonl on stdout."
        ),
    ] = None,
    threshold: AtThreshold = None,
    strong_share: AtShare = None,
    guaranteed: Guaranteed = False,
    strong: Strong = None,
    weak: Weak = None,
    rules: Rules = None,
    fallback: Fallback = False,
    columns: Map = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Into a folder: write these columns only, separated by commas, and the added ones."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Into a folder: score only rows where this holds: --where 'language == en'."),
    ] = None,
    prefix: Annotated[str, typer.Option(help="Put before the added column names.")] = "",
    skip_bad: SkipBad = False,
    threads: Threads = None,
    engine: Annotated[
        Engine, typer.Option(help="Into a folder: ray scores on a Ray cluster ($RAY_ADDRESS).")
    ] = Engine.local,
    workers: Annotated[int, typer.Option(min=1, help="Of Ray: actors, of one CPU each.")] = 2,
    rows_per_part: Annotated[
        int, typer.Option(min=1, help="Into a folder: rows of a part, about: what is done again after a kill.")
    ] = ROWS_PER_PART,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Into a folder: say how long it would take; write nothing.")
    ] = False,
) -> None:
    """Score every row: adds the columns score, model and source.

    One file to one file, or files larger than memory to a folder of parquet parts; the same command again goes on
    where a killed one ended.

    Example: routelearn score router/ queries.txt -o scored.jsonl --strong-share 0.3
    Example: routelearn score router/ data/*.parquet -o scored/ --keep id --where 'language == en'
    """
    console = Console(stderr=True)
    words = partial(open_router, router, strong=strong, weak=weak, rules=rules, fallback=fallback)
    chosen = words(threads=threads)
    policy = policy_of(threshold, strong_share, guaranteed)
    names = parse_pairs(columns or [], "--map")
    if output is None or not _is_folder(output):
        given = [name for name, value in (("--keep", keep), ("--where", where), ("--dry-run", dry_run)) if value]
        if given or engine is not Engine.local:
            raise InputError(f"{', '.join(given) or '--engine ray'} is for a folder of parts: -o scored/")
        if len(sources) != 1:
            raise InputError(f"{len(sources)} inputs; expected a folder for the parts: -o scored/")
        bar, on_rows = _progress(console, None)
        with bar:
            result = score_file(
                chosen, sources[0], output, threshold=_threshold(chosen, policy), columns=names, prefix=prefix,
                skip_bad=skip_bad, on_rows=on_rows,
            )  # fmt: skip
        _report(console, chosen, result, in_parts=False)
        return
    options = BatchOptions(
        threshold=_threshold(chosen, policy),
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
    identity = _identity(chosen, rules)
    files = expand(sources)
    total = sum(parquet_shape(file)[1] for file in files) if all(map(is_parquet, files)) else None
    bar, on_rows = _progress(console, None if where else total)
    with bar:
        if engine is Engine.ray:
            opened = partial(words, threads=1)
            result = score_with_ray(opened, files, output, options, identity=identity, workers=workers, on_rows=on_rows)
        else:
            result = score_folder(chosen, files, output, options, identity=identity, on_rows=on_rows)
    _report(console, chosen, result, in_parts=True)


def _is_folder(output: str) -> bool:
    path = Path(output)
    return output != STANDARD and (path.is_dir() or output.endswith("/") or not path.suffix)


def _identity(router: Router, rules: Path | None) -> str:
    """What tells the decisions of one router from another's: the bundle, the two models, the rules."""
    manifest = manifest_of(router)
    words = [RULES if manifest is None else manifest.digest(), router.strong, router.weak]
    return " ".join([*words, *([hashlib.sha256(rules.read_bytes()).hexdigest()] if rules else [])])


def _threshold(router: Router, policy: Policy | None) -> float:
    """The one threshold of a command; rules alone have their own."""
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
    """Rows, parts and time of a job, from some chunks of its first file."""
    files = expand(sources)
    others = [file for file in files if not is_parquet(file)]
    if others:
        raise InputError(f"{others[:5]}: how many rows there are is known of parquet files only")
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
