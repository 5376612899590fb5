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
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import __version__
from .data.commands import Map, SkipBad
from .data.commands import app as data_app
from .data.readers import parse_pairs
from .data.scoring import score_file
from .routers.bundle import VERIFIER
from .routers.errors import BundleError, InputError, MissingExtraError, RoutelearnError
from .routers.learned import describe, load
from .routers.query import Query, parse_messages
from .routers.verifier import load_verifier
from .service.opening import open_router, policy_of
from .service.serve_command import serve_command
from .training.calibrate_command import calibrate_command
from .training.cascade_command import cascade_plan_command
from .training.commands import app as train_app
from .training.commands import extend_command
from .training.evaluate_command import evaluate_command

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
app.command("cascade-plan")(cascade_plan_command)
app.command("serve")(serve_command)

RouterName = Annotated[str, typer.Argument(help="A bundle folder, or the word rules.")]
Strong = Annotated[str | None, typer.Option(help="The strong model; needed for rules or with --fallback.")]
Weak = Annotated[str | None, typer.Option(help="The weak model; needed for rules or with --fallback.")]
Rules = Annotated[Path | None, typer.Option(help="TOML file of rules; default: the built-in ones.")]
AtThreshold = Annotated[float | None, typer.Option(help="A score at or above it goes to strong.")]
AtShare = Annotated[float | None, typer.Option(help="Send this share of queries like the calibration's to strong.")]
Guaranteed = Annotated[
    bool, typer.Option("--guaranteed", help="The bundle's guaranteed threshold; refused where it has none.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Batches in flight; default: every CPU of this process.")]
Fallback = Annotated[
    bool, typer.Option("--fallback", help="Answer by rules when the bundle does not load, instead of failing.")
]


@app.command()
def score(
    router: RouterName,
    source: Annotated[str, typer.Argument(metavar="INPUT", help="txt, jsonl, csv, tsv, parquet, or - for stdin.")],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="jsonl, csv or parquet, by the suffix; default: jsonl on stdout."),
    ] = None,
    threshold: AtThreshold = None,
    strong_share: AtShare = None,
    guaranteed: Guaranteed = False,
    strong: Strong = None,
    weak: Weak = None,
    rules: Rules = None,
    fallback: Fallback = False,
    columns: Map = None,
    prefix: Annotated[str, typer.Option(help="Put before the added column names.")] = "",
    skip_bad: SkipBad = False,
    threads: Threads = None,
) -> None:
    """Score every row of a file: adds the columns score, model and source.

    Example: routelearn score router/ queries.txt -o scored.jsonl --strong-share 0.3
    """
    console = Console(stderr=True)
    chosen = open_router(router, strong=strong, weak=weak, rules=rules, fallback=fallback, threads=threads)
    bar = Progress(
        SpinnerColumn(),
        TextColumn("scored {task.completed:,} rows"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("score", total=None)
        result = score_file(
            chosen,
            source,
            output,
            policy=policy_of(threshold, strong_share, guaranteed),
            columns=parse_pairs(columns or [], "--map"),
            prefix=prefix,
            skip_bad=skip_bad,
            on_rows=lambda rows: bar.update(task, completed=rows),
        )
    share = result.to_strong / result.rows if result.rows else 0.0
    sources = ", ".join(f"{name} {count:,}" for name, count in sorted(result.sources.items()))
    console.print(f"{result.rows:,} rows, {share:.1%} to {chosen.strong}; answered by: {sources}", markup=False)
    for error in result.bad[:20]:
        console.print(f"skipped: {error}", markup=False, highlight=False)
    if len(result.bad) > 20:
        console.print(f"... and {len(result.bad) - 20:,} more bad rows")


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


if __name__ == "__main__":  # `torchrun -m routelearn.cli`
    main()
