"""Ways to choose the models of a conversation: each prompt by itself, or session by session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...policies.conversation import Conversations
from ...policies.session_lengths import SessionLengths
from ...policies.switch_price import SwitchPrices
from ...routers.base import Router
from ...routers.decision import Decision
from .replay import Choose
from .turns import SessionRequest, Sessions

#: The router's decision for each request of a session, by the session.
Decided = Mapping[str, Sequence[Decision]]


def prompt_choice(decided: Decided, threshold: float, strong: str, weak: str) -> Choose:
    """Chooses by the score of each request alone.

    Args:
        decided: the router's decision for each request, by session.
        threshold: scores at or above it go to strong.
        strong: the strong model.
        weak: the weak model.
    """
    return lambda name, number, request, now: strong if decided[name][number].score >= threshold else weak


def session_choice(
    decided: Decided,
    threshold: float,
    strong: str,
    weak: str,
    prices: SwitchPrices,
    expected_requests: float = 6.0,
) -> Choose:
    """Chooses as a service with sessions does, with the router's decisions at another threshold.

    Args:
        decided: the router's decision for each request, by session.
        threshold: of the decision.
        strong: the strong model.
        weak: the weak model.
        prices: weigh the switches.
        expected_requests: assumed requests of a session before the first sessions were seen.
    """
    clock = [0.0]
    conversations = Conversations(
        prices=prices,
        lengths=SessionLengths(expected_requests),
        max_sessions=max(len(decided), 1),
        ttl_s=None,
        clock=lambda: clock[0],
    )

    def choose(name: str, number: int, request: SessionRequest, now: float) -> str:
        decision = decided[name][number]
        model = strong if decision.score >= threshold else weak
        others = (strong, weak) if model == strong else (weak, strong)
        clock[0] = now
        at = replace(decision, model=model, candidates=others, threshold=threshold)
        return conversations.decide(f"session {name}", at, tokens=request.tokens, step=request.step).model

    return choose


def decisions_of(router: Router, sessions: Sessions) -> dict[str, list[Decision]]:
    """The router's decisions for the requests of each session."""
    queries = [request.query for requests in sessions.values() for request in requests]
    decisions = iter(router.route_batch(queries))
    return {name: [next(decisions) for _ in requests] for name, requests in sessions.items()}
