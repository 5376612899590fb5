"""`routelearn evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..routers.base import Router
from ..routers.errors import InputError
from ..routers.general import GeneralRouter
from ..routers.loading import load
from ..training.libraries import require_training
from .flags import Flag, Options, with_flags
from .input_files import read_pool
from .options import DATA, OUTPUT, POOL, Costs, LeakCheck, Reading, check_report_folder, table_console
from .outputs import Overwrite
from .reading import read_listed
from .router_options import RULES, open_rules
from .terminal import Console

if TYPE_CHECKING:
    from ..evaluation.results import Report, Result

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


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """What to measure.

    Attributes:
        routers: Folders of the bundles to compare, the word "general" (the router that comes with routelearn), or the
            word "rules".
        data: Files or hub ids of test records. Can be repeated.
        strong: The strong model. The default is the strong model of the first bundle that names one.
        weak: The weak model. The default is the weak model of the first bundle that names one.
        rules: TOML file of rules for the router "rules". The default is the built-in rules.
        first_turn: Route each chat by its first user turn, and count the scores of all its turns, as is usual for
            MT-Bench.
        bootstrap: Number of bootstrap resamples for the 95 % intervals.
        seed: Random seed: the same seed gives the same figures.
        output: Folder for the report: report.html and report.json.
    """

    routers: Annotated[list[str], Flag(is_argument=True)]
    data: Annotated[list[str], Flag(metavar="FILE", panel=DATA)]
    strong: Annotated[str | None, Flag(panel=POOL)] = None
    weak: Annotated[str | None, Flag(panel=POOL)] = None
    rules: Annotated[Path | None, Flag(panel=POOL)] = None
    first_turn: bool = False
    bootstrap: Annotated[int, Flag(least=2, panel="Intervals")] = 1000
    seed: Annotated[int, Flag(panel="Intervals")] = 0
    output: Annotated[Path | None, Flag(short="-o", panel=OUTPUT)] = None


@with_flags
def evaluate_command(
    options: EvaluateOptions, reading: Reading, leaks: LeakCheck, costs: Costs, overwrite: Overwrite
) -> None:
    """Measure routers on records that they were not trained on, beside the simple routers that they must beat.

    Give the training files as well: evaluate checks that no prompt is in both, and trains the simple routers on them
    (nearest neighbours, clusters, best model of each task). Every figure has a 95 % interval.

    Example: routelearn evaluate router/ --data test.parquet --train battles.parquet -o report/
    """
    require_training()
    from ..evaluation.conclusion import conclusions
    from ..evaluation.evaluate import evaluate
    from ..evaluation.report import HTML, JSON, write_report

    leaks.require_answer("evaluate")
    check_report_folder(options.output)
    if options.output is not None:
        overwrite.check(options.output / HTML, options.output / JSON)
    routers = _by_name(options)
    console = Console(stderr=True)
    with console.status("reading"):
        records = read_listed(console, options.data, reading.options())
        training = leaks.training(reading)
    records, dropped = leaks.check(records, training, console)
    if dropped:
        console.print(f"left out {dropped} prompts that stand in the training data")
    columns_of_bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns_of_bar, console=console, disable=not console.redraws, transient=True) as progress:
        bar = progress.add_task("bootstrap", total=options.bootstrap)
        report = evaluate(
            routers,
            records,
            training=training,
            strong=options.strong,
            weak=options.weak,
            prices=read_pool(costs.pool),
            output_tokens=costs.output_tokens,
            first_turn=options.first_turn,
            bootstrap=options.bootstrap,
            seed=options.seed,
            on_step=lambda: progress.advance(bar),
        )
    if leaks.no_leak_check:
        report.notes.append("the leak check was turned off")
    show(report)
    if options.output is not None:
        write_report(report, options.output)
        console.print(f"wrote {options.output / 'report.html'} and {options.output / 'report.json'}", markup=False)
    for line in conclusions(report):
        table_console().print(line, highlight=False, soft_wrap=True)


def _by_name(options: EvaluateOptions) -> dict[str, Router]:
    """Routers by the name of their folder; by their whole path where two folders have the same name."""
    if options.rules is not None and RULES not in options.routers:
        raise InputError(f"--rules: no effect without the router {RULES!r}; expected it among the routers")
    bundles = [path for path in options.routers if path != RULES]
    names = [Path(path).resolve().name for path in bundles]
    routers: dict[str, Router] = {}
    for name, path in zip(names, bundles, strict=True):
        routers[name if names.count(name) == 1 and name != RULES else path] = load(path)
    first = next((router for router in routers.values() if not isinstance(router, GeneralRouter)), None)
    strong = options.strong or (first.strong if first else None)
    weak = options.weak or (first.weak if first else None)
    for name, router in routers.items():
        if isinstance(router, GeneralRouter):
            routers[name] = router.placed(strong=strong, weak=weak)
    if RULES in options.routers:
        general = next(iter(routers.values()), None)
        if general is not None:
            strong, weak = general.strong, general.weak
        routers[RULES] = open_rules(strong, weak, options.rules)
    return routers


def show(report: Report) -> None:
    """Print a report's tables."""
    from ..evaluation.report import sentences
    from ..training.fit.metrics import APGR_IN_WORDS

    console = table_console()
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
        for row in report.pool.results:
            pooled.add_row(
                row.router,
                f"{row.aiq:.4f}",
                _interval(row.aiq_interval),
                "" if row.difference is None else f"{row.difference:+.4f}",
                _interval(row.difference_interval),
            )
        console.print(pooled)
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
