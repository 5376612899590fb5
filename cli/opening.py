"""From the words of a command line to the router and the policy that they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..policies.composed import ByContext, Explore
from ..policies.threshold import StrongShare
from ..routers.base import Policy, Router
from ..routers.errors import InputError
from ..routers.fallback import FallbackRouter
from ..routers.learned import load
from ..routers.rules import RulesRouter, load_rules

#: The name of the router that is rules alone.
RULES = "rules"


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


def policy_by_context(
    base: Policy | None, tier_shares: Mapping[str, str], use_case_shares: Mapping[str, str], explore: float
) -> Policy | None:
    """A service's policy: by the user's tier, else by the use case, else the base; with a share of draws at random.

    Args:
        base: for everybody else; None: the router's own threshold.
        tier_shares: strong shares by tier, as they were typed.
        use_case_shares: the same by use case.
        explore: share of the queries for which strong or weak is drawn.

    Raises:
        InputError: a share is none.
    """
    policy = base
    for key, shares in (("use_case", use_case_shares), ("tier", tier_shares)):
        if shares:
            policy = ByContext(key, {name: StrongShare(_number(share)) for name, share in shares.items()}, policy)
    return Explore(policy, explore) if explore else policy


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"strong share is {text!r}; expected a number from 0 to 1") from None


def parse_pairs(values: Sequence[str], option: str) -> dict[str, str]:
    """``["a=b"]`` as a mapping.

    Raises:
        InputError: a value without "=".
    """
    pairs = {}
    for value in values:
        key, separator, target = value.partition("=")
        if not separator or not key or not target:
            raise InputError(f"{option} {value!r}; expected name=name")
        pairs[key] = target
    return pairs
