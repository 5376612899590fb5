"""`routelearn calibrate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..data.queries import read_queries
from ..data.readers import parse_source, read_all
from ..data.records import Record
from ..routers.bundle import check_replaceable
from ..routers.errors import InputError, require
from ..routers.learned import load
from .flags import with_flags
from .input_files import read_pool
from .options import DATA, OUTPUT, Bundle, Costs, LeakCheck, Reading, check_report_folder, table_console

if TYPE_CHECKING:
    from ..evaluation.thresholds.calibrate import ThresholdCalibration
    from ..evaluation.thresholds.report import ThresholdReport

#: Headings of `--help`.
AIM, BOUND = "What to aim at: give one", "Guaranteed quality"


@dataclass(frozen=True)
class Aim:
    """What the threshold is chosen for; exactly one is given."""

    strong_share: Annotated[
        float | None, typer.Option(help="Send this share of your queries to strong, from 0 to 1.", rich_help_panel=AIM)
    ] = None
    usd_per_thousand: Annotated[
        float | None,
        typer.Option(
            help="Spend at most this many USD on a thousand of your queries. Needs prices.", rich_help_panel=AIM
        ),
    ] = None
    max_quality_loss: Annotated[
        float | None,
        typer.Option(
            help="Lose at most this much quality against sending every query to strong, and spend as "
            "little as possible. Quality lies between 0 and 1: 0.02 is two points of a "
            "hundred. Needs records instead of queries.",
            rich_help_panel=AIM,
        ),
    ] = None

    def require_one(self) -> None:
        """Refuse none, or more than one.

        Raises:
            InputError: not exactly one was given.
        """
        aims = (self.strong_share, self.usd_per_thousand, self.max_quality_loss)
        given = sum(aim is not None for aim in aims)
        if given != 1:
            raise InputError(
                f"{given} aims were given; expected one: give one of --strong-share, --usd-per-thousand and "
                "--max-quality-loss"
            )


@dataclass(frozen=True)
class Bound:
    """How the loss of quality is bounded."""

    confidence: Annotated[
        float,
        typer.Option(
            help="Probability, between 0 and 1, that the bound on the loss of quality holds.", rich_help_panel=BOUND
        ),
    ] = 0.95
    method: Annotated[
        str,
        typer.Option(
            metavar="betting|clopper-pearson",
            help="How the bound is computed. betting suits all scores; clopper-pearson suits scores of 0 and 1 alone.",
            rich_help_panel=BOUND,
        ),
    ] = "betting"


@with_flags
def calibrate_command(
    router: Bundle,
    data: Annotated[
        list[str],
        typer.Option(
            metavar="FILE",
            help="Files or hub ids of your queries; with --max-quality-loss of records, which hold scores or "
            "preferences. Can be repeated.",
            rich_help_panel=DATA,
        ),
    ],
    reading: Reading,
    aim: Aim,
    bound: Bound,
    leaks: LeakCheck,
    costs: Costs,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the bundle to write.", rich_help_panel=OUTPUT)
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Replace the bundle itself.", rich_help_panel=OUTPUT)] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for the report: calibration.html and calibration.json.", rich_help_panel=OUTPUT),
    ] = None,
) -> None:
    """Choose a router's threshold on your own queries: by share of strong calls, by cost, or by guaranteed quality.

    Without --output and --write no bundle is written: the table shows what the threshold would do.

    Example: routelearn calibrate router/ --data queries.txt --strong-share 0.3 --write

    Example: routelearn calibrate router/ --data labels.parquet --train battles.parquet --max-quality-loss 0.02 -o new/
    """
    require("torch", "train")
    _refuse_without_effect(aim, bound, leaks, reading)
    target = _target(router, output, write, report)
    loaded = load(router)
    from ..evaluation.thresholds.calibrate import (
        calibrate_by_budget,
        calibrate_by_quality_loss,
        calibrate_by_strong_share,
    )

    console = Console(stderr=True)
    prices: dict[str, Any] = {"prices": read_pool(costs.pool), "output_tokens": costs.output_tokens}
    if aim.max_quality_loss is not None:
        records, notes = _labelled(data, reading, leaks, console)
        with console.status("testing thresholds"):
            calibrated = calibrate_by_quality_loss(
                loaded,
                records,
                aim.max_quality_loss,
                confidence=bound.confidence,
                method=bound.method,
                notes=notes,
                **prices,
            )
    else:
        with console.status("reading"):
            sources = [parse_source(source)[0] for source in data]
            queries = read_queries(sources, reading.options().columns, skip_bad=reading.skip_bad)
        if aim.strong_share is not None:
            calibrated = calibrate_by_strong_share(loaded, queries, aim.strong_share, **prices)
        else:
            calibrated = calibrate_by_budget(loaded, queries, aim.usd_per_thousand or 0.0, **prices)
    show(calibrated)
    _write(calibrated, router, target, report, console)


def _refuse_without_effect(aim: Aim, bound: Bound, leaks: LeakCheck, reading: Reading) -> None:
    """Refuse options that contradict each other, lack another option, or have no effect."""
    aim.require_one()
    if aim.max_quality_loss is not None:
        leaks.require_answer("calibrate")
        return
    ignored = [*leaks.given(), *reading.given_for_records()]
    ignored += [f"--{name}" for name in ("confidence", "method") if getattr(bound, name) != getattr(Bound, name)]
    if ignored:
        raise InputError(
            f"{', '.join(ignored)}: no effect without --max-quality-loss; the other aims read queries alone"
        )


def _target(router: Path, output: Path | None, write: bool, report: Path | None) -> Path | None:
    """The bundle to write, if any, after a check that it and the report can be written."""
    if output is not None and write:
        raise InputError("--output and --write were both given; expected one of them, not both")
    target = router if write else output
    if target is not None:
        check_replaceable(target)
    check_report_folder(report)
    return target


def _labelled(data: list[str], reading: Reading, leaks: LeakCheck, console: Console) -> tuple[list[Record], list[str]]:
    """The records that bound the loss, and what a reader of the result has to know about them."""
    with console.status("reading"):
        records = read_all(data, reading.options())
        training = leaks.training(reading)
    records, dropped = leaks.check(records, training, console)
    notes = ["the leak check was turned off"] if leaks.no_leak_check else []
    notes += [f"{dropped} prompts that stand in the training data were left out"] if dropped else []
    return records, notes


def _write(
    calibrated: ThresholdCalibration, router: Path, target: Path | None, report: Path | None, console: Console
) -> None:
    from ..evaluation.thresholds.calibrate import save_calibrated
    from ..evaluation.thresholds.report import write_calibration

    if report is not None:
        write_calibration(calibrated.report, report)
        console.print(f"wrote {report / 'calibration.html'} and {report / 'calibration.json'}", markup=False)
    if target is None:
        console.print("no bundle was written; to write one, give --output FOLDER or --write")
    else:
        save_calibrated(router, target, calibrated)
        console.print(f"wrote {target}: threshold {calibrated.threshold:.4f}", markup=False, highlight=False)


def show(calibrated: ThresholdCalibration) -> None:
    """Print what a calibration chose, and what that does."""
    console = table_console()
    console.print(_table(calibrated.report))
    if calibrated.threshold_table is not None:
        shares = ", ".join(f"{share:.0%}: {value:.4f}" for share, value in calibrated.threshold_table[::2])
        console.print(f"thresholds by strong share: {shares}", markup=False, highlight=False)
    from ..evaluation.thresholds.report import sentences

    for line in sentences(calibrated.report):
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
