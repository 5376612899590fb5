"""`routelearn cascade-plan`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from rich.table import Table

from ..cascade.verifier import load_verifier
from ..data.records import Record
from ..routers.decision import Model
from ..routers.errors import InputError
from ..routers.general import GeneralRouter
from ..routers.loading import load
from ..training.libraries import require_training
from .flags import Flag, Options, with_flags
from .input_files import read_pool
from .options import DATA, OUTPUT, POOL, LeakCheck, Reading, check_report_folder, table_console
from .outputs import Overwrite
from .reading import read_listed
from .terminal import Console

if TYPE_CHECKING:
    from ..evaluation.cascade_plan.latency_tail import Latency
    from ..evaluation.cascade_plan.plan import CascadePlan


@dataclass(frozen=True)
class CascadePlanOptions(Options):
    """What to compare, on which records and at which prices.

    Attributes:
        verifier: Folder of the verifier's bundle.
        router: Folder of a router's bundle, or the word "general", to compare the cascade with routing and with both
            together.
        target: Quality to reach, as a share of the strong model's mean score: above 0 and at most 1.
        joint: Escalate when the strong model is expected to improve the answer, instead of by the verifier's confidence
            alone. Needs --router.
        data: Files or hub ids of records with scores of both models and responses of the weak one. Neither verifier nor
            router may be trained on them. Can be repeated.
        prices: JSON or TOML file with name, input_price and output_price of both models, in USD per million tokens.
        strong: The strong model. The default is the router's strong model, or else the verifier's.
        weak: The weak model. The default is the verifier's weak model, or else the router's.
        output_tokens: Length, in tokens, of the strong model's answers for queries where the data does not hold one.
            The default is the length of the weak model's answer.
        verifier_usd_per_hour: Price in USD of an hour of the machine that runs the verifier.
        latency: Median and 95th percentile of a model's latency in seconds, as in --latency small=0.8/2.5. Give both
            models, to see how long an escalated user waits.
        max_latency: Largest acceptable 95th percentile of the latency of escalated requests, in seconds.
        bootstrap: Number of bootstrap resamples for the 95 % intervals.
        seed: Random seed: the same seed gives the same figures.
        output: Folder for the report: plan.html and plan.json.
    """

    HEADING: ClassVar[str] = "Cascade"

    verifier: Path
    data: Annotated[list[str], Flag(metavar="FILE", panel=DATA)]
    prices: Annotated[Path, Flag(panel=POOL)]
    router: Path | None = None
    target: float = 0.95
    joint: bool = False
    strong: Annotated[str | None, Flag(panel=POOL)] = None
    weak: Annotated[str | None, Flag(panel=POOL)] = None
    output_tokens: Annotated[int | None, Flag(least=1, panel=POOL)] = None
    verifier_usd_per_hour: Annotated[float, Flag(least=0, panel=POOL)] = 0.0
    latency: Annotated[list[str] | None, Flag(metavar="MODEL=P50/P95", panel="Latency")] = None
    max_latency: Annotated[float | None, Flag(metavar="SECONDS", panel="Latency")] = None
    bootstrap: Annotated[int, Flag(least=2, panel="Intervals")] = 300
    seed: Annotated[int, Flag(panel="Intervals")] = 0
    output: Annotated[Path | None, Flag(short="-o", panel=OUTPUT)] = None


@with_flags
def cascade_plan_command(options: CascadePlanOptions, reading: Reading, leaks: LeakCheck, overwrite: Overwrite) -> None:
    """Say whether a cascade is worth it: to route, to ask the weak model first and verify its answer, or to do both.

    It compares cost and quality on your records, and says how sensitive both are to the threshold, and how long users
    wait.

    Example: routelearn cascade-plan --verifier verifier/ --router router/ --data test.parquet --prices pool.json
    """
    require_training()
    from ..evaluation.cascade_plan.plan import plan_cascade
    from ..evaluation.cascade_plan.report import HTML, JSON, write_plan

    check_report_folder(options.output)
    if options.output is not None:
        overwrite.check(options.output / HTML, options.output / JSON)
    console = Console(stderr=True)
    router = load(options.router) if options.router else None
    verifier = load_verifier(options.verifier)
    named = None if isinstance(router, GeneralRouter) else router  # a general router takes any names
    strong = options.strong or (named.strong if named else verifier.manifest.strong)
    weak = options.weak or verifier.manifest.weak or (named.weak if named else "")
    if not strong or not weak:
        raise InputError("neither verifier nor router names a strong and a weak model; give --strong and --weak")
    if isinstance(router, GeneralRouter):
        router = router.placed(strong=strong, weak=weak)
    with console.status("reading"):
        records, notes = _records(options, reading, leaks, console)
    priced = {model.name: model for model in read_pool(options.prices)}
    with console.status("verifying the weak model's answers"):
        plan = plan_cascade(
            records,
            verifier,
            strong=_priced(priced, strong, options.prices),
            weak=_priced(priced, weak, options.prices),
            router=router,
            target=options.target,
            output_tokens=options.output_tokens,
            verifier_usd_per_hour=options.verifier_usd_per_hour,
            latencies=parse_latencies(options.latency or []),
            max_latency_s=options.max_latency,
            joint=options.joint,
            bootstrap=options.bootstrap,
            seed=options.seed,
        )
    plan.notes.extend(notes)
    show(plan)
    if options.output is not None:
        write_plan(plan, options.output)
        console.print(f"wrote {options.output / 'plan.html'} and {options.output / 'plan.json'}", markup=False)


def _records(
    options: CascadePlanOptions, reading: Reading, leaks: LeakCheck, console: Console
) -> tuple[list[Record], list[str]]:
    """The records to plan on, and notes: those marked "test" where there are any, unless --split names others.

    Raises:
        LeakError: prompts were trained on.
    """
    records = read_listed(console, options.data, reading.options())
    if reading.split is None and any(record.split == "test" for record in records):
        records = [record for record in records if record.split == "test"]
        console.print(f"planning on the {len(records):,} records marked test; --split takes others")
    if leaks.no_leak_check or not leaks.train:
        return records, ["no leak check was made: give the training files with --train"]
    records, dropped = leaks.check(records, leaks.training(reading), console)
    return records, [f"{dropped} prompts that stand in the training data were left out"] if dropped else []


def _priced(priced: dict[str, Model], name: str, source: Path) -> Model:
    if name not in priced:
        raise InputError(f"{source}: no prices of {name!r}; expected them beside those of {sorted(priced)}")
    return priced[name]


def parse_latencies(values: list[str]) -> dict[str, Latency]:
    """``["model=0.8/2.5"]`` as latencies by model.

    Raises:
        InputError: a value is not of that form, or its P95 is below its P50.
    """
    from ..evaluation.cascade_plan.latency_tail import Latency

    latencies = {}
    for value in values:
        name, _, numbers = value.rpartition("=")
        try:
            p50, p95 = map(float, numbers.split("/"))
        except ValueError:
            raise InputError(f"--latency {value!r}; expected MODEL=P50/P95 in seconds, such as small=0.8/2.5") from None
        if not name or not 0 < p50 <= p95 < math.inf:
            raise InputError(f"--latency {value!r}; expected 0 < P50 <= P95 in seconds, such as small=0.8/2.5")
        latencies[name] = Latency(p50, p95)
    return latencies


def show(plan: CascadePlan) -> None:
    """Print a plan."""
    from ..evaluation.cascade_plan.report import sentences

    console = table_console()
    table = Table(title=f"{plan.weak}, then {plan.strong}: {plan.queries} queries", title_justify="left")
    for heading in (
        "policy",
        "strong share",
        "escalated",
        "mean score",
        "USD per 1,000 queries",
        "direct at",
        "confidence below",
    ):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    table.add_row("weak alone", "0 %", "", f"{plan.quality[0]:.4f}", f"{plan.cost[0]:.4f}", "", "")
    for name, point in plan.best.items():
        if point is None:
            table.add_row(name, "", "", "target not reached", "", "", "")
            continue
        table.add_row(
            name,
            f"{point.strong_share:.1%}",
            f"{point.escalation_rate:.1%}" if point.threshold is not None else "",
            f"{point.quality:.4f}",
            f"{point.cost:.4f}",
            "" if point.direct_threshold is None else f"{point.direct_threshold:.4f}",
            "" if point.threshold is None else f"{point.threshold:.4f}",
        )
    for name, crossed in plan.cross_fitted.items():
        table.add_row(
            f"{name}, thresholds picked on other queries",
            f"{crossed.strong_share:.1%}",
            f"{crossed.escalation_rate:.1%}" if name != "route" else "",
            f"{crossed.quality:.4f}",
            f"{crossed.cost:.4f}",
            "",
            "",
        )
    table.add_row("strong alone", "100 %", "", f"{plan.quality[1]:.4f}", f"{plan.cost[1]:.4f}", "", "")
    console.print(table)
    for line in sentences(plan):
        console.print(line, markup=False, highlight=False)
