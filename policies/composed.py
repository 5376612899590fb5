"""Policies made of other policies: by the request's context, several models at once, exploration."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..routers.base import Assessment, Context, Decision, Policy, Router, decide_by, learned_rows
from ..routers.errors import InputError


@dataclass(frozen=True, slots=True)
class ByContext:
    """Decides each query by the policy for its context's value of a key.

    Nests: ``ByContext("tier", {"pro": ByContext("use_case", {...})})``.

    Attributes:
        key: of the context, such as "tier" or "use_case".
        policies: by the value of that key.
        default: for every other value, and where there is none; None: the router's own threshold.
    """

    key: str
    policies: Mapping[str, Policy]
    default: Policy | None = None

    def __post_init__(self) -> None:
        """Refuse a choice among no policies."""
        if not self.policies:
            raise InputError(f"no policies for {self.key!r}; expected one a value")

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """See `Policy.decide`."""
        if contexts is None:
            return decide_by(self.default, router, assessment, contexts)
        rows_of: dict[str | None, list[int]] = {}
        for row, context in enumerate(contexts):
            value = context.get(self.key)
            rows_of.setdefault(value if value in self.policies else None, []).append(row)
        decided: dict[int, Decision] = {}
        for value, rows in rows_of.items():
            policy = self.default if value is None else self.policies[value]
            found = decide_by(policy, router, assessment.rows(rows), [contexts[row] for row in rows])
            decided.update(zip(rows, found, strict=True))
        return [decided[row] for row in range(len(contexts))]


@dataclass(frozen=True, slots=True)
class TopK:
    """Another policy's decisions, with the first k candidates as targets.

    Where the rules answered only strong and weak are targets: of other models the rules know nothing.

    Attributes:
        k: models to ask.
        policy: ranks the candidates; None: the router's threshold, then quality.
    """

    k: int
    policy: Policy | None = None

    def __post_init__(self) -> None:
        """Refuse a k below 1."""
        if self.k < 1:
            raise InputError(f"k is {self.k}; expected 1 or more models")

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """See `Policy.decide`.

        Raises:
            InputError: a query has fewer than k candidates.
        """
        decisions = decide_by(self.policy, router, assessment, contexts)
        learned = set(learned_rows(assessment))
        return [self._with_targets(decision, router, learned=row in learned) for row, decision in enumerate(decisions)]

    def _with_targets(self, decision: Decision, router: Router, *, learned: bool) -> Decision:
        candidates = decision.candidates
        if not learned:
            candidates = tuple(name for name in candidates if name in {router.strong, router.weak})
        elif len(candidates) < self.k:
            raise InputError(f"k is {self.k}, but there are {len(candidates)} candidates: {list(candidates)}")
        return replace(decision, targets=candidates[: self.k])


#: `Decision.cause` of a model that was drawn.
EXPLORE = "explore"


class Explore:
    """Epsilon-greedy exploration: with probability epsilon a model drawn uniformly, else another policy's.

    Every decision's `propensity` is the probability with which its model was chosen: ``1 - epsilon + epsilon / k``
    for the policy's own choice among k candidates (drawn or not), ``epsilon / k`` for another one, ``1 - epsilon`` for
    a choice that is none of the candidates. With them the value of any policy follows from a log by inverse
    propensity weighting (Horvitz and Thompson 1952): mean of ``outcome * [policy chooses model] / propensity``.
    Rows that the rules answered are not explored: their propensity is 1. Threads may share one.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        epsilon: float = 0.05,
        *,
        candidates: Sequence[str] = (),
        seed: int | None = None,
    ) -> None:
        """Explore around a policy.

        Args:
            policy: decides where nothing is drawn, and must not explore itself; None: the router's own threshold.
            epsilon: share of the queries for which a model is drawn, in [0, 1].
            candidates: the models to draw from; empty: strong and weak.
            seed: of the draws; None: another sequence each time.

        Raises:
            InputError: epsilon is no share, or a candidate stands twice.
        """
        if not 0 <= epsilon <= 1:
            raise InputError(f"epsilon is {epsilon}; expected a share from 0 to 1")
        if len(set(candidates)) != len(candidates):
            raise InputError(f"candidates are {list(candidates)}; expected each model once")
        self.policy = policy
        self.epsilon = epsilon
        self.candidates = tuple(candidates)
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """See `Policy.decide`.

        Raises:
            InputError: a candidate is not in the pool, or the policy within explores.
        """
        names = self.candidates or (router.strong, router.weak)
        for name in names:
            router.index(name)
        decisions = decide_by(self.policy, router, assessment, contexts)
        rows = learned_rows(assessment)
        with self._lock:
            explored = (self._random.random(len(rows)) < self.epsilon).tolist()
            drawn = self._random.integers(0, len(names), len(rows)).tolist()
        for place, row in enumerate(rows):
            decisions[row] = self._mixed(decisions[row], names, names[drawn[place]] if explored[place] else None)
        return decisions

    def _mixed(self, decision: Decision, names: Sequence[str], drawn: str | None) -> Decision:
        """The decision with its propensity, and with the drawn model where one was drawn."""
        if decision.propensity != 1:
            raise InputError("a policy within Explore explores as well: the propensities are known of one only")
        model = decision.model if drawn is None else drawn
        propensity = (1 - self.epsilon) * (model == decision.model) + self.epsilon / len(names) * (model in names)
        if drawn is None:
            return replace(decision, propensity=propensity)
        candidates = (drawn, *(name for name in decision.candidates if name != drawn))
        return replace(
            decision,
            model=drawn,
            candidates=candidates,
            targets=candidates[: len(decision.targets)],
            cause=EXPLORE,
            reason=f"explored: one of {len(names)} models drawn; else {decision.model}, as {decision.reason}",
            propensity=propensity,
        )
