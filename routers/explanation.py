"""Says in words why a router decides as it does for one query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .assessment import Assessment
from .base import Policy, Router
from .decision import Context, Decision
from .fallback import FallbackRouter
from .general import GeneralRouter
from .learned import LearnedRouter
from .nearest import NearestRecord
from .query import Query
from .rules import RulesRouter
from .shipped import shipped_names
from .stand_in import shipped_general

#: The most characters that the words show of the text of a training record.
MOST_SHOWN = 80


@dataclass(frozen=True)
class Explanation:
    """Why a router decides as it does for one query; `str` gives it in words.

    Attributes:
        decision: the decision.
        quality: the expected score of each model's answer, in [0, 1]; empty: rules or the default decided.
        difficulty: on the ability scale of the general router: a model of that ability succeeds with probability one
            half; None: no general router is at hand.
        harder_than: the share of the queries that the general router learned from that are less difficult, 0 to 1.
        abilities: the ability of each model on the same scale; empty: no general router decided.
        placed: how each of these models was placed, in words.
        novelty: distance from the training queries of the learned router, or where there is none, of the general one;
            None: not measured.
        novelty_bound: a larger novelty means a query unlike the training queries; None: not measured.
        rules: the rules that the query fires, with their weights; a positive weight speaks for strong. Their names say
            what kind of query it is. They decide only where the decision's source says so.
        nearest: the training records nearest to the query, the nearest first, where the learned router decided or found
            the query unlike them; empty: its bundle names no records, as only similarity routers may.

    Example:
        >>> import routelearn
        >>> from routelearn.routers import explain
        >>> router = routelearn.load("general", strong="gpt-4o", weak="gpt-4o-mini")
        >>> found = explain(router, "Prove that the square root of 2 is irrational.")
        >>> found.decision.model, [name for name, _ in found.rules]
        ('gpt-4o-mini', ['very_short', 'short', 'mathematics', 'reasoning'])
    """

    decision: Decision
    quality: Mapping[str, float]
    difficulty: float | None
    harder_than: float | None
    abilities: Mapping[str, float]
    placed: tuple[str, ...]
    novelty: float | None
    novelty_bound: float | None
    rules: tuple[tuple[str, float], ...]
    nearest: tuple[NearestRecord, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """One sentence a line."""
        one = self.decision
        lines = [
            f"The query goes to {one.model}: {one.reason}.",
            f"The score is {one.score:.4f}, the threshold is {one.threshold:.4f}, the source is {one.source!r}.",
        ]
        if self.quality:
            lines.append("Expected quality: " + _listed(self.quality, ".3f") + ".")
        if self.difficulty is not None and self.harder_than is not None:
            lines.append(
                f"The difficulty is {self.difficulty:.2f}: harder than {self.harder_than:.0%} of the queries that the "
                "general router learned from."
            )
        if self.abilities:
            lines.append(f"Abilities: {_listed(self.abilities, '.2f')} ({'; '.join(self.placed)}).")
        if self.novelty is not None and self.novelty_bound is not None:
            side = "unlike" if self.novelty > self.novelty_bound else "like"
            lines.append(
                f"The query is {side} the training queries: novelty {self.novelty:.2f}, bound {self.novelty_bound:.2f}."
            )
        lines.extend(f"Nearest training record {number}: {_said(one)}." for number, one in enumerate(self.nearest, 1))
        fired = ", ".join(f"{name} {weight:+.3g}" for name, weight in self.rules)
        role = "" if one.source in {"rules", "default"} or not fired else ", which did not decide"
        lines.append(f"Rules that fire{role}: {fired or 'none'}.")
        return "\n".join(lines)


def explain(router: Router, query: Query, context: Context | None = None, policy: Policy | None = None) -> Explanation:
    """Explain the decision for one query.

    Args:
        router: any router.
        query: the query.
        context: a mapping that describes the request, as for `Router.route`.
        policy: what decides; None: the router's own threshold.

    Raises:
        InputError: the query, the policy or the context is not such.
        InferenceError: the router failed.
        BundleCorruptError: records.json of the bundle is not what an export writes.
    """
    decision = router.route(query, policy, context)
    assessment = router.assess([query], None if context is None else [context])
    general = _general_of(router)
    difficulty, harder_than = (None, None) if general is None else _difficulty(general, query)
    by_rules, by_general = decision.source in {"rules", "default"}, decision.source == "general"
    # A general router in a learned router's place knows the two models alone.
    known = general.models if by_general and general is not None else router.models
    values = dict(zip(router.models, assessment.quality[0].tolist(), strict=True))
    shown = by_general or isinstance(router.learned, GeneralRouter)
    placements = general.placements if shown and general is not None else ()
    novelty, novelty_bound = _novelty(router, assessment, query)
    return Explanation(
        decision=decision,
        quality={} if by_rules else {name: value for name, value in values.items() if name in known},
        difficulty=difficulty,
        harder_than=harder_than,
        abilities={one.name: float(one.ability) for one in placements},
        placed=tuple(str(one) for one in placements),
        novelty=novelty,
        novelty_bound=novelty_bound,
        rules=tuple(_rules_of(router).fired(query, context)),
        nearest=_nearest(router, decision, query),
    )


def _difficulty(general: GeneralRouter, query: Query) -> tuple[float, float]:
    """The difficulty of a query, and the share of the bundle's traffic that is less difficult."""
    value = float(general.difficulty([query])[0])
    items = np.asarray((general.manifest.general or {})["items"], np.float64)
    known = -items[:, 1] / np.maximum(items[:, 0], 1e-3)
    return value, float((known < value).mean())


def _general_of(router: Router) -> GeneralRouter | None:
    """The general router that answers, or would answer in the router's place; else the shipped one, if there is one."""
    if isinstance(router.learned, GeneralRouter):
        return router.learned
    general = router.general if isinstance(router, FallbackRouter) else None
    return shipped_general() if general is None and "general" in shipped_names() else general


def _novelty(router: Router, assessment: Assessment, query: Query) -> tuple[float | None, float | None]:
    """Novelty and bound of a query: those of the learned router, or where there is none, of the general router."""
    if router.learned is None and isinstance(router, FallbackRouter) and router.general is not None:
        router = router.general
        assessment = router.assess([query])
    return None if assessment.novelty is None else float(assessment.novelty[0]), router.novelty_bound


def _nearest(router: Router, decision: Decision, query: Query) -> tuple[NearestRecord, ...]:
    """The nearest training records of the learned router, if it decided, or found the query unlike them."""
    learned = router.learned
    if not isinstance(learned, LearnedRouter) or (decision.source != "learned" and decision.cause != "novel"):
        return ()
    return learned.nearest(query)


def _said(record: NearestRecord) -> str:
    """A record in words. Its name may be a text by a stranger: it is shortened, and control characters are escaped."""
    name = record.name if len(record.name) <= MOST_SHOWN else record.name[: MOST_SHOWN - 1] + "…"
    known = f"; {_listed(record.quality, '.3g')}" if record.quality else ""
    return f"{name!r}, similarity {record.similarity:.2f}{known}"


def _rules_of(router: Router) -> RulesRouter:
    """The rules of a router; of one without rules, the built-in rules, which name the kind of the query."""
    if isinstance(router, RulesRouter):
        return router
    return router.rules if isinstance(router, FallbackRouter) else RulesRouter(router.strong, router.weak)


def _listed(values: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items())
