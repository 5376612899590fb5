"""`routelearn cascade-plan`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..data.readers import read_all
from ..data.splits import find_leaks, refuse_leaks
from ..routers.decision import Model
from ..routers.errors import InputError, require
from .flags import with_flags
from .input_files import read_pool
from .options import (
    DATA,
    LEAKS,
    OUTPUT,
    POOL,
    Bootstrap,
    RandomSeed,
    Reading,
    check_report_folder,
    table_console,
)

if TYPE_CHECKING:
    from ..evaluation.cascade_plan.latency_tail import Latency
    from ..evaluation.cascade_plan.plan import CascadePlan

#: Headings of `--help`.
CASCADE, LATENCY = "Cascade", "Latency"


@with_flags
def cascade_plan_command(
    verifier: Annotated[Path, typer.Option(help="Folder of the verifier's bundle.", rich_help_panel=CASCADE)],
    data: Annotated[
        list[str],
        typer.Option(
            metavar="FILE",
            help="Files or hub ids of records with scores of both models and responses of the weak one. Neither "
            "verifier nor router may be trained on them. Can be repeated.",
            rich_help_panel=DATA,
        ),
    ],
    prices: Annotated[
        Path,
        typer.Option(
            help="JSON or TOML file with name, input_price and output_price of both models, in USD per million tokens.",
            rich_help_panel=POOL,
        ),
    ],
    reading: Reading,
    train: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Files or hub ids that verifier and router were trained on. Prompts that stand there are refused in "
            "--data. Can be repeated.",
            rich_help_panel=LEAKS,
        ),
    ] = None,
    router: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a router's bundle, to compare the cascade with routing and with both together.",
            rich_help_panel=CASCADE,
        ),
    ] = None,
    strong: Annotated[
        str | None,
        typer.Option(help="The strong model. Without it: the router's, or else the verifier's.", rich_help_panel=POOL),
    ] = None,
    weak: Annotated[
        str | None,
        typer.Option(help="The weak model. Without it: the verifier's, or else the router's.", rich_help_panel=POOL),
    ] = None,
    target: Annotated[
        float,
        typer.Option(
            help="Quality to reach, as a share of the strong model's mean score: above 0, to 1.",
            rich_help_panel=CASCADE,
        ),
    ] = 0.95,
    joint: Annotated[
        bool,
        typer.Option(
            "--joint",
            help="Escalate by the gain in quality that is expected from the strong model, instead of by the verifier's "
            "confidence alone. Needs --router.",
            rich_help_panel=CASCADE,
        ),
    ] = False,
    output_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Length in tokens of the strong model's answers, where the data holds none. Without it: the length of "
            "the weak model's answers.",
            rich_help_panel=POOL,
        ),
    ] = None,
    verifier_usd_per_hour: Annotated[
        float,
        typer.Option(
            min=0, help="Price in USD of an hour of the machine that runs the verifier.", rich_help_panel=POOL
        ),
    ] = 0.0,
    latency: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=P50/P95",
            help="Median and 95th percentile of a model's latency in seconds, as in --latency small=0.8/2.5. Give both "
            "models, to see how long an escalated user waits.",
            rich_help_panel=LATENCY,
        ),
    ] = None,
    max_latency: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Longest 95th percentile of the latency that an escalated user may see, in seconds.",
            rich_help_panel=LATENCY,
        ),
    ] = None,
    bootstrap: Bootstrap = 300,
    seed: RandomSeed = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the report: plan.html and plan.json.", rich_help_panel=OUTPUT),
    ] = None,
) -> None:
    """Say whether a cascade is worth it: to route, to ask the weak model first and verify its answer, or to do both.

    It compares cost and quality on your records, and says how sensitive both are to the threshold, and how long users
    wait.

    Example: routelearn cascade-plan --verifier verifier/ --router router/ --data test.parquet --prices pool.json
    """
    require("scipy", "train")
    from ..cascade.verifier import load_verifier
    from ..evaluation.cascade_plan.plan import plan_cascade
    from ..evaluation.cascade_plan.report import write_plan
    from ..routers.learned import load

    check_report_folder(output)
    console = Console(stderr=True)
    loaded = load(router) if router else None
    judge = load_verifier(verifier)
    strong = strong or (loaded.strong if loaded else judge.manifest.strong)
    weak = weak or judge.manifest.weak or (loaded.weak if loaded else "")
    if not strong or not weak:
        raise InputError("neither verifier nor router names a strong and a weak model; give --strong and --weak")
    with console.status("reading"):
        options = reading.options()
        records = read_all(data, options)
        if reading.split is None and any(record.split == "test" for record in records):
            records = [record for record in records if record.split == "test"]
            console.print(f"planning on the {len(records):,} records marked test; --split takes others")
        if train:
            trained_on = [record for record in read_all(train, options) if record.split != "test"]
            refuse_leaks(find_leaks(trained_on, records))
    priced = {model.name: model for model in read_pool(prices)}
    with console.status("verifying the weak model's answers"):
        plan = plan_cascade(
            records,
            judge,
            strong=_priced(priced, strong, prices),
            weak=_priced(priced, weak, prices),
            router=loaded,
            target=target,
            output_tokens=output_tokens,
            verifier_usd_per_hour=verifier_usd_per_hour,
            latencies=parse_latencies(latency or []),
            max_latency_s=max_latency,
            joint=joint,
            bootstrap=bootstrap,
            seed=seed,
        )
    if not train:
        plan.notes.append("no leak check was made: give the training files with --train")
    show(plan)
    if output is not None:
        write_plan(plan, output)
        console.print(f"wrote {output / 'plan.html'} and {output / 'plan.json'}", markup=False)


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
