"""From the words of a command line to the router and the policy that they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..routers.base import Router
from ..routers.errors import InputError
from ..routers.fallback import FallbackRouter
from ..routers.guaranteed import GuaranteedThreshold
from ..routers.learned import load
from ..routers.policy import Policy, StrongShare, Threshold
from ..routers.rules import RulesRouter, load_rules

#: The name of the router that is rules alone.
RULES = "rules"

#: Arguments and options that mean the same in every command.
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


def open_router(
    name: str,
    *,
    strong: str | None = None,
    weak: str | None = None,
    rules: Path | None = None,
    fallback: bool = False,
    threads: int | None = None,
    timeout_s: float | None = None,
) -> FallbackRouter | RulesRouter:
    """The router of a command.

    Args:
        name: a bundle folder, or the word rules.
        strong: the strong model; None: the bundle's.
        weak: the weak model; None: the bundle's.
        rules: TOML file of rules; None: the built-in ones.
        fallback: rules answer when the bundle does not load.
        threads: batches in flight; None: every CPU of this process.
        timeout_s: longest that a batch may take before rules answer; None: no limit.

    Raises:
        BundleError: the bundle cannot be trusted, and no fallback was asked for.
        InputError: rules without the names of both models, or a model that the bundle has not, and no fallback.
    """
    ruled = RulesRouter(strong or "strong", weak or "weak", rules=load_rules(rules) if rules else None)
    if name == RULES:
        return ruled
    learned: Router | str = name
    try:
        learned = load(name, threads=threads)
    except Exception:
        if not fallback:
            raise
    router = FallbackRouter(learned, strong=strong, weak=weak, rules=ruled, timeout_s=timeout_s)
    if router.unavailable and not fallback:
        raise InputError(f"{router.unavailable}; --fallback would answer by rules")
    return router


def policy_of(threshold: float | None, strong_share: float | None, guaranteed: bool = False) -> Policy | None:
    """The policy of a command's or a request's options; None: the router's own threshold.

    Raises:
        InputError: more than one was given, or one is out of range.
    """
    if sum((threshold is not None, strong_share is not None, guaranteed)) > 1:
        raise InputError("give a threshold, a strong share or the guaranteed threshold: one of them")
    if guaranteed:
        return GuaranteedThreshold()
    if threshold is not None:
        return Threshold(threshold)
    return None if strong_share is None else StrongShare(strong_share)
