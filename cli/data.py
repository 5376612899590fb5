"""`routelearn data`: look at data before training on it, convert it, or make some."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ..data.parser import KINDS, ReadOptions
from ..data.parser import Kind as TableKind
from ..data.readers import RecordSet, parse_source, read_records
from ..data.records import PreferenceRecord, Record
from ..data.sample import write_sample
from ..data.splits import deduplicate, find_leaks
from ..data.writers import write_records
from ..routers.errors import InputError
from .opening import parse_pairs

app = typer.Typer(
    no_args_is_help=True,
    help="Look at records, convert them, or make a sample.\n\nExample: routelearn data validate battles.parquet",
)

Map = Annotated[list[str] | None, typer.Option("--map", help="Their column for ours: --map prompt=question.")]
Alias = Annotated[list[str] | None, typer.Option(help="Rename a model: --alias THEIRS=OURS.")]
Kind = Annotated[str, typer.Option(help=f"What the table holds: auto, {', '.join(KINDS)}.")]
Models = Annotated[
    str | None, typer.Option(help="Read these models only, separated by commas: score columns, or values of model.")
]
Split = Annotated[str | None, typer.Option(help="Read only rows of this split (column split or split_hint).")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Skip bad rows; they are counted and listed.")]
TieShare = Annotated[
    float | None, typer.Option(help="Share of ties where a row says only that strong did not win; default: estimated.")
]

_SHOWN_BAD = 20


def read_options(
    columns: list[str] | None = None,
    aliases: list[str] | None = None,
    kind: str = "auto",
    models: str | None = None,
    split: str | None = None,
    *,
    tie_share: float | None = None,
    skip_bad: bool = False,
) -> ReadOptions:
    """The options of a command as `ReadOptions`.

    Raises:
        InputError: an option cannot be read.
    """
    known: TableKind | None = next((name for name in KINDS if name == kind), None)
    if known is None and kind != "auto":
        raise InputError(f"--kind {kind!r}; expected auto, {', '.join(KINDS)}")
    return ReadOptions(
        kind=known,
        columns=parse_pairs(columns or [], "--map"),
        aliases=parse_pairs(aliases or [], "--alias"),
        models=tuple(name.strip() for name in models.split(",")) if models else None,
        split=split,
        tie_share=tie_share,
        skip_bad=skip_bad,
    )


@app.command()
def validate(
    files: Annotated[list[str], typer.Argument(help="Files or hub ids.")],
    against: Annotated[str | None, typer.Option(help="Check for prompts that also stand in this file.")] = None,
    columns: Map = None,
    alias: Alias = None,
    kind: Kind = "auto",
    models: Models = None,
    split: Split = None,
    tie_share: TieShare = None,
    skip_bad: SkipBad = False,
) -> None:
    """Read every row and say what is there; a bad row is named with its file, row and column.

    Example: routelearn data validate battles.parquet --map prompt=question --against eval.jsonl
    """
    console = Console()
    options = read_options(columns, alias, kind, models, split, tie_share=tie_share, skip_bad=skip_bad)
    records: list[Record] = []
    for file in files:
        result = _read(parse_source(file)[0], options)
        records += result.records
        _describe(console, result)
    if against is not None:
        leaks = find_leaks(records, _read(against, options).records)
        console.print(f"{len(leaks)} prompts of {against} also stand in the data above")
        for leak in leaks[:5]:
            console.print(f"  similarity {leak.similarity:.2f}: {leak.prompt[:100]!r}", markup=False)
        if leaks:
            raise InputError(f"{len(leaks)} leaked prompts; remove them, or split by prompt")


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.")],
    queries: Annotated[int, typer.Option(min=20, max=1_000_000, help="Number of queries.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="One seed gives one sample.")] = 0,
) -> None:
    """Write the synthetic sample: performance and preference records of four imaginary models.

    Example: routelearn data sample sample/ --queries 4000 --seed 0
    """
    console = Console(stderr=True)
    with console.status("simulating"):
        paths = write_sample(folder, queries, seed)
    for path in paths:
        console.print(f"wrote {path}", markup=False)


@app.command()
def convert(
    sources: Annotated[list[str], typer.Argument(help="Files or hub ids to read, then the file to write.")],
    columns: Map = None,
    alias: Alias = None,
    kind: Kind = "auto",
    models: Models = None,
    split: Split = None,
    tie_share: TieShare = None,
    skip_bad: SkipBad = False,
    dedupe: Annotated[bool, typer.Option("--dedupe", help="Drop records that repeat another.")] = False,
) -> None:
    """Write any readable tables as one long table: parquet, jsonl or csv, by the suffix.

    Example: routelearn data convert wide.csv more.jsonl records.parquet --dedupe
    """
    if len(sources) < 2:
        raise InputError("convert needs at least one file to read and one to write")
    *inputs, output = sources
    console = Console(stderr=True)
    options = read_options(columns, alias, kind, models, split, tie_share=tie_share, skip_bad=skip_bad)
    records: list[Record] = []
    for source in track(inputs, "reading", console=console):
        result = _read(source, options)
        records += result.records
        _list_bad(console, result)
    dropped = 0
    if dedupe:
        records, dropped = deduplicate(records)
    write_records(records, output)
    console.print(f"wrote {len(records)} records to {output} ({dropped} repeated ones dropped)", markup=False)


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
    _list_bad(console, result)


def _list_bad(console: Console, result: RecordSet) -> None:
    for error in result.bad[:_SHOWN_BAD]:
        console.print(f"skipped: {error}", markup=False, highlight=False)
    if len(result.bad) > _SHOWN_BAD:
        console.print(f"... and {len(result.bad) - _SHOWN_BAD} more", markup=False)
