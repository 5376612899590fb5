"""What a request changes of the router's decision: its place in an agent's work, what it needs, its session."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..policies.agent_rules import AgentRules, default_rules
from ..policies.agent_turns import agent_turn_of, asked_in
from ..policies.capabilities import UNABLE, Needs, among_able, needs_of, says_something
from ..policies.conversation import ESCALATED, Conversations
from ..policies.injected import without_injected
from ..routers.base import Router
from ..routers.decision import Decision, Model
from ..routers.errors import InputError
from ..routers.query import Query
from .request_facts import USERS_TURN, RequestFacts
from .session_ids import SessionNames

logger = logging.getLogger(__name__)

#: The `Decision.cause` of a request of the client itself, such as one for a title, which goes to weak.
HOUSEKEEPING = "housekeeping"


class RequestRules:
    """Reads what is known of a request beside its query, and decides by it. The gateway and the HTTP service share it.

    Attributes:
        sessions: keeps the model of each session; None: each request is decided by itself.
        session_names: where the session of a request is looked for.

    Example:
        >>> import routelearn
        >>> from routelearn.service import RequestRules
        >>> router = routelearn.load("router/")
        >>> rules = RequestRules(pool=[routelearn.Model("sim-small", vision=False)])
        >>> image = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
        >>> query = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]
        >>> facts = rules.facts_of({"messages": query}, router)
        >>> rules.decided(router.route(query), facts, router).model == "sim-small"
        False
    """

    def __init__(
        self,
        *,
        pool: Sequence[Model] | None = None,
        sessions: Conversations | None = None,
        session_names: SessionNames | None = None,
        agents: AgentRules | None = None,
        reads_agents: bool = True,
    ) -> None:
        """Set the rules.

        Args:
            pool: what the models can do, such as ``Model("small", vision=False, max_input_tokens=8000)``: a request
                that needs what a model lacks goes to another one. None: what the router's pool says.
            sessions: keeps the model of each session; None: each request is decided by itself.
            session_names: where the session of a request is looked for; None: the default places.
            agents: what counts as the traffic of an agent; None: the lists that come with routelearn.
            reads_agents: tell steps of agents and housekeeping from users' turns; False: every request is a user's.

        Raises:
            InputError: pool is no list of models.
        """
        if pool is not None and not all(isinstance(model, Model) for model in pool):
            raise InputError(f"pool is {pool!r:.80}; expected models: [Model('gpt-4o-mini', vision=False)]")
        self._given = {model.name: model for model in pool or ()}
        self.sessions = sessions
        self.session_names = session_names or SessionNames()
        self._agents = (agents or default_rules()) if reads_agents else None
        self._described: tuple[Router | None, list[Model], bool] = (None, [], False)

    def pool_of(self, router: Router) -> list[Model]:
        """The models of a router, as `pool` describes them.

        Raises:
            InputError: pool describes a model that the router does not have.
        """
        return self._pool(router)[0]

    def reads_needs(self, router: Router) -> bool:
        """Whether a model of the router lacks anything, so that the needs of requests matter."""
        return self._pool(router)[1]

    def facts_of(
        self,
        request: Mapping[str, Any],
        router: Router,
        headers: Mapping[str, Any] | None = None,
        *,
        owner: str = "",
    ) -> RequestFacts:
        """What is known of a request beside its query, as far as there is a rule for it.

        Args:
            request: the body.
            router: decides it.
            headers: of the request.
            owner: whoever sent it, such as a hash of the API key.
        """
        session = None if self.sessions is None else self.session_names.session_of(request, headers, owner=owner)
        needs: Needs | None = None
        if session is not None or self.reads_needs(router):
            needs = needs_of(request)
        turn = USERS_TURN if self._agents is None else agent_turn_of(request, self._agents)
        return RequestFacts(needs=needs, session=None if session is None else session.id, turn=turn)

    def routed_query(self, query: Query, facts: RequestFacts) -> Query:
        """What the router reads of a query: the user's words, without what an agent added to them.

        Args:
            query: of the request.
            facts: of the request.
        """
        if self._agents is None:
            return query
        asked = asked_in(query, self._agents) if facts.turn.kind == "step" else query
        return without_injected(asked, self._agents)

    def decided(
        self,
        decision: Decision,
        facts: RequestFacts,
        router: Router,
        available: Callable[[str], bool] | None = None,
    ) -> Decision:
        """The final decision for a request.

        Args:
            decision: the router's decision.
            facts: of the request.
            router: made the decision.
            available: says whether a model is up; None: all are.
        """
        pool, lacks = self._pool(router)
        escalates = self._agents.loops(facts.turn) if self._agents is not None else None
        if facts.turn.kind == "housekeeping":
            decision = decision.instead(router.weak, HOUSEKEEPING, f"housekeeping of the client: {facts.turn.why}")
        elif escalates is not None and (self.sessions is None or facts.session is None or decision.targets):
            decision = decision.instead(router.strong, ESCALATED, escalates)
        if lacks and facts.needs is not None:
            decision = among_able(decision, pool, facts.needs, router.strong)
            if decision.cause == UNABLE:
                logger.error("%s; %s is asked", decision.reason, decision.model)
                return decision  # the session's model is as unable
        if self.sessions is None or facts.session is None or facts.turn.kind == "housekeeping":
            return decision
        return self.sessions.decide(
            facts.session,
            decision,
            available=available,
            tokens=facts.tokens,
            step=facts.turn.kind == "step",
            escalate_to=None if escalates is None else router.strong,
            why=escalates or "",
        )

    def _pool(self, router: Router) -> tuple[list[Model], bool]:
        """The models of a router, and whether one of them lacks anything."""
        of, pool, lacks = self._described
        if of is not router:
            unknown = sorted(set(self._given) - set(router.models))
            if unknown:
                raise InputError(
                    f"the pool (models.toml) describes {unknown}; expected the names of the router's models, "
                    f"{list(router.models)}"
                )
            pool = [self._given.get(model.name, model) for model in router.pool]
            lacks = says_something(pool)
            self._described = router, pool, lacks
        return pool, lacks
