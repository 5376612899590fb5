"""`routelearn cascade-plan`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..data.readers import read_all
from ..data.splits import find_leaks, refuse_leaks
from ..evaluation.cascade_plan.latency_tail import Latency
from ..evaluation.cascade_plan.plan import CascadePlan
from ..routers.base import Model
from ..routers.errors import InputError, require
from .data import Alias, Kind, Map, Models, SkipBad, Split, read_options
from .settings import read_pool


def cascade_plan_command(
    verifier: Annotated[Path, typer.Option(help="A verifier's bundle.")],
    data: Annotated[list[str], typer.Option(help="Records that verifier and router were not trained on, repeatable.")],
    prices: Annotated[
        Path, typer.Option(help="JSON or TOML with prices: name, input_price, output_price, USD per million tokens.")
    ],
    train: Annotated[
        list[str] | None,
        typer.Option(help="What verifier and router were trained on: refuses prompts that stand there."),
    ] = None,
    router: Annotated[Path | None, typer.Option(help="A router's bundle, to compare with and to combine with.")] = None,
    strong: Annotated[
        str | None, typer.Option(help="The strong model; default: the router's, or the verifier's.")
    ] = None,
    weak: Annotated[str | None, typer.Option(help="The weak model; default: the verifier's, or the router's.")] = None,
    target: Annotated[float, typer.Option(help="Share of strong's mean score that has to be reached.")] = 0.95,
    joint: Annotated[
        bool,
        typer.Option("--joint", help="Escalate by what strong would gain over the answer, by router and verifier."),
    ] = False,
    output_tokens: Annotated[
        int | None, typer.Option(min=1, help="Length of strong's answers where the data has none; default: as weak's.")
    ] = None,
    verifier_usd_per_hour: Annotated[float, typer.Option(min=0, help="Price of the machine that verifies.")] = 0.0,
    latency: Annotated[
        list[str] | None, typer.Option(help="MODEL=P50/P95 in seconds, of both models; for the latency tail.")
    ] = None,
    max_latency: Annotated[float | None, typer.Option(help="Longest P95 (s) that an escalated user may wait.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for plan.json and plan.html.")] = None,
    bootstrap: Annotated[int, typer.Option(min=2, help="Resamples of the 95 % intervals.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    columns: Map = None,
    alias: Alias = None,
    kind: Kind = "auto",
    models: Models = None,
    split: Split = None,
    skip_bad: SkipBad = False,
) -> None:
    """Say whether to route, to cascade, or both: expected cost, break-even, sensitivity and latency, with the curve.

    Example: routelearn cascade-plan --verifier verifier/ --router router/ --data test.parquet --prices pool.json
    """
    require("scipy", "train")
    from ..cascade.verifier import load_verifier
    from ..evaluation.cascade_plan.plan import plan_cascade
    from ..evaluation.cascade_plan.report import write_plan
    from ..routers.learned import load

    console = Console(stderr=True)
    loaded = load(router) if router else None
    judge = load_verifier(verifier)
    strong = strong or (loaded.strong if loaded else judge.manifest.strong)
    weak = weak or judge.manifest.weak or (loaded.weak if loaded else "")
    if not strong or not weak:
        raise InputError("name the strong and the weak model: --strong, --weak")
    with console.status("reading"):
        options = read_options(columns, alias, kind, models, split, skip_bad=skip_bad)
        records = read_all(data, options)
        if split is None and any(record.split == "test" for record in records):
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
        raise InputError(f"{source}: no prices of {name!r}; there are {sorted(priced)}")
    return priced[name]


def parse_latencies(values: list[str]) -> dict[str, Latency]:
    """``["model=0.8/2.5"]`` by model.

    Raises:
        InputError: not of that form, or P95 below P50.
    """
    found = {}
    for value in values:
        name, _, numbers = value.rpartition("=")
        try:
            p50, p95 = map(float, numbers.split("/"))
        except ValueError:
            raise InputError(f"--latency {value!r}; expected MODEL=P50/P95 in seconds, such as small=0.8/2.5") from None
        if not name or not 0 < p50 <= p95 < math.inf:
            raise InputError(f"--latency {value!r}; expected 0 < P50 <= P95")
        found[name] = Latency(p50, p95)
    return found


def show(plan: CascadePlan) -> None:
    """Print a plan."""
    console = Console() if Console().is_terminal else Console(width=150)
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
    for name, found in plan.cross_fitted.items():
        table.add_row(
            f"{name}, thresholds picked on other queries",
            f"{found.strong_share:.1%}",
            f"{found.escalation_rate:.1%}" if name != "route" else "",
            f"{found.quality:.4f}",
            f"{found.cost:.4f}",
            "",
            "",
        )
    table.add_row("strong alone", "100 %", "", f"{plan.quality[1]:.4f}", f"{plan.cost[1]:.4f}", "", "")
    console.print(table)
    from ..evaluation.cascade_plan.report import sentences

    for line in sentences(plan):
        console.print(line, markup=False, highlight=False)
