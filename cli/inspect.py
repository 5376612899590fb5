"""`routelearn inspect`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.table import Table

from ..cascade.verifier import load_verifier
from ..routers.bundle import VERIFIER
from ..routers.loading import describe, load
from .flags import Flag, Options, with_flags
from .terminal import Console


@dataclass(frozen=True)
class InspectOptions(Options):
    """What to inspect.

    Attributes:
        bundle: Folder of a bundle: a router or a verifier.
        as_json: Print everything as JSON instead of a table.
    """

    bundle: Annotated[Path, Flag(is_argument=True)]
    as_json: Annotated[bool, Flag("--json")] = False


@with_flags
def inspect_command(options: InspectOptions) -> None:
    """Check that a bundle can be trusted, and say what it is, what it was trained on, and how well it did.

    Example: routelearn inspect router/
    """
    summary = describe(options.bundle)
    (load_verifier if summary["kind"] == VERIFIER else load)(options.bundle)
    if options.as_json:
        sys.stdout.write(json.dumps(summary, indent=1) + "\n")
        return
    training = summary["training"]
    table = Table(show_header=False, title=str(options.bundle), title_justify="left")
    rows: dict[str, Any] = {
        "kind": f"{summary['kind']}, format version {summary['format_version']}",
        "decision": _decision(summary),
        "pool": f"{len(summary['models'])} models: {', '.join(summary['models'][:12])}",
        "size": ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in summary["bytes"].items()),
        "link": summary["link"],
        "calibration": summary["calibration"].get("method"),
        "encoder": _encoder(training),
        "general router": _general(training),
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


def _encoder(training: dict[str, Any]) -> str:
    """The name of the encoder, and the hash that identifies a static one."""
    settings, fingerprint = training.get("config"), training.get("encoder_fingerprint")
    name = settings.get("encoder") if isinstance(settings, dict) else None
    return f"{name}, {fingerprint}" if fingerprint else str(name)


def _general(training: dict[str, Any]) -> str:
    """The general router that a trained router blends in."""
    general = training.get("general")
    if not isinstance(general, dict):
        return "none"
    share = general.get("share")
    least = f", at least {share:.1%} of the quality" if isinstance(share, float) else ""
    return f"{general.get('router')}{least}, more where a query is unfamiliar"


def _reference(summary: dict[str, Any]) -> str:
    sizes = summary["reference"]
    if sizes is None:
        return "none"
    return ", ".join(f"{name} of {n:,}" for name, n in sizes.items()) + " held-out queries"


def _guarantee(guarantee: dict[str, Any] | None) -> str:
    if guarantee is None:
        return "none"
    return (
        f"loss at most {guarantee['max_quality_loss']:g} points of the {guarantee['unit']} with confidence "
        f"{1 - guarantee['delta']:g} at threshold {guarantee['threshold']:.4f}: {guarantee['strong_share']:.1%} to "
        f"strong (n = {guarantee['n']:,}, {guarantee['date']})"
    )
