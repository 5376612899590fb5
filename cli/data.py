"""`routelearn data`: look at data before training on it, convert it, or make some."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track
from rich.table import Table

from ..data.parser import ReadOptions
from ..data.readers import RecordSet, parse_source, read_records
from ..data.records import PreferenceRecord, Record
from ..data.sample import FILES as SAMPLE_FILES
from ..data.sample import write_sample
from ..data.splits import deduplicate, find_leaks
from ..data.writers import write_records
from ..routers.errors import DataError, InputError
from .flags import Flag, Options, with_flags
from .from_log import from_log_command
from .options import Reading
from .outputs import Overwrite, check_raw
from .possibilities import overview, possibilities, unlabelled
from .reading import bad_rows, columns_left_out, say
from .terminal import Console, on_interrupt

app = typer.Typer(
    no_args_is_help=True,
    help="Look at records before training on them, convert them, or make a sample to try things on.\n\n"
    "Example: routelearn data validate battles.parquet",
)


@dataclass(frozen=True)
class ValidateOptions(Options):
    """What to check.

    Attributes:
        files: Files or hub ids of records.
        against: Evaluation records. The command fails if a prompt of this file is also in FILES.
    """

    files: Annotated[list[str], Flag(is_argument=True)]
    against: Annotated[str | None, Flag(metavar="FILE")] = None


@app.command()
@with_flags
def validate(options: ValidateOptions, reading: Reading) -> None:
    """Read every row of your data, and report what it holds. An error names the file, row and column.

    Example: routelearn data validate battles.parquet --map prompt=question --against eval.jsonl
    """
    console = Console()
    records: list[Record] = []
    for file in options.files:
        source = parse_source(file)[0]
        say(console, overview(source, reading.options()))
        try:
            result = _read(source, reading.options())
        except DataError as error:
            say(console, unlabelled(error))
            raise
        records += result.records
        _describe(console, result)
    say(console, possibilities(records))
    if options.against is not None:
        leaks = find_leaks(records, _read(options.against, reading.options()).records)
        console.print(f"{len(leaks)} prompts of {options.against} are also in the data above")
        for leak in leaks[:5]:
            console.print(f"  similarity {leak.similarity:.2f}: {leak.prompt[:100]!r}", markup=False)
        if leaks:
            raise InputError(
                f"{len(leaks)} prompts of {options.against} are in the data above as well; remove them, or split "
                "by prompt"
            )


@dataclass(frozen=True)
class SampleOptions(Options):
    """What to make.

    Attributes:
        folder: Folder to write to.
        queries: Number of queries.
        seed: The same seed gives the same sample.
    """

    folder: Annotated[Path, Flag(is_argument=True)]
    queries: Annotated[int, Flag(least=20, most=1_000_000)] = 4000
    seed: Annotated[int, Flag(least=0)] = 0


@app.command()
@with_flags
def sample(options: SampleOptions, overwrite: Overwrite) -> None:
    """Make data to try routelearn on: performance and preference records of four imaginary models, and their prices.

    Example: routelearn data sample sample/ --queries 4000 --seed 0
    """
    overwrite.check(*(options.folder / name for name in SAMPLE_FILES))
    console = Console(stderr=True)
    kept = f"some files in {options.folder} may be missing; with --force, the same command writes all of them"
    with console.status("simulating"), on_interrupt(kept):
        paths = write_sample(options.folder, options.queries, options.seed)
    for path in paths:
        console.print(f"wrote {path}", markup=False)


@dataclass(frozen=True)
class ConvertOptions(Options):
    """What to convert.

    Attributes:
        sources: Files or hub ids to read; the last is the file to write.
        dedupe: Drop records that repeat another record.
        raw: Write the cells of a CSV file as they are. By default a text that a spreadsheet would compute as a formula
            (it begins with =, +, - or @, and is no number) gets an apostrophe before it.
    """

    sources: Annotated[list[str], Flag(is_argument=True, metavar="INPUT... OUTPUT")]
    dedupe: bool = False
    raw: bool = False


@app.command()
@with_flags
def convert(options: ConvertOptions, reading: Reading, overwrite: Overwrite) -> None:
    """Convert tables of any readable format to one table with one record per row: parquet, jsonl or csv.

    Example: routelearn data convert wide.csv more.jsonl records.parquet --dedupe
    """
    *inputs, output = options.sources
    if not inputs:
        raise InputError(f"convert was given {output!r} alone; expected a file to read and a file to write")
    check_raw(options.raw, output)
    overwrite.check(output)
    console = Console(stderr=True)
    records: list[Record] = []
    for source in track(inputs, "reading", console=console, disable=not console.redraws):
        result = _read(source, reading.options())
        records += result.records
        say(console, columns_left_out(result))
        say(console, bad_rows(result.bad))
    dropped = 0
    if options.dedupe:
        records, dropped = deduplicate(records)
    write_records(records, output, raw=options.raw)
    console.print(f"wrote {len(records)} records to {output} ({dropped} repeated ones dropped)", markup=False)


app.command("from-log")(from_log_command)


def _read(source: str, options: ReadOptions) -> RecordSet:
    console = Console(stderr=True)
    with console.status(f"reading {source}") as status:
        return read_records(source, options, on_row=lambda rows: status.update(f"reading {source}: {rows:,} rows"))


def _describe(console: Console, result: RecordSet) -> None:
    records = result.records
    table = Table(title=result.source, title_justify="left", show_header=False)
    _, repeated = deduplicate(records)
    models = Counter(name for record in records for name in record.models)
    table.add_row("kind", result.kind)
    table.add_row("rows", f"{result.rows:,}")
    table.add_row("records", f"{len(records):,}")
    table.add_row("distinct queries", f"{len({id(record.query) for record in records}):,}")
    table.add_row("repeated records", f"{repeated:,}")
    table.add_row("models", f"{len(models)}: " + ", ".join(f"{name} ({n:,})" for name, n in models.most_common(8)))
    labels = [record.preference if isinstance(record, PreferenceRecord) else record.score for record in records]
    if labels:
        ties = sum(label == 0.5 for label in labels)
        shares = (
            f"1: {labels.count(1.0):,}, 0.5: {ties:,}, 0: {labels.count(0.0):,}, mean {sum(labels) / len(labels):.3f}"
        )
        table.add_row("labels", shares)
    if result.censored and result.tie_share is not None:
        table.add_row("did not win", f"{result.censored:,} rows, {result.tie_share:.1%} of them taken for ties")
    splits = Counter(record.split or "-" for record in records)
    table.add_row("splits", ", ".join(f"{name}: {n:,}" for name, n in sorted(splits.items())))
    table.add_row("bad rows", f"{len(result.bad):,}")
    console.print(table)
    say(console, columns_left_out(result))
    say(console, bad_rows(result.bad))
