"""`routelearn calibrate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from rich.table import Table

from ..data.queries import read_queries
from ..data.readers import parse_source
from ..data.records import Record
from ..routers.bundle import check_replaceable
from ..routers.errors import DataError, InputError
from ..routers.shipped import shipped_or_path
from ..training.libraries import require_training
from .flags import Flag, Options, with_flags
from .input_files import read_pool
from .options import DATA, OUTPUT, Costs, LeakCheck, Reading, asked_and_got, check_report_folder, table_console
from .outputs import Overwrite
from .reading import bad_rows, read_listed, say
from .router_options import RULES, RulesModels
from .terminal import Console

if TYPE_CHECKING:
    from ..evaluation.thresholds.calibrate import ThresholdCalibration
    from ..evaluation.thresholds.report import ThresholdReport


@dataclass(frozen=True)
class Aim(Options):
    """What the threshold is chosen for; exactly one is given.

    Attributes:
        strong_share: Send this share of your queries to strong, from 0 to 1.
        usd_per_thousand: Spend at most this many USD per thousand of your queries. Needs prices.
        max_quality_loss: Largest loss of quality compared with sending every query to strong; the cheapest threshold
            within it is chosen. Quality lies between 0 and 1, so 0.02 is two percentage points. Needs records instead
            of queries.
    """

    HEADING: ClassVar[str] = "What to aim at: give one"

    strong_share: float | None = None
    usd_per_thousand: float | None = None
    max_quality_loss: float | None = None

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
class Bound(Options):
    """How the loss of quality is bounded.

    Attributes:
        confidence: Probability, between 0 and 1, that the bound on the loss of quality holds.
        method: How the bound is computed. betting suits all scores; clopper-pearson suits only scores of 0 and 1.
    """

    HEADING: ClassVar[str] = "Guaranteed quality"

    confidence: float = 0.95
    method: Annotated[str, Flag(metavar="betting|clopper-pearson")] = "betting"


@dataclass(frozen=True)
class CalibrateOptions(Options):
    """What to read and to write.

    Attributes:
        router: Folder of a router's bundle, the word "general" (the router that comes with routelearn), or the word
            "rules".
        data: Files or hub ids of your queries. With --max-quality-loss they must be records with scores or preferences.
            Can be repeated.
        output: Folder of the bundle to write.
        write: Replace the bundle itself.
        report: Folder for the report: calibration.html and calibration.json.
    """

    HEADING: ClassVar[str] = OUTPUT

    router: Annotated[str, Flag(is_argument=True)]
    data: Annotated[list[str], Flag(metavar="FILE", panel=DATA)]
    output: Annotated[Path | None, Flag(short="-o")] = None
    write: bool = False
    report: Path | None = None

    def target(self, overwrite: Overwrite) -> Path | None:
        """The bundle to write, if any, after a check that it and the report can be written.

        Raises:
            InputError: two bundles are to be written, or none can be, or something is in the place of the bundle or the
                report.
        """
        if self.router == RULES and (self.write or self.output is not None):
            raise InputError(
                f"{'--write' if self.write else '--output'}: the router {RULES!r} has no bundle to write; write the "
                "threshold that is shown into your file of rules"
            )
        if self.output is not None and self.write:
            raise InputError("--output and --write were both given; expected one of them, not both")
        if self.write and shipped_or_path(self.router) != self.router:
            raise InputError(
                f"--write: {self.router!r} comes with routelearn and is not replaced; expected --output FOLDER, for a "
                "bundle of your own"
            )
        target = Path(self.router) if self.write else self.output
        from ..evaluation.thresholds.report import HTML, JSON

        if target is not None:
            check_replaceable(target)
        check_report_folder(self.report)
        overwrite.check(self.output, *([self.report / HTML, self.report / JSON] if self.report else []))
        return target


@with_flags
def calibrate_command(
    options: CalibrateOptions,
    reading: Reading,
    aim: Aim,
    bound: Bound,
    leaks: LeakCheck,
    costs: Costs,
    models: RulesModels,
    overwrite: Overwrite,
) -> None:
    """Choose a router's threshold on your own queries: by share of strong calls, by cost, or by guaranteed quality.

    Without --output and --write no bundle is written: the table shows what the threshold would do.

    Example: routelearn calibrate router/ --data queries.txt --strong-share 0.3 --write

    Example: routelearn calibrate router/ --data labels.parquet --train battles.parquet --max-quality-loss 0.02 -o new/
    """
    require_training()
    _refuse_without_effect(aim, bound, leaks, reading)
    target = options.target(overwrite)
    loaded = models.open(options.router)
    from ..evaluation.thresholds.calibrate import (
        calibrate_by_budget,
        calibrate_by_quality_loss,
        calibrate_by_strong_share,
    )

    console = Console(stderr=True)
    prices: dict[str, Any] = {"prices": read_pool(costs.pool), "output_tokens": costs.output_tokens}
    if aim.max_quality_loss is not None:
        records, notes = _labelled(options.data, reading, leaks, console)
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
            sources = [parse_source(source)[0] for source in options.data]
            bad: list[DataError] = []
            on_bad = bad.append if reading.skip_bad else None
            queries = read_queries(sources, reading.column_names(), on_bad=on_bad, options=reading.source())
        say(console, bad_rows(bad))
        if aim.strong_share is not None:
            calibrated = calibrate_by_strong_share(loaded, queries, aim.strong_share, **prices)
        else:
            calibrated = calibrate_by_budget(loaded, queries, aim.usd_per_thousand or 0.0, **prices)
    show(calibrated)
    if aim.strong_share is not None:
        got = calibrated.report.chosen.strong_share
        console.print(asked_and_got(aim.strong_share, got, calibrated.report.strong))
    _write(calibrated, options.router, target, options.report, console)


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
            f"{', '.join(ignored)}: no effect without --max-quality-loss, because the other aims read only queries"
        )


def _labelled(data: list[str], reading: Reading, leaks: LeakCheck, console: Console) -> tuple[list[Record], list[str]]:
    """The records that bound the loss, and what a reader of the result has to know about them."""
    with console.status("reading"):
        records = read_listed(console, data, reading.options())
        training = leaks.training(reading)
    records, dropped = leaks.check(records, training, console)
    notes = ["the leak check was turned off"] if leaks.no_leak_check else []
    notes += [f"{dropped} prompts that stand in the training data were left out"] if dropped else []
    return records, notes


def _write(
    calibrated: ThresholdCalibration, router: str, target: Path | None, report: Path | None, console: Console
) -> None:
    from ..evaluation.thresholds.calibrate import save_calibrated
    from ..evaluation.thresholds.report import write_calibration

    if report is not None:
        write_calibration(calibrated.report, report)
        console.print(f"wrote {report / 'calibration.html'} and {report / 'calibration.json'}", markup=False)
    if router == RULES:
        line = f"threshold = {float(calibrated.threshold)!r}"
        console.print(f"to use this threshold, write this into your file of rules: {line}", soft_wrap=True)
    elif target is None:
        shipped = shipped_or_path(router) != router
        console.print(f"no bundle was written; to write one, give --output FOLDER{'' if shipped else ' or --write'}")
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
