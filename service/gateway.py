"""One router behind a gateway: batches, circuit breakers, monitoring, and the names that the gateway has for models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..availability.availability import Availability
from ..availability.choice import Choice
from ..monitoring.repeats import query_key
from ..routers.base import Policy, Router, check_router
from ..routers.decision import Context, Decision
from ..routers.error_log import log_error
from ..routers.errors import InputError
from ..routers.query import Query
from .batcher import Adjust, Batcher, safe_decision
from .call_ledger import CallLedger
from .defaults import BatchLimits
from .request_facts import NOTHING_KNOWN, RequestFacts
from .request_rules import RequestRules
from .selection import Selection

if TYPE_CHECKING:
    from ..monitoring.decision_log import DecisionLog
    from ..monitoring.routing import RouteMonitor
    from ..monitoring.savings import Savings

logger = logging.getLogger(__name__)


class Gateway:
    """Chooses models for the requests of a gateway, and learns from the outcomes of their calls.

    A gateway never raises on a request: when a query cannot be scored, the strong model is chosen.

    Attributes:
        router: decides the queries.
        rules: what requests change of the router's decision.
        batcher: scores the requests.
        availability: circuit breakers; None: every model counts as available.
        ledger: takes in what calls used.

    Example:
        >>> import asyncio, routelearn
        >>> from routelearn.policies import Threshold
        >>> from routelearn.service import Gateway
        >>> router = routelearn.load("router/")
        >>> gateway = Gateway(router, models={"sim-max": "openai/large", "sim-small": "openai/small"})
        >>> query, policy = "Prove that every group of order 15 is cyclic.", Threshold(0.0)  # all goes to strong
        >>> selection = asyncio.run(gateway.select(query, policy=policy))
        >>> selection.model, selection.fallbacks
        ('openai/large', ('openai/small',))
        >>> gateway.close()
    """

    def __init__(
        self,
        router: Router,
        *,
        models: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        availability: Availability | None = None,
        monitor: RouteMonitor | None = None,
        log: DecisionLog | None = None,
        limits: BatchLimits | None = None,
        rules: RequestRules | None = None,
        savings: Savings | None = None,
        shadow: bool = False,
    ) -> None:
        """Check that the names fit together.

        Args:
            router: decides the queries; mostly a `FallbackRouter`.
            models: the gateway's name for each model of the pool that the gateway has, by the pool's name; None: the
                gateway has all models, under the names of the pool.
            policy: decides requests without a policy; None: the router's threshold.
            availability: circuit breakers; None: every model counts as available.
            monitor: counts the decisions.
            log: keeps the decisions.
            limits: size of a batch, length of the queue and longest wait; None: the defaults.
            rules: what requests change of a decision, such as sessions; None: what models cannot do, as far as the
                router's pool says it.
            savings: counts what calls cost; None: nobody does.
            shadow: decisions are logged, and not acted on.

        Raises:
            InputError: the rules describe a model that the router does not have; a name of `models` is not in the
                router's pool; strong or weak is missing; or two models have one name at the gateway.
        """
        check_router(router)
        if models is not None and not isinstance(models, Mapping):
            raise InputError(f"models is {models!r:.80}; expected a mapping: {{'pool name': 'name at the gateway'}}")
        if availability is not None and not isinstance(availability, Availability):
            raise InputError(f"availability is {availability!r:.80}; expected Availability(models), or None")
        self._names = dict(models) if models is not None else {name: name for name in router.models}
        _check_names(router, self._names)
        pool_names = {name: model for model, name in self._names.items()}
        self._pool_names = {**{model: model for model in self._names}, **pool_names}
        self.router = router
        self.rules = rules or RequestRules()
        self.rules.pool_of(router)  # refuses what does not fit now, and not at the first request
        self.availability = availability
        self._monitor = monitor
        self._log = log
        self.ledger, self.shadow = CallLedger(savings, log), shadow
        self.batcher = Batcher(router, policy, limits=limits, on_decision=self._on_decision)

    def name(self, model: str) -> str:
        """The gateway's name of a model of the pool."""
        return self._names[model]

    def pool_name(self, *names: str | None) -> str | None:
        """The model of the pool that the first known one of these names means; None: none of them is known.

        Known names are those of the gateway and those of the pool, with or without a provider: "openai/x" is x.
        """
        for name in names:
            for form in (name or "", (name or "").split("/", 1)[-1]):
                if form in self._pool_names:
                    return self._pool_names[form]
        return None

    async def decide(
        self, query: Query, context: Context | None = None, policy: Policy | None = None, adjust: Adjust | None = None
    ) -> Decision:
        """The router's decision, as `Batcher.route` makes it; the safe answer when the query cannot be scored."""
        try:
            return await self.batcher.route(query, context, policy, adjust)
        except InputError as error:
            log_error(logger, "a request cannot be scored, the strong model answers", error, logging.INFO)
            # In a thread, because a store that replicas share may keep its caller waiting.
            return await asyncio.to_thread(self._safe_decision, query, error, adjust)

    async def select(
        self,
        query: Query,
        context: Context | None = None,
        policy: Policy | None = None,
        facts: RequestFacts = NOTHING_KNOWN,
    ) -> Selection:
        """The model to ask for a request, and the models to ask when it fails.

        Args:
            query: the query.
            context: describes the request.
            policy: decides; None: the gateway's policy.
            facts: what else is known of the request, from `facts_of`.
        """
        asked = self.rules.routed_query(query, facts)
        return self._available(await self.decide(asked, context, policy, self._adjust(facts)))

    def select_unread(self, error: Exception, facts: RequestFacts = NOTHING_KNOWN) -> Selection:
        """The safe answer, with its fallbacks, for a request whose query cannot be read: strong if it is available.

        Args:
            error: what is wrong with the request; the decision's reason names its type, since a message may quote a
                prompt.
            facts: what else is known of the request.
        """
        level = logging.INFO if isinstance(error, InputError) else logging.ERROR
        log_error(logger, "a request cannot be read, the strong model answers", error, level)
        return self._available(self._safe_decision("", error, self._adjust(facts)))

    def facts_of(
        self, request: Mapping[str, Any], headers: Mapping[str, Any] | None = None, *, owner: str = ""
    ) -> RequestFacts:
        """What is known of a request beside its query; see `RequestRules.facts_of`."""
        return self.rules.facts_of(request, self.router, headers, owner=owner)

    def _safe_decision(self, query: Query, error: Exception, adjust: Adjust | None) -> Decision:
        decision = safe_decision(self.router, "error", type(error).__name__)
        try:
            decision = decision if adjust is None else adjust(decision)
            self._on_decision(query, decision, novelty=None, vector=None, latency_s=None)
        except Exception as failure:  # noqa: BLE001 - the request goes on whatever happens
            log_error(logger, "a decision could not be recorded; the request is not affected", failure)
        return decision

    def _adjust(self, facts: RequestFacts) -> Adjust | None:
        """What a request changes of the router's decision; None: nothing."""
        return None if facts == NOTHING_KNOWN else lambda decision: self._adjusted(decision, facts)

    def _adjusted(self, decision: Decision, facts: RequestFacts) -> Decision:
        """The decision among the gateway's models, by what is known of the request."""
        offered = tuple(one for one in decision.candidates if one in self._names)
        decision = replace(
            decision,
            model=decision.model if decision.model in offered else offered[0],
            candidates=offered,
            targets=tuple(one for one in decision.targets if one in offered),
        )
        up = None if self.availability is None else self.availability.is_available
        return self.rules.decided(decision, facts, self.router, up)

    def _available(self, decision: Decision) -> Selection:
        """Select among the candidates of a decision by their breakers."""
        offered = tuple(model for model in decision.candidates if model in self._names)
        if self.availability is None or self.shadow:  # no probe is taken that nobody would make
            return Selection(
                model=self._names[offered[0]],
                fallbacks=tuple(self._names[model] for model in offered[1:]),
                reason=decision.reason,
                decision=decision,
                asked=offered[0],
            )
        choice = self.availability.choose(offered)
        others = (model for model in self.availability.fallbacks(offered) if model != choice.model)
        return Selection(
            model=self._names[choice.model],
            fallbacks=tuple(self._names[model] for model in others),
            reason=decision.reason if choice.model == decision.model else choice.reason,
            decision=decision,
            asked=choice.model,
            lease=choice.lease,
        )

    def answered(self, session: str, response_id: str, *, owner: str = "") -> None:
        """Note that a session got a response, from which its next request may go on."""
        if self.rules.sessions is not None:
            names = self.rules.session_names
            self.rules.sessions.also_named(session, names.session_of_response(response_id, owner=owner).id)

    def strong_answers(self) -> bool:
        """Whether the breaker of the strong model lets requests through."""
        return self.availability is None or self.availability.is_available(self.router.strong)

    def record(
        self,
        model: str,
        *,
        ok: bool,
        latency_s: float | None = None,
        error: BaseException | None = None,
        selection: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the outcome of a call of a model.

        Args:
            model: the pool's name of the model.
            ok: the model answered.
            latency_s: seconds that the call took; None: not measured.
            error: what went wrong; None: nothing, or not known.
            selection: the request's `Selection.as_dict()` if the gateway selected its model, so that the outcome
                settles the probe of this request and of no other; None: the gateway did not.
        """
        if self.availability is None:
            return
        selected = selection is not None and selection["asked"] == model
        call = Choice(model, position=0, reason="", lease=selection["lease"]) if selected and selection else model
        self.availability.record(call, ok=ok, latency_s=latency_s, error=error)

    def close(self) -> None:
        """Stop the worker thread; requests that still wait get the safe answer."""
        self.batcher.close()

    def _on_decision(
        self, query: Query, decision: Decision, *, novelty: float | None, vector: Any, latency_s: float | None
    ) -> None:
        if self._monitor is not None:
            self._monitor.observe(decision, novelty=novelty, vector=vector, latency_s=latency_s, key=query_key(query))
        if self._log is not None:
            served = self.router.strong if self.shadow else None
            self.ledger.decided(decision, self._log.write(query, decision, latency_s=latency_s, served=served))


def _check_names(router: Router, names: Mapping[str, str]) -> None:
    """Refuse names of models at the gateway that do not fit the router.

    Raises:
        InputError: they do not.
    """
    unknown = set(names) - set(router.models)
    if unknown:
        raise InputError(
            f"models names {sorted(unknown)}, which are not in the pool; expected some of {list(router.models)}"
        )
    if not {router.strong, router.weak} <= set(names):
        raise InputError(f"models names {list(names)}; expected {router.strong!r} and {router.weak!r} among them")
    if len(set(names.values())) != len(names):
        raise InputError(f"models is {dict(names)}; expected a different name for each model")
