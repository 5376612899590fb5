"""The command line: a thin skin over the API.

Exit codes: 0; 2 when the caller can mend it (bad input, a bundle that cannot be
trusted, a missing extra); 1 for every other failure.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .. import __version__
from ..cascade.verifier import load_verifier
from ..policies.threshold import policy_of
from ..routers.bundle import VERIFIER
from ..routers.errors import BundleError, InputError, MissingExtraError, RoutelearnError
from ..routers.learned import describe, load
from ..routers.query import Query, parse_messages
from .calibrate import calibrate_command
from .cascade_plan import cascade_plan_command
from .data import app as data_app
from .evaluate import evaluate_command
from .export import export_command
from .opening import open_router
from .score import (
    AtShare,
    AtThreshold,
    Fallback,
    Guaranteed,
    RouterName,
    Rules,
    Strong,
    Weak,
    score_command,
)
from .serve import serve_command
from .train import app as train_app
from .train import extend_command

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Learn, from your own preference data, when the cheap model is enough.",
)
app.add_typer(train_app, name="train")
app.add_typer(data_app, name="data")
app.command("evaluate")(evaluate_command)
app.command("calibrate")(calibrate_command)
app.command("extend")(extend_command)
app.command("export")(export_command)
app.command("cascade-plan")(cascade_plan_command)
app.command("score")(score_command)
app.command("serve")(serve_command)


@app.command()
def route(
    router: RouterName,
    text: Annotated[str, typer.Argument(help="The query, or - to read it from stdin.")],
    chat: Annotated[bool, typer.Option("--chat", help="The query is a JSON list of {role, content}.")] = False,
    tier: Annotated[str | None, typer.Option(help="The user's tier, for rules that use it.")] = None,
    threshold: AtThreshold = None,
    strong_share: AtShare = None,
    guaranteed: Guaranteed = False,
    strong: Strong = None,
    weak: Weak = None,
    rules: Rules = None,
    fallback: Fallback = False,
) -> None:
    """Decide one query and print the decision as JSON.

    Example: routelearn route router/ "Prove that the square root of 2 is irrational."
    """
    chosen = open_router(router, strong=strong, weak=weak, rules=rules, fallback=fallback)
    content = sys.stdin.read() if text == "-" else text
    query: Query = parse_messages(content) if chat else content
    context = {"tier": tier} if tier else None
    decision = chosen.route(query, policy_of(threshold, strong_share, guaranteed), context)
    sys.stdout.write(json.dumps(decision.as_dict(), indent=1) + "\n")


@app.command()
def inspect(
    router: Annotated[Path, typer.Argument(help="A bundle folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Verify a bundle and say what it is, what it was trained on, and how well it did.

    Example: routelearn inspect router/
    """
    summary = describe(router)
    (load_verifier if summary["kind"] == VERIFIER else load)(router)
    if as_json:
        sys.stdout.write(json.dumps(summary, indent=1) + "\n")
        return
    training = summary["training"]
    table = Table(show_header=False, title=str(router), title_justify="left")
    rows: dict[str, Any] = {
        "kind": f"{summary['kind']}, format version {summary['format_version']}",
        "decision": _decision(summary),
        "pool": f"{len(summary['models'])} models: {', '.join(summary['models'][:12])}",
        "size": ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in summary["bytes"].items()),
        "link": summary["link"],
        "calibration": summary["calibration"].get("method"),
        "trained on": f"{training.get('records')} records, {training.get('queries')} queries",
        "novelty bound": summary["novelty_bound"],
        "guarantee": _guarantee(summary["guarantee"]),
        "reference for drift": _reference(summary),
    }
    for name, value in {**rows, **training.get("metrics", {})}.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    shares = [f"{share:.0%}: {value:.4f}" for share, value in summary["threshold_table"][::4]]
    share = "escalation rate" if summary["kind"] == VERIFIER else "strong share"
    table.add_row(f"thresholds by {share}", ", ".join(shares))
    Console().print(table)


def _decision(summary: dict[str, Any]) -> str:
    if summary["kind"] == VERIFIER:
        return f"confidence below {summary['threshold']:.4f} escalates"
    return f"{summary['strong']} over {summary['weak']}, threshold {summary['threshold']:.4f}"


def _reference(summary: dict[str, Any]) -> str:
    sizes = summary["reference"]
    if sizes is None:
        return "none"
    return ", ".join(f"{name} of {n:,}" for name, n in sizes.items()) + " held-out queries"


def _guarantee(found: dict[str, Any] | None) -> str:
    if found is None:
        return "none"
    return (
        f"loss at most {found['max_quality_loss']:g} points of the {found['unit']} with confidence "
        f"{1 - found['delta']:g} at threshold {found['threshold']:.4f}: {found['strong_share']:.1%} to strong "
        f"(n = {found['n']:,}, {found['date']})"
    )


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Learn, from your own preference data, when the cheap model is enough."""
    if show:
        sys.stdout.write(f"routelearn {__version__}\n")
        raise typer.Exit


def main() -> None:
    """Run the command line with the exit codes of the module's docstring."""
    try:
        app()
    except (InputError, BundleError, MissingExtraError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except (RoutelearnError, OSError) as error:
        sys.stderr.write(f"failed: {error}\n")
        sys.exit(1)
