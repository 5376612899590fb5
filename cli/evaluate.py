"""`routelearn evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..data.readers import read_all
from ..data.splits import without_leaks
from ..evaluation.results import Report, Result
from ..routers.base import Router
from ..routers.errors import InputError, require
from ..training.fit.metrics import APGR_IN_WORDS
from .data import Alias, Kind, Map, Models, SkipBad, Split, TieShare, read_options
from .settings import read_pool

_SHOWN = (
    ("apgr", "APGR"),
    ("cpt50", "CPT(50)"),
    ("cpt80", "CPT(80)"),
    ("cpt95", "CPT(95)"),
    ("auroc", "AUROC"),
    ("ece", "ECE"),
    ("share99", "at 99 %"),
    ("log_loss", "log loss"),
)


def evaluate_command(
    routers: Annotated[list[str], typer.Argument(help="Bundles to compare.")],
    data: Annotated[list[str], typer.Option(help="Evaluation files or hub ids, repeatable.")],
    train: Annotated[
        list[str] | None,
        typer.Option(
            help="The training files: for the leak check, and for the baselines that learn (kNN, k-means, by task)."
        ),
    ] = None,
    no_leak_check: Annotated[
        bool, typer.Option("--no-leak-check", help="Evaluate without knowing the training files; the report says so.")
    ] = False,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="Leave leaked prompts out, and say how many, instead of refusing.")
    ] = False,
    strong: Annotated[str | None, typer.Option(help="The strong model; default: the first bundle's.")] = None,
    weak: Annotated[str | None, typer.Option(help="The weak model; default: the first bundle's.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for report.json and report.html.")
    ] = None,
    pool: Annotated[
        Path | None, typer.Option(help="JSON or TOML with prices; default: those in the first bundle.")
    ] = None,
    output_tokens: Annotated[int, typer.Option(min=1, help="Assumed length of an answer, for costs.")] = 300,
    first_turn: Annotated[
        bool, typer.Option("--first-turn", help="Route on the first user turn; every turn counts (MT-Bench).")
    ] = False,
    bootstrap: Annotated[int, typer.Option(min=2, help="Resamples of the 95 % intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and the random baseline.")] = 0,
    columns: Map = None,
    alias: Alias = None,
    kind: Kind = "auto",
    models: Models = None,
    split: Split = None,
    tie_share: TieShare = None,
    skip_bad: SkipBad = False,
) -> None:
    """Measure exported routers beside the baselines that they must beat, with 95 % bootstrap intervals.

    Example: routelearn evaluate router/ --data test.parquet --train battles.parquet -o report/
    """
    require("scipy", "train")
    from ..evaluation.evaluate import evaluate
    from ..evaluation.report import write_report
    from ..routers.learned import load

    loaded = _by_name(routers, load)
    console = Console(stderr=True)
    if not train and not no_leak_check:
        raise InputError(
            "evaluate checks that no evaluation prompt was trained on: give the training files with --train, "
            "or --no-leak-check"
        )
    if output is not None and output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; expected a folder for the report")
    with console.status("reading"):
        records = read_all(
            data, read_options(columns, alias, kind, models, split, tie_share=tie_share, skip_bad=skip_bad)
        )
        training = read_all(train or [], read_options(columns, alias, kind, models))
    trained_on = [record for record in training if record.split != "test"]
    if train and not no_leak_check:
        with console.status("checking for leaks"):
            records, dropped = without_leaks(records, trained_on, drop=drop_leaks)
        if dropped:
            console.print(f"left out {dropped} prompts that stand in the training data")
    columns_of_bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns_of_bar, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("bootstrap", total=bootstrap)
        report = evaluate(
            loaded,
            records,
            training=trained_on,
            strong=strong,
            weak=weak,
            prices=read_pool(pool),
            output_tokens=output_tokens,
            first_turn=first_turn,
            bootstrap=bootstrap,
            seed=seed,
            on_step=lambda: progress.advance(bar),
        )
    if no_leak_check:
        report.notes.append("the leak check was turned off")
    show(report)
    if output is not None:
        write_report(report, output)
        console.print(f"wrote {output / 'report.html'} and {output / 'report.json'}", markup=False)


def _by_name(paths: list[str], load: object) -> dict[str, Router]:
    """Routers by the name of their folder; by their whole path where two folders are called alike."""
    names = [Path(path).resolve().name for path in paths]
    return {
        (name if names.count(name) == 1 else path): load(path)  # type: ignore[operator]
        for name, path in zip(names, paths, strict=True)
    }


def show(report: Report) -> None:
    """Print a report's tables."""
    console = Console() if Console().is_terminal else Console(width=150)
    title = f"{report.strong} over {report.weak}: {report.queries} queries, {report.preferences} preferences"
    table = Table(title=title, title_justify="left")
    used = [column for column in _SHOWN if any(column[0] in result.values for result in report.results)]
    table.add_column("router")
    for key, heading in used:
        table.add_column(heading, justify="right")
        if key in {"apgr", "log_loss"}:
            table.add_column("95 % interval", justify="right")
    for result in report.results:
        if "strong_share" not in result.values:
            table.add_row(
                result.router, *_cells(result, used), style={"router": "bold", "bound": "dim"}.get(result.role)
            )
    if any("apgr" in result.values for result in report.results):
        console.print(APGR_IN_WORDS, highlight=False)
    console.print(table)
    if report.pool is not None:
        pooled = Table(title=f"the pool of {len(report.pool.singles)} models", title_justify="left")
        for heading in ("router", "AIQ", "95 % interval", "minus kNN's", "95 % interval"):
            pooled.add_column(heading, justify="left" if heading == "router" else "right")
        for found in report.pool.results:
            pooled.add_row(
                found.router,
                f"{found.aiq:.4f}",
                _interval(found.aiq_interval),
                "" if found.difference is None else f"{found.difference:+.4f}",
                _interval(found.difference_interval),
            )
        console.print(pooled)
    from ..evaluation.report import sentences

    for line in sentences(report):
        console.print(line, markup=False, highlight=False)


def _cells(result: Result, used: list[tuple[str, str]]) -> list[str]:
    cells = []
    for key, _ in used:
        value = result.values.get(key)
        cells.append("" if value is None or value != value else f"{value:.4f}")  # noqa: PLR0124 - NaN
        if key in {"apgr", "log_loss"}:
            cells.append(_interval(result.intervals.get(key)))
    return cells


def _interval(value: tuple[float, float] | None) -> str:
    return "" if value is None else f"{value[0]:.4f} to {value[1]:.4f}"
