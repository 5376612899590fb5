"""Policies that use another policy: one for each context, several models at once, exploration."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..routers.assessment import Assessment
from ..routers.base import Policy, Router, decide_by, learned_rows
from ..routers.call_checks import check_contexts, check_policy
from ..routers.checks import check_names, check_number, check_whole
from ..routers.decision import Context, Decision
from ..routers.errors import InputError
from ..routers.forks import new_lock


@dataclass(frozen=True, slots=True)
class ByContext(Policy):
    """Chooses the policy by one value of the request's context, such as the user's tier.

    Policies may be nested: ``ByContext("tier", {"pro": ByContext("use_case", {...})})``.

    Attributes:
        key: the key of the context, such as "tier" or "use_case".
        policies: the policy for each value of that key.
        default: the policy for other values and for contexts without the key; None: the router's own threshold.

    Example:
        >>> import routelearn
        >>> from routelearn.policies import ByContext
        >>> router = routelearn.load("router/")
        >>> by_tier = ByContext("tier", {"pro": routelearn.Threshold(0.0), "free": routelearn.Threshold(1.1)})
        >>> router.route("Write a sonnet.", by_tier, {"tier": "pro"}).model
        'sim-max'
        >>> router.route("Write a sonnet.", by_tier, {"tier": "free"}).model
        'sim-small'
    """

    key: str
    policies: Mapping[str, Policy]
    default: Policy | None = None

    def __post_init__(self) -> None:
        """Check that there is a policy."""
        if not isinstance(self.key, str):
            raise InputError(f"key is {self.key!r:.80}; expected a key of the context, such as 'tier'")
        if not isinstance(self.policies, Mapping):
            raise InputError(f"policies is {self.policies!r:.80}; expected a mapping: {{'pro': Threshold(0.3)}}")
        if not self.policies:
            raise InputError(f"there are no policies for {self.key!r}; expected one policy or more")
        for value, policy in self.policies.items():
            check_policy(policy, f"the policy for {value!r}")
        check_policy(self.default, "default")

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """Decide each row by the policy for its context.

        Raises:
            InputError: there are more or fewer contexts than rows, or a value of the key is no text.
        """
        if contexts is None:
            return decide_by(self.default, router, assessment, contexts)
        check_contexts(contexts, len(assessment.quality))
        rows_of: dict[str | None, list[int]] = {}
        for row, context in enumerate(contexts):
            value = context.get(self.key)
            if not isinstance(value, Hashable):
                raise InputError(f"the context's {self.key} is {value!r:.80}; expected a text")
            rows_of.setdefault(value if value in self.policies else None, []).append(row)
        decided: dict[int, Decision] = {}
        for value, rows in rows_of.items():
            policy = self.default if value is None else self.policies[value]
            decisions = decide_by(policy, router, assessment.rows(rows), [contexts[row] for row in rows])
            decided.update(zip(rows, decisions, strict=True))
        return [decided[row] for row in range(len(contexts))]


@dataclass(frozen=True, slots=True)
class TopK(Policy):
    """Takes the decisions of another policy, and names the first k candidates as targets.

    Where something else answered in the router's place, only strong and weak are targets: it may know no others.

    Attributes:
        k: the number of models to ask.
        policy: the policy that ranks the candidates; None: the router's own threshold, then quality.

    Example:
        >>> import routelearn
        >>> from routelearn.policies import TopK
        >>> len(routelearn.load("router/").route("Write a sonnet.", TopK(2)).targets)
        2
    """

    k: int
    policy: Policy | None = None

    def __post_init__(self) -> None:
        """Check k."""
        check_whole("k", self.k, 1)
        check_policy(self.policy)

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """Decide by the other policy, and add the targets.

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
            raise InputError(
                f"k is {self.k}; expected at most {len(candidates)}, the number of candidates {list(candidates)}"
            )
        return replace(decision, targets=candidates[: self.k])


#: The `Decision.cause` when the model was drawn at random.
EXPLORE = "explore"


class Explore(Policy):
    """Epsilon-greedy exploration: draws a model at random with probability epsilon, else follows another policy.

    The `propensity` of a decision is the probability with which its model was chosen. With k candidates it is
    ``1 - epsilon + epsilon / k`` for the policy's own choice, ``epsilon / k`` for another candidate, and
    ``1 - epsilon`` for a choice of the policy that is not a candidate. A log with propensities tells the value of any
    other policy by inverse propensity weighting (Horvitz and Thompson 1952): the mean of
    ``outcome * [policy chooses model] / propensity``. Rows that another router answered in this one's place are not
    explored; their propensity is 1. Threads may share one.

    Example:
        >>> import routelearn
        >>> from routelearn.policies import Explore
        >>> always = Explore(epsilon=1.0, seed=0)
        >>> routelearn.load("router/").route("Write a sonnet.", always).propensity  # the pool has four models
        0.25
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
            policy: the policy to follow otherwise, which must not explore itself; None: the router's own threshold.
            epsilon: the share of the queries for which a model is drawn, from 0 to 1.
            candidates: the models to draw from; empty: the whole pool.
            seed: the seed of the draws; None: other draws each time.

        Raises:
            InputError: epsilon is out of range, a candidate is given twice, or the policy is none.
        """
        if isinstance(policy, (int, float)):
            raise InputError(f"policy is {policy}; expected a policy or None: Explore(epsilon={policy})")
        check_policy(policy)
        check_number("epsilon", epsilon, "a number from 0 to 1")
        check_names("candidates", candidates)
        if seed is not None:
            check_whole("seed", seed, 0)
        if not 0 <= epsilon <= 1:
            raise InputError(f"epsilon is {epsilon}; expected a number from 0 to 1")
        if len(set(candidates)) != len(candidates):
            raise InputError(f"candidates are {list(candidates)}; expected each model once")
        self.policy = policy
        self.epsilon = epsilon
        self.candidates = tuple(candidates)
        self._random = np.random.default_rng(seed)
        self._lock = new_lock()

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """Decide by the other policy, draw a model for some rows, and add the propensities.

        Raises:
            InputError: a candidate is not in the pool, or the other policy explores too.
        """
        names = self.candidates or router.models
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
        """Add the propensity to a decision, and the drawn model if one was drawn."""
        if decision.propensity != 1:
            raise InputError("the policy inside Explore explores too; expected a policy that does not explore")
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
            reason=f"explored: drawn from {len(names)} models; else {decision.model}: {decision.reason}",
            propensity=propensity,
        )
