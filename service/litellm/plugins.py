"""Plug-ins of LiteLLM's router, by structural typing: nothing of LiteLLM is imported.

A routing plug-in (LiteLLM 1.94 or newer) narrows the deployments of a model
group to those of the chosen model. A classifier plug-in (1.99 or newer) names
the tier for LiteLLM's complexity router.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ...routers.base import Decision
from ...routers.errors import InputError
from ...routers.query import Query
from ..batcher import safe_decision
from ..gateway import Gateway
from .requests import DECISION, context_of, policy_of, selection_in

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class RoutingContext(Protocol):
    """What LiteLLM hands to a plug-in, and takes back from a routing plug-in."""

    structured_messages: list[dict[str, Any]]
    candidate_models: list[str]
    metadata: dict[str, Any]
    signals: dict[str, Any]


C = TypeVar("C", bound=RoutingContext)


class _Shared:
    """LiteLLM copies its configuration, plug-ins included: every copy of a plug-in is the plug-in."""

    def __deepcopy__(self, memo: object) -> Self:
        return self


class RoutingPlugin(_Shared):
    """Leaves of a model group's deployments those of the model that the router chose.

    LiteLLM asks for every request, also for those to groups that are no choice;
    a group with deployments of fewer than two models of the pool is left alone.

    LiteLLM asks again when it retries a request that failed. The models that
    were tried are then left out, so that a retry goes to the next candidate.
    """

    def __init__(self, gateway: Gateway) -> None:
        """Take the gateway whose pool the candidates belong to."""
        self._gateway = gateway

    async def run(self, context: C) -> C:
        """Narrow `candidate_models`, and say why in `signals["routelearn"]`; whatever goes wrong, leave them alone."""
        try:
            await self._narrow(context)
        except Exception:
            logger.exception("routing failed; LiteLLM chooses among all deployments")
        return context

    async def _narrow(self, context: RoutingContext) -> None:
        pool = {name: self._gateway.pool_name(name) for name in context.candidate_models}
        offered = {model for model in pool.values() if model is not None}
        if len(offered) < 2:
            return
        earlier = selection_in(context.metadata)
        if earlier is None or "order" not in earlier:
            policy = policy_of(context.metadata)
            selection = await self._gateway.select(context.structured_messages, context_of(context.metadata), policy)
            order = [self._gateway.pool_name(name) for name in (selection.model, *selection.fallbacks)]
            earlier = {**selection.as_dict(), "order": order, "tried": []}
        order = [model for model in earlier["order"] if model in offered]
        left = [model for model in order if model not in earlier["tried"]] or order
        if not left:
            return
        context.candidate_models = [name for name in context.candidate_models if pool[name] == left[0]]
        context.signals[DECISION] = {**earlier, "tried": [*earlier["tried"], left[0]]}


class ClassifierPlugin(_Shared):
    """Names the tier of a request for LiteLLM's complexity router, from the score."""

    def __init__(self, gateway: Gateway, tiers: Mapping[str, float] | None = None) -> None:
        """Set where the tiers begin.

        Args:
            gateway: scores the queries; its breakers are not asked, since LiteLLM chooses the model.
            tiers: for each tier the lowest score that belongs to it, the lowest tier's being 0. None: SIMPLE for what
                goes to weak, COMPLEX for what goes to strong, as the router (and a request's own threshold) decides.

        Raises:
            InputError: no tier begins at 0.
        """
        if tiers is not None and min(tiers.values(), default=1.0) != 0:
            raise InputError(f"tiers begin at {dict(tiers)}; expected one that begins at score 0")
        self._gateway = gateway
        self._tiers = sorted(tiers.items(), key=lambda tier: -tier[1]) if tiers else None

    async def classify(self, context: RoutingContext) -> str:
        """The tier; whatever goes wrong, the highest."""
        query: Query = context.structured_messages
        try:
            decision = await self._gateway.decide(query, context_of(context.metadata), policy_of(context.metadata))
        except Exception as error:
            logger.exception("scoring failed; the highest tier is the safe answer")
            decision = safe_decision(self._gateway.router, "error", type(error).__name__)
        return self._tier(decision)

    def _tier(self, decision: Decision) -> str:
        if self._tiers is None:
            return "SIMPLE" if decision.model == self._gateway.router.weak else "COMPLEX"
        return next(name for name, lowest in self._tiers if decision.score >= lowest)
