"""`routelearn calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..data.queries import read_queries
from ..data.readers import parse_source, read_all
from ..data.splits import without_leaks
from ..routers.bundle import check_replaceable
from ..routers.errors import InputError, require
from .data import Alias, Kind, Map, Models, SkipBad, Split, read_options
from .opening import parse_pairs
from .settings import read_pool

if TYPE_CHECKING:
    from ..evaluation.thresholds.calibrate import ThresholdCalibration
    from ..evaluation.thresholds.report import ThresholdReport


def calibrate_command(
    router: Annotated[Path, typer.Argument(help="A router's bundle.")],
    data: Annotated[
        list[str], typer.Option(help="Your queries; labelled for --max-quality-loss. Files or hub ids, repeatable.")
    ],
    strong_share: Annotated[float | None, typer.Option(help="Send this share of your queries to strong.")] = None,
    usd_per_thousand: Annotated[
        float | None, typer.Option(help="Spend at most so much on a thousand of your queries; needs prices.")
    ] = None,
    max_quality_loss: Annotated[
        float | None, typer.Option(help="Lose at most this against always-strong, at the least cost; needs labels.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of the bound on the loss.")] = 0.95,
    method: Annotated[
        str, typer.Option(help="Of the bound: betting, or clopper-pearson for losses of 0 and 1.")
    ] = "betting",
    train: Annotated[
        list[str] | None, typer.Option(help="The training files: refuses labels of prompts that stand there.")
    ] = None,
    no_leak_check: Annotated[
        bool, typer.Option("--no-leak-check", help="Calibrate without knowing the training files; the output says so.")
    ] = False,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="Leave leaked prompts out, and say how many, instead of refusing.")
    ] = False,
    pool: Annotated[Path | None, typer.Option(help="JSON or TOML with prices; default: those in the bundle.")] = None,
    output_tokens: Annotated[int, typer.Option(min=1, help="Assumed length of an answer, for costs.")] = 300,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A bundle to write.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the bundle itself anew.")] = False,
    report: Annotated[Path | None, typer.Option(help="Folder for calibration.json and calibration.html.")] = None,
    columns: Map = None,
    alias: Alias = None,
    kind: Kind = "auto",
    models: Models = None,
    split: Split = None,
    skip_bad: SkipBad = False,
) -> None:
    """Choose a bundle's threshold on your queries: by strong share, by cost, or with a bounded loss of quality.

    Without -o or --write no bundle is written: the table says what the threshold would do.

    Example: routelearn calibrate router/ --data labels.parquet --train battles.parquet --max-quality-loss 0.02 --write
    """
    require("torch", "train")
    from ..routers.learned import load

    aims = (strong_share, usd_per_thousand, max_quality_loss)
    if sum(aim is not None for aim in aims) != 1:
        raise InputError("give one of --strong-share, --usd-per-thousand and --max-quality-loss")
    if output is not None and write:
        raise InputError("give -o or --write, not both")
    if max_quality_loss is not None and not train and not no_leak_check:
        raise InputError(
            "calibrate checks that no labelled prompt was trained on: give the training files with --train, "
            "or --no-leak-check"
        )
    target = router if write else output
    if target is not None:
        check_replaceable(target)
    if report is not None and report.exists() and not report.is_dir():
        raise InputError(f"{report} is a file; expected a folder for the report")
    loaded = load(router)
    from ..evaluation.thresholds.calibrate import (
        calibrate_by_budget,
        calibrate_by_quality_loss,
        calibrate_by_strong_share,
    )

    console = Console(stderr=True)
    costs = {"prices": read_pool(pool), "output_tokens": output_tokens}
    found: ThresholdCalibration
    if max_quality_loss is not None:
        notes = ["the leak check was turned off"] if no_leak_check else []
        with console.status("reading"):
            records = read_all(data, read_options(columns, alias, kind, models, split, skip_bad=skip_bad))
            training = read_all(train or [], read_options(columns, alias, kind, models))
        if train and not no_leak_check:
            with console.status("checking for leaks"):
                trained_on = [record for record in training if record.split != "test"]
                records, dropped = without_leaks(records, trained_on, drop=drop_leaks)
            notes += [f"{dropped} prompts that stand in the training data were left out"] if dropped else []
        with console.status("testing thresholds"):
            found = calibrate_by_quality_loss(
                loaded, records, max_quality_loss, confidence=confidence, method=method, notes=notes, **costs
            )
    else:
        with console.status("reading"):
            sources = [parse_source(source)[0] for source in data]
            queries = read_queries(sources, parse_pairs(columns or [], "--map"), skip_bad=skip_bad)
        if strong_share is not None:
            found = calibrate_by_strong_share(loaded, queries, strong_share, **costs)
        else:
            found = calibrate_by_budget(loaded, queries, usd_per_thousand or 0.0, **costs)
    show(found)
    _write(found, router, target, report, console)


def _write(
    found: ThresholdCalibration, router: Path, target: Path | None, report: Path | None, console: Console
) -> None:
    from ..evaluation.thresholds.calibrate import save_calibrated
    from ..evaluation.thresholds.report import write_calibration

    if report is not None:
        write_calibration(found.report, report)
        console.print(f"wrote {report / 'calibration.html'} and {report / 'calibration.json'}", markup=False)
    if target is None:
        console.print("no bundle was written: give -o NEW, or --write")
    else:
        save_calibrated(router, target, found)
        console.print(f"wrote {target}: threshold {found.threshold:.4f}", markup=False, highlight=False)


def show(found: ThresholdCalibration) -> None:
    """Print what a calibration found."""
    console = Console() if Console().is_terminal else Console(width=150)
    console.print(_table(found.report))
    if found.threshold_table is not None:
        shares = ", ".join(f"{share:.0%}: {value:.4f}" for share, value in found.threshold_table[::2])
        console.print(f"thresholds by strong share: {shares}", markup=False, highlight=False)
    from ..evaluation.thresholds.report import sentences

    for line in sentences(found.report):
        console.print(line, markup=False, highlight=False)


def _table(report: ThresholdReport) -> Table:
    from ..evaluation.thresholds.report import cells, headings

    title = f"{report.strong} over {report.weak}: {report.queries:,} queries, threshold {report.chosen.threshold:.4f}"
    table = Table(title=title, title_justify="left")
    for heading in headings(report):
        table.add_column(heading, justify="right")
    for row in report.rows:
        table.add_row(*cells(row), style="bold" if row.chosen else None)
    return table
