"""The k best models of each query, for answers that are put together from several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..routers.base import Assessment, Context, Decision, Router
from ..routers.errors import InputError
from .threshold import Policy, decide_by, learned_rows


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
