"""`routelearn score`: one file to one file, or any number of them to a folder of parts."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..data.raw_source import STANDARD
from ..data.scoring.cluster import score_with_ray
from ..data.scoring.engine import ScoringResult
from ..data.scoring.file import score_file
from ..data.scoring.folder import existing, remove_other_job, score_folder
from ..data.scoring.parts import ROWS_PER_PART, expand, is_parquet, parquet_parts, parquet_shape
from ..data.scoring.parts import parquet_chunks as read
from ..data.scoring.selection import BatchOptions, prepare
from ..routers.base import Policy, Router, ThresholdPolicy
from ..routers.errors import InputError
from ..routers.fallback import FallbackRouter
from ..routers.general import GeneralRouter
from ..routers.learned import manifest_of
from .flags import Flag, Options, with_flags
from .options import OUTPUT, QueryReading, asked_and_got
from .outputs import Overwrite, check_raw
from .router_options import RULES, PolicyChoice, RouterChoice
from .terminal import Console, on_interrupt

#: A strong share that differs by more than this from the one asked for is worth a calibration.
FAR_SHARE = 0.02


@dataclass(frozen=True)
class ScoreOptions(Options):
    """What to score, and where to.

    Attributes:
        sources: Files of queries (txt, jsonl, csv, tsv, parquet), a folder of such files, the hub id of a dataset, or
            "-" for standard input.
        output: File to write (jsonl, csv or parquet, by its suffix), or folder for parts. The default is jsonl on
            standard output.
        prefix: Text to put before the names of the added columns.
        raw: Write the cells of a CSV file as they are. By default a text that a spreadsheet would compute as a formula
            (it begins with =, +, - or @, and is no number) gets an apostrophe before it.
        threads: Number of batches that are scored at the same time. The default is one for each CPU of the process.
    """

    HEADING: ClassVar[str] = OUTPUT

    sources: Annotated[list[str], Flag(is_argument=True, metavar="INPUT...")]
    output: Annotated[str | None, Flag(short="-o")] = None
    prefix: str = ""
    raw: bool = False
    threads: Annotated[int | None, Flag(least=1)] = None


@dataclass(frozen=True)
class Parts(Options):
    """Options of a job that writes a folder of parts.

    Attributes:
        keep: Write only these columns and the added ones. The default is all columns.
        where: Score only the rows for which this comparison holds, as in --where 'language == en'. Can be repeated.
        rows_per_part: Approximate number of rows in a part. A job that is killed and run again repeats at most one part
            of each worker.
        engine: Where to score: on this machine (local), or on the Ray cluster that $RAY_ADDRESS names.
        workers: Number of workers on the Ray cluster; each uses one CPU.
        dry_run: Estimate how long the job would take, and write nothing.
    """

    HEADING: ClassVar[str] = "Many files to a folder of parts"

    keep: Annotated[str | None, Flag(metavar="NAME,NAME")] = None
    where: Annotated[list[str] | None, Flag(metavar="COMPARISON")] = None
    rows_per_part: Annotated[int, Flag(least=1)] = ROWS_PER_PART
    engine: Literal["local", "ray"] = "local"
    workers: Annotated[int, Flag(least=1)] = 2
    dry_run: bool = False

    def given(self) -> list[str]:
        """The options that were given another value than their default."""
        changed = [item.name for item in fields(self) if getattr(self, item.name) != item.default]
        return [f"--{name.replace('_', '-')}" for name in changed]


@with_flags
def score_command(
    choice: RouterChoice,
    options: ScoreOptions,
    policy: PolicyChoice,
    reading: QueryReading,
    parts: Parts,
    overwrite: Overwrite,
) -> None:
    """Score files of queries: every row gets a score, the model that should answer, and what decided.

    One file is written to one file. Many files, or files larger than memory, are written to a folder of parquet parts:
    a command that was killed goes on where it ended when it is typed again. With --force, parts of another job in the
    folder are removed.

    Example: routelearn score router/ queries.txt -o scored.jsonl --strong-share 0.3

    Example: routelearn score router/ data/*.parquet -o scored/ --keep id --where 'language == en'
    """
    console = Console(stderr=True)
    check_raw(options.raw, options.output)
    router = choice.open(threads=options.threads)
    threshold = _threshold(router, policy.policy())
    if options.output is not None and _is_folder(options.output):
        batch = _batch(threshold, options, reading, parts)
        result = _score_to_folder(router, choice, options, batch, parts, overwrite.force)
        if result is not None:
            _report(console, router, result, in_parts=True)
            _report_share(console, choice, options, policy, reading, router, result)
        return
    if parts.given():
        raise InputError(
            f"{', '.join(parts.given())} given with -o {options.output}; expected a folder, as in -o scored/, "
            "because these options are about the parts in a folder"
        )
    if len(options.sources) != 1:
        raise InputError(
            f"{len(options.sources)} inputs for one output; expected a folder for the parts, as in -o scored/"
        )
    overwrite.check(options.output)
    bar, on_rows = _progress(console, None)
    with bar, on_interrupt("nothing was kept" if options.output is None else f"{options.output} was not written"):
        result = score_file(
            router,
            options.sources[0],
            options.output,
            threshold=threshold,
            columns=reading.column_names(),
            prefix=options.prefix,
            skip_bad=reading.skip_bad,
            raw=options.raw,
            options=reading.source(),
            on_rows=on_rows,
        )
    _report(console, router, result, in_parts=False)
    _report_share(console, choice, options, policy, reading, router, result)


def _batch(threshold: float, options: ScoreOptions, reading: QueryReading, parts: Parts) -> BatchOptions:
    return BatchOptions(
        threshold=threshold,
        columns=reading.column_names(),
        keep=None if parts.keep is None else tuple(filter(None, (name.strip() for name in parts.keep.split(",")))),
        where=tuple(parts.where or ()),
        prefix=options.prefix,
        skip_bad=reading.skip_bad,
        rows_per_part=parts.rows_per_part,
        encoding=reading.encoding,
        format=reading.format,
    )


def _score_to_folder(
    router: Router, choice: RouterChoice, options: ScoreOptions, batch: BatchOptions, parts: Parts, force: bool
) -> ScoringResult | None:
    """Score into a folder of parts; None after a dry run."""
    console, sources, folder = Console(stderr=True), options.sources, str(options.output)
    if parts.dry_run:
        console.print(_estimate(router, sources, batch), markup=False)
        return None
    if force:
        remove_other_job(folder, expand(sources), batch, _identity(router, choice.rules))
    identity = _identity(router, choice.rules)
    files = expand(sources)
    total = sum(parquet_shape(file)[1] for file in files) if all(map(is_parquet, files)) else None
    bar, on_rows = _progress(console, None if parts.where else total)
    with bar, on_interrupt(f"finished parts stay in {folder}, and the same command goes on from there"):
        if parts.engine == "ray":
            opened = partial(choice.open, threads=1)
            return score_with_ray(
                opened, files, folder, batch, identity=identity, workers=parts.workers, on_rows=on_rows
            )
        return score_folder(router, files, folder, batch, identity=identity, on_rows=on_rows)


def _is_folder(output: str) -> bool:
    path = Path(output)
    return output != STANDARD and (path.is_dir() or output.endswith("/") or not path.suffix)


def _identity(router: Router, rules: Path | None) -> str:
    """Text that differs between routers that decide differently: the bundles, the two models, the rules."""
    manifest = manifest_of(router)
    words = [RULES if manifest is None else manifest.digest(), router.strong, router.weak]
    if isinstance(router, FallbackRouter) and router.general is not None:
        words.append(router.general.manifest.digest())
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
        disable=not console.redraws,
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
    for cause, number in sorted(result.causes.items(), key=lambda item: -item[1]):
        console.print(f"{number:,} bad rows, {cause}", markup=False, highlight=False)


def _report_share(
    console: Console,
    choice: RouterChoice,
    options: ScoreOptions,
    policy: PolicyChoice,
    reading: QueryReading,
    router: Router,
    result: ScoringResult,
) -> None:
    """Say what a strong share that was asked for came to, and what to type where that is something else."""
    asked = policy.strong_share
    if asked is None or not result.rows:
        return
    got = result.to_strong / result.rows
    console.print(asked_and_got(asked, got, router.strong))
    if abs(got - asked) <= FAR_SHARE or choice.router == RULES:
        return
    command = ["routelearn", "calibrate", choice.router]
    if isinstance(router.learned, GeneralRouter):
        command += ["--strong", router.strong, "--weak", router.weak]
    for source in options.sources:
        command += ["--data", "QUERIES" if source == STANDARD else source]
    for pair in reading.columns or ():
        command += ["--map", pair]
    command += ["--strong-share", f"{asked:g}", "-o", "calibrated/"]
    console.print(
        "These queries are unlike those that the threshold was chosen on; to choose it on these, type:", soft_wrap=True
    )
    console.print(shlex.join(command), soft_wrap=True, highlight=False)
    own = "general" if isinstance(router.learned, GeneralRouter) else "learned"
    others = {source: count for source, count in sorted(result.sources.items()) if source != own}
    if sum(others.values()) > FAR_SHARE * result.rows:
        console.print(
            f"({sum(others.values()):,} of the rows were answered by {', '.join(others)}: no threshold changes those.)"
        )


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
