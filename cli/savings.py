"""`routelearn savings`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from rich.table import Table

from ..monitoring.log_calls import logged_calls
from ..monitoring.log_rows import read_log
from ..monitoring.savings import savings_of
from ..monitoring.savings_report import SavingsReport
from ..monitoring.shadow import ShadowGroup, ShadowReport, shadow_report
from ..routers.errors import InputError
from .flags import Flag, Options, with_flags
from .input_files import read_pool
from .options import POOL, table_console
from .terminal import Console


@dataclass(frozen=True)
class SavingsOptions(Options):
    """What to count, and with which prices.

    Attributes:
        log: Decision log of routelearn serve or of the LiteLLM hook, with what the calls used.
        models: TOML or JSON file with the prices of each model, in USD per million tokens, the strong one among them.
        cache_ttl: Seconds for which a provider's prompt cache holds what was read last.
        router_usd: USD that a decision itself costs, where the log does not say it.
        json: Print the figures as JSON.
    """

    HEADING: ClassVar[str] = POOL

    log: Annotated[Path, Flag(is_argument=True)]
    models: Path | None = None
    cache_ttl: Annotated[float, Flag(metavar="SECONDS")] = 300.0
    router_usd: Annotated[float, Flag(least=0, metavar="USD")] = 0.0
    json: bool = False


@with_flags
def savings_command(options: SavingsOptions) -> None:
    """Say what routing saved against asking the strong model for every request, or would have saved in shadow mode.

    The figures come from a decision log that holds what the calls used: the LiteLLM hook writes it, and callers of
    `routelearn serve` report it (POST /v1/outcomes). docs/savings.md says how each figure is counted.

    Example: routelearn savings decisions.jsonl --models models.toml
    """
    prices = read_pool(options.models)
    rows = list(read_log(options.log))
    acted = [row for row in rows if row.get("shadow") is not True]
    calls = logged_calls(acted)
    report = shadow = None
    if calls:
        report = savings_of(calls, prices, cache_ttl_s=options.cache_ttl, router_usd=options.router_usd)
    if len(acted) < len(rows):
        shadow = shadow_report(rows, prices, cache_ttl_s=options.cache_ttl)
    if report is None and shadow is None:
        raise InputError(
            f"{options.log}: {len(rows):,} decisions, and none says what its call used; expected lines of usage, which "
            "the LiteLLM hook writes, and callers of `routelearn serve` report with POST /v1/outcomes"
        )
    if options.json:
        found = {"savings": report and report.as_dict(), "shadow": shadow and shadow.as_dict()}
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    console = table_console()
    if report is not None:
        _show_savings(console, report, calls[-1].strong)
    if shadow is not None:
        _show_shadow(console, shadow)


def _show_savings(console: Console, report: SavingsReport, strong: str) -> None:
    spent = report.spent_usd - report.uncompared_usd
    saved = f"{_usd(abs(report.saved_usd))}{_share(report.saved_share)}"
    outcome = f"so routing saved {saved}" if report.saved_usd >= 0 else f"so routing cost {saved} more"
    less = f", less {report.unpriced:,} calls without a price," if report.unpriced else ""
    sentence = (
        f"{report.requests:,} requests{less} cost {_usd(spent + report.router_usd)}; asking {strong} for every one of "
        f"them would have cost {_usd(report.always_strong_usd)}, {outcome}."
    )
    if report.unpriced and not report.always_strong_usd:
        names = ", ".join(dict.fromkeys([strong, *report.by_model]))
        sentence = (
            f"{report.requests:,} requests, and none can be compared: expected prices of {names} in --models FILE"
        )
    console.print(sentence, soft_wrap=True, highlight=False)
    table = Table(title="calls by model", title_justify="left")
    for heading in ("model", "calls", "USD", "input tokens", "of these cached", "output tokens"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, usage in sorted(report.by_model.items(), key=lambda item: -item[1].requests):
        tokens = (usage.input_tokens, usage.cached_tokens, usage.output_tokens)
        table.add_row(name, f"{usage.requests:,}", f"{usage.usd:,.4f}", *(f"{number:,}" for number in tokens))
    console.print(table)
    for line in _sentences(report, strong):
        console.print(line, soft_wrap=True, highlight=False)


def _sentences(report: SavingsReport, strong: str) -> list[str]:
    lines = []
    if report.interval is None:
        lines.append(f"no interval: {report.why_no_interval}")
    else:
        low, high = report.interval.saved_usd
        lines.append(
            f"saved {_usd(low)} to {_usd(high)} with {report.interval.confidence:.0%} confidence, measured by "
            f"{report.interval.draws:,} requests for which {strong} was drawn at random"
        )
    lines.append(
        f"of what was spent, {_usd(report.cache_penalty_usd)} is for tokens that a change of model took from a cache"
    )
    if report.router_usd:
        lines.append(f"the decisions themselves cost {_usd(report.router_usd)}")
    if report.further:
        lines.append(
            f"{report.further:,} further calls of these requests, such as second models of a cascade, are paid too"
        )
    for name, ratio in report.output_ratios.items():
        lines.append(f"{strong} is taken to write {ratio:.2f} tokens for each token of {name}, as the calls say")
    if report.assumed_ratios:
        names = ", ".join(report.assumed_ratios)
        lines.append(f"{strong} is taken to write as much as {names}, because too few calls tell the lengths")
    if report.unpriced:
        lines.append(
            f"{report.unpriced:,} calls are compared with nothing, because a price is not known (they cost "
            f"{_usd(report.uncompared_usd)} as far as it is billed); --models names the prices"
        )
    return lines


def _show_shadow(console: Console, shadow: ShadowReport) -> None:
    found = shadow.all
    compared = ""
    if found.priced:
        compared = (
            f"; {found.priced:,} of them cost {_usd(found.served_usd)} as they were served, and would have cost "
            f"{_usd(found.routed_usd)}"
        )
    console.print(
        f"shadow mode: of {found.requests:,} requests, {found.moved:,}{_share(found.moved_share)} would have gone to "
        f"another model than the one that served them{compared}.",
        soft_wrap=True,
        highlight=False,
    )
    if not found.priced:
        console.print("no USD: no request says what its call used, or no price is known", highlight=False)
    for title, groups in (("model", shadow.by_model), ("cause", shadow.by_cause), ("score", shadow.by_score)):
        console.print(_shadow_table(title, groups))


def _shadow_table(title: str, groups: Mapping[str, ShadowGroup]) -> Table:
    table = Table(title=f"what would have been, by {title}", title_justify="left")
    for heading in (
        title,
        "requests",
        "would have moved",
        "USD as served",
        "USD as routed",
        "outcomes",
        "mean outcome",
    ):
        table.add_column(heading, justify="left" if heading == title else "right")
    for name, group in groups.items():
        mean = group.mean_outcome
        table.add_row(
            name,
            f"{group.requests:,}",
            f"{group.moved_share or 0:.1%}",
            f"{group.served_usd:,.4f}",
            f"{group.routed_usd:,.4f}",
            f"{group.outcomes:,}",
            "" if mean is None else f"{mean:.3f}",
        )
    return table


def _usd(usd: float) -> str:
    return f"{usd:,.2f} USD" if abs(usd) >= 10 else f"{usd:,.4f} USD"


def _share(share: float | None) -> str:
    return "" if share is None else f" ({abs(share):.1%})"
