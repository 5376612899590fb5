"""Plug-ins for LiteLLM's router. LiteLLM calls them by the names of their methods, so nothing of LiteLLM is imported.

A routing plug-in (LiteLLM 1.94 or newer) narrows the deployments of a model group to those of the chosen model. A
classifier plug-in (1.99 or newer) names the tier of a request for LiteLLM's complexity router.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ...routers.decision import Decision
from ...routers.error_log import log_error
from ...routers.errors import InputError
from ...routers.query import Query
from ..batcher import safe_decision
from ..gateway import Gateway
from ..request_facts import RequestFacts
from ..wire_names import METADATA_SELECTION
from .requests import context_of, policy_of, selection_in
from .seat import Place, place_in
from .usage import noted

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class RoutingContext(Protocol):
    """The object that LiteLLM passes to a plug-in, and that a routing plug-in returns."""

    structured_messages: list[dict[str, Any]]
    candidate_models: list[str]
    metadata: dict[str, Any]
    signals: dict[str, Any]


C = TypeVar("C", bound=RoutingContext)


class _SharedPlugin:
    """A plug-in whose copies are the plug-in itself, because LiteLLM copies its configuration with the plug-ins."""

    def __deepcopy__(self, memo: object) -> Self:
        return self


class RoutingPlugin(_SharedPlugin):
    """Keeps those deployments of a model group that serve the chosen model.

    LiteLLM calls the plug-in for every request. A group whose deployments serve fewer than two models of the pool is
    left as it is.

    LiteLLM calls the plug-in again when it retries a request that failed. The models that were tried are then left
    out, so that the retry goes to the next candidate.

    Example:
        >>> import routelearn
        >>> from routelearn.service import Gateway, RoutingPlugin
        >>> gateway = Gateway(routelearn.load("router/"))
        >>> routing_plugin = RoutingPlugin(gateway)  # config.yaml: plugins: [gateway.routing_plugin]
    """

    def __init__(self, gateway: Gateway) -> None:
        """Set the gateway.

        Args:
            gateway: chooses the model; its names are those of the deployments.
        """
        self._gateway = gateway

    async def run(self, context: C) -> C:
        """Narrow `candidate_models`, and put the selection into `signals["routelearn"]`.

        When anything goes wrong, the candidates stay as they are.

        Args:
            context: the request, as LiteLLM passes it.
        """
        try:
            await self._narrow(context)
        except Exception as error:  # noqa: BLE001 - the request goes on whatever happens
            log_error(logger, "routing failed; LiteLLM chooses among all deployments", error)
        return context

    async def _narrow(self, context: RoutingContext) -> None:
        pool = {name: self._gateway.pool_name(name) for name in context.candidate_models}
        offered = {model for model in pool.values() if model is not None}
        if len(offered) < 2:
            return
        earlier = selection_in(context.metadata)
        if earlier is None or "order" not in earlier:
            policy = policy_of(context.metadata)
            selection = await self._gateway.select(
                context.structured_messages, context_of(context.metadata), policy, self._facts_of(context)
            )
            order = [self._gateway.pool_name(name) for name in (selection.model, *selection.fallbacks)]
            earlier = {**noted(self._gateway, selection), "order": order, "tried": []}
        order = [model for model in earlier["order"] if model in offered]
        left = [model for model in order if model not in earlier["tried"]] or order
        if not left or self._gateway.shadow:
            return
        context.candidate_models = [name for name in context.candidate_models if pool[name] == left[0]]
        context.signals[METADATA_SELECTION] = {**earlier, "tried": [*earlier["tried"], left[0]]}

    def _facts_of(self, context: RoutingContext) -> RequestFacts:
        """What is known of a request: by the hook, which sees all of it, else by its messages and its metadata."""
        place = context.metadata.get(METADATA_SELECTION)
        if isinstance(place, Place):
            return place.facts
        request = {"messages": context.structured_messages, "metadata": context.metadata}
        owner = context.metadata.get("user_api_key_hash") or context.metadata.get("user_api_key")
        return self._gateway.facts_of(request, owner=owner if isinstance(owner, str) else "")


class ClassifierPlugin(_SharedPlugin):
    """Names the tier of a request for LiteLLM's complexity router, by the score of the query.

    A tier here is one of LiteLLM's names for how complex a request is, such as SIMPLE.

    Example:
        >>> import routelearn
        >>> from routelearn.service import ClassifierPlugin, Gateway
        >>> gateway = Gateway(routelearn.load("router/"))
        >>> classifier_plugin = ClassifierPlugin(gateway, {"SIMPLE": 0, "MEDIUM": 0.4, "COMPLEX": 0.7})
    """

    def __init__(self, gateway: Gateway, tiers: Mapping[str, float] | None = None) -> None:
        """Set the lowest score of each tier.

        Args:
            gateway: scores the queries.
            tiers: lowest score of each tier; one tier begins at 0. The score alone then names the tier. None: SIMPLE
                for requests that go to weak, COMPLEX for requests that go to strong, and the breakers, the sessions
                and the needs of a request count as well.

        Raises:
            InputError: no tier begins at 0.
        """
        if tiers is not None and min(tiers.values(), default=1.0) != 0:
            raise InputError(f"tiers is {dict(tiers)}; expected one tier with the lowest score 0, and no lower scores")
        self._gateway = gateway
        self._tiers = sorted(tiers.items(), key=lambda tier: -tier[1]) if tiers else None

    async def classify(self, context: RoutingContext) -> str:
        """The tier of a request; the highest tier when anything goes wrong.

        Args:
            context: the request, as LiteLLM passes it.
        """
        try:
            return await self._classified(context.structured_messages, context.metadata)
        except Exception as error:  # noqa: BLE001 - the request goes on whatever happens
            log_error(logger, "scoring failed; the highest tier is the safe answer", error)
            return self._tier(safe_decision(self._gateway.router, "error", type(error).__name__))

    async def _classified(self, query: Query, metadata: Mapping[str, Any]) -> str:
        of_key = metadata.get("user_api_key_metadata")
        of_key = of_key if isinstance(of_key, Mapping) else {}
        request_context, policy = context_of(metadata, of_key), policy_of(metadata, of_key)
        if self._tiers is not None:
            return self._tier(await self._gateway.decide(query, request_context, policy))
        place = place_in(metadata)
        selection = await self._gateway.select(query, request_context, policy, place.facts)
        place.update(noted(self._gateway, selection))
        is_weak = selection.asked == self._gateway.router.weak and not self._gateway.shadow
        return "SIMPLE" if is_weak else "COMPLEX"

    def _tier(self, decision: Decision) -> str:
        if self._gateway.shadow:
            return self._tiers[0][0] if self._tiers else "COMPLEX"
        if self._tiers is None:
            return "SIMPLE" if decision.model == self._gateway.router.weak else "COMPLEX"
        return next(name for name, lowest in self._tiers if decision.score >= lowest)
