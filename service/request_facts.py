"""What is known of a request beside its query: its needs, its session, its place in an agent's work."""

from __future__ import annotations

from dataclasses import dataclass

from ..policies.agent_rules import AgentTurn
from ..policies.capabilities import Needs

#: What a request is unless something else is known.
USERS_TURN = AgentTurn("user")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """What a gateway knows of a request beside its query; `RequestRules.facts_of` reads it.

    Attributes:
        needs: what the request needs of a model; None: not read.
        session: id of its session; None: it is decided by itself.
        turn: a user's turn, a step of an agent within one, or housekeeping.

    Example:
        >>> import routelearn
        >>> from routelearn.policies import Conversations
        >>> from routelearn.service import RequestRules
        >>> rules = RequestRules(sessions=Conversations())
        >>> body = {"messages": [{"role": "user", "content": "Plan a trip to Oslo."}], "prompt_cache_key": "trip"}
        >>> facts = rules.facts_of(body, routelearn.load("router/"))
        >>> facts.session is not None, facts.tokens
        (True, 6)
    """

    needs: Needs | None = None
    session: str | None = None
    turn: AgentTurn = USERS_TURN

    @property
    def tokens(self) -> int:
        """Estimated tokens that a model reads for the request; 0: not read."""
        return 0 if self.needs is None else self.needs.expected_tokens


#: A request of which nothing but the query is known.
NOTHING_KNOWN = RequestFacts()
