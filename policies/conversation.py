"""Conversations: a session keeps its model unless another one is worth more than the switch costs."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from ..routers.checks import check_number
from ..routers.decision import TRAINED, Decision
from ..routers.errors import InputError
from ..routers.forks import new_lock
from .session_lengths import SessionLengths
from .session_margin import BY_SCORE, why_kept
from .session_state import MemorySessions, SessionState, SessionStore
from .switch_price import SwitchPrices

#: The `Decision.cause` when the session kept its model, when it could not because its model is down, and when it was
#: moved to a model for good.
KEPT, DIVERTED, ESCALATED = "kept", "diverted", "escalated"
#: How clear a decision must be by default, in units of the score.
MARGIN = 0.1


@dataclass(slots=True)
class SessionCounts:
    """Counts of the requests of sessions, since the start.

    Attributes:
        begun: requests that began a session, or that came after the session was forgotten.
        same: requests whose decision was for the session's model.
        kept: requests whose decision was for another model, and the session kept its model.
        switched: requests whose decision was for another model, and the session switched to it.
        escalated: requests that moved their session to a model for good, such as after a loop of failing tool calls.
        diverted: requests that another model answered because the session's model is down, or because the session was
            escalated to a model that cannot answer this one. Each of them also counts as one of the others.

    Example:
        >>> from routelearn.policies import SessionCounts
        >>> SessionCounts(begun=2, same=5).begun
        2
    """

    begun: int = 0
    same: int = 0
    kept: int = 0
    switched: int = 0
    escalated: int = 0
    diverted: int = 0


class Conversations:
    """Keeps the model of each session. Threads may share one.

    With `prices`, a session switches when the gain of another model exceeds the price of the switch (`SwitchPrices`).
    Where prices are not known, and for decisions that no threshold made, a session follows a decision for another
    model only when that decision is clear by more than `margin`, in units of the score (hysteresis):

    ========================================== =========================================================
    the decision was made by                   the session switches when
    ========================================== =========================================================
    the threshold, or exploration around it    score >= threshold + margin, or score < threshold - margin
    the general router, in a router's place    the same, with the general router's score and threshold
    another policy, and utilities are given    (utility[new] - utility[kept]) / 2 > margin
    another policy, and no utilities are given the score has moved by more than margin since the choice
    rules or default, and it is for strong     always, because strong is the safe choice
    rules, and it is for weak                  score < threshold - margin, and rules or default chose the
                                               session's model too (their scores are on one scale)
    ========================================== =========================================================

    A utility is on the scale of a quality, and the score moves by half a difference of qualities (see `win_rate`).
    With margin 0 every decision is followed. Session ids are not stored; they are hashed.

    Example:
        >>> import routelearn
        >>> from routelearn.policies import Conversations
        >>> router, sessions = routelearn.load("router/"), Conversations(margin=0.1)
        >>> first = sessions.decide("session 1", router.route("Hello!"))
        >>> sessions.as_dict()["sessions"]
        1
    """

    def __init__(
        self,
        margin: float = MARGIN,
        *,
        prices: SwitchPrices | None = None,
        lengths: SessionLengths | None = None,
        store: SessionStore | None = None,
        max_sessions: int = 10_000,
        ttl_s: float | None = 3600.0,
        clock: Callable[[], float] = time.time,
        salt: bytes | None = None,
    ) -> None:
        """Start without sessions.

        Args:
            margin: how clear a decision must be, from 0 (follow every decision) to 1.
            prices: weigh the price of a switch instead, where prices are known; None: nowhere.
            lengths: tells how many requests a session still has; None: it is learned from now on.
            store: keeps the sessions; None: the memory of this process, with the next two settings.
            max_sessions: the most sessions to remember; beyond it, the session that was silent longest is forgotten.
            ttl_s: forget a session after so many silent seconds; None: never. Providers keep prompt caches for
                minutes; after that, staying with a model saves nothing.
            clock: a function that gives the time in seconds; replicas with one store need one clock.
            salt: key of the hashes of session ids, up to 64 bytes; None: a random one. Replicas with one store need
                one salt.

        Raises:
            InputError: an argument is out of its range.
        """
        self._margin = _checked(margin)
        if prices is not None and not isinstance(prices, SwitchPrices):
            raise InputError(f"prices is {prices!r:.80}; expected SwitchPrices(models=[...]), or None")
        self._prices = prices
        self._lengths = lengths or SessionLengths()
        self._store: SessionStore = store if store is not None else MemorySessions(max_sessions, ttl_s)
        self._clock = clock
        self._key = os.urandom(32) if salt is None else salt
        self._lock = new_lock()
        self._counts = SessionCounts()

    def decide(
        self,
        session_id: str | None,
        decision: Decision,
        *,
        margin: float | None = None,
        utility: Mapping[str, float] | None = None,
        available: Callable[[str], bool] | None = None,
        tokens: int = 0,
        step: bool = False,
        escalate_to: str | None = None,
        why: str = "",
    ) -> Decision:
        """Decide a request of a session: keep the session's model, or follow the router's decision.

        Args:
            session_id: a text that identifies the conversation; None or empty: the decision is returned unchanged.
            decision: the router's decision for this request alone. A decision with `targets` is returned unchanged.
            margin: the margin for this request; None: the margin of this object. See `margin_of_cost`.
            utility: the utility of each model for this query, on the scale of a quality, if the policy has utilities.
            available: says whether a model is up (`Availability.is_available`). While the session's model is down, the
                first candidate that is up answers. With `prices`, the session then stays with that one until a switch
                is worth its price; without them it returns to its model.
            tokens: estimated tokens of the request, which the session's model reads; 0: not known.
            step: the request goes on after a tool call within the user's turn. The session then keeps its model.
            escalate_to: the model that the session moves to now, if it is a candidate, and keeps; None: it goes on.
            why: the reason for that.

        Returns:
            The decision, or a copy whose first candidate is the model that answers, with the cause "kept", "diverted"
            or "escalated" and a reason. If the session would have kept the model whatever was drawn, its propensity is
            1. With `Explore` around a policy that is not a threshold, propensities are approximate.

        Raises:
            InputError: the margin is out of range.
        """
        _check_request(session_id, decision, available)
        limit = self._margin if margin is None else _checked(margin)
        if not session_id or decision.targets:
            return decision
        up = decision.candidates if available is None else [name for name in decision.candidates if available(name)]
        request = _Request(decision, limit, utility, up, tokens, step, escalate_to, why, self._clock())
        outcome: list[tuple[Decision, str]] = []

        def change(session: SessionState | None) -> SessionState:
            chosen, event = self._chosen(session, request)
            result = _among_up(chosen, up)
            outcome[:] = [(result, event)]  # the last one counts, where the store calls this again
            # A session that is escalated waits for its model, also where prices would let it stay with another one.
            waits = self._prices is None or event == "escalated"
            return self._after(session, request, chosen if waits else result, result.model, event)

        state = self._store.update(self._hashed(session_id), request.now, change)
        self._lengths.reached(state.requests)
        result, event = outcome[0]
        with self._lock:
            setattr(self._counts, event, getattr(self._counts, event) + 1)
            self._counts.diverted += result.cause == DIVERTED
        note = self._store.note
        return replace(result, reason=f"{result.reason}; {note}") if note else result

    def also_named(self, session_id: str, other_id: str) -> None:
        """Find a session by another id as well, such as that of the response which the next request goes on from.

        Args:
            session_id: the id of the session; nothing happens where it is forgotten.
            other_id: the other id. It counts as one more session, which is forgotten by itself.
        """
        self._store.alias(self._hashed(session_id), self._hashed(other_id))

    def as_dict(self) -> dict[str, int]:
        """Return the number of sessions and the counts since the start, as plain data."""
        with self._lock:
            return {**asdict(self._counts), **self._store.as_dict()}

    def _hashed(self, session_id: str) -> str:
        return hashlib.blake2b(session_id.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).hexdigest()

    def _chosen(self, session: SessionState | None, request: _Request) -> tuple[Decision, str]:
        """The decision for a request, as if every model was up, and the count of `SessionCounts` that it belongs to."""
        decision = request.decision
        goal = request.escalate_to
        is_escalated = session is not None and session.escalated and session.model in decision.candidates
        if goal is not None and goal in decision.candidates and not is_escalated:
            return decision.instead(goal, ESCALATED, request.why), "escalated"
        if session is None:
            return decision, "begun"
        if session.escalated and not is_escalated:
            why = f"{session.model}, to which the session was escalated, cannot answer this request"
            return replace(decision, cause=DIVERTED, reason=f"{decision.reason}; {why}"), "kept"
        if is_escalated:
            stays: str | None = f"the session was escalated: {session.escalated}"
            cause = ESCALATED
        elif request.step and session.model in decision.candidates:
            stays, cause = f"kept {session.model}: the request goes on after a tool call", KEPT
        else:
            stays, cause = self._why_kept(session, request), KEPT
        if decision.model == session.model:
            # This model would answer whatever was drawn.
            same = decision if stays is None or decision.propensity == 1 else replace(decision, propensity=1.0)
            return same, "same"
        if stays is None:
            was = f"the session leaves {session.model}, chosen at {session.score:.4f}"
            return replace(decision, reason=f"{decision.reason}; {was}"), "switched"
        return decision.instead(session.model, cause, stays), "kept"

    def _after(
        self, session: SessionState | None, request: _Request, chosen: Decision, answers: str, event: str
    ) -> SessionState:
        """The session after a request.

        Args:
            session: before it; None: it begins.
            request: the request.
            chosen: the decision for the session's model.
            answers: the model that answers.
            event: the count of `SessionCounts` that the request belongs to.
        """
        decision = request.decision
        if session is None:
            after = SessionState(chosen.model, decision.score, decision.source, request.now)
        else:
            after = session.copy()
            if chosen.model != session.model and (event == "escalated" or not session.escalated):
                after.model, after.score, after.source = chosen.model, decision.score, decision.source
        if event == "escalated":
            after.escalated = request.why
        after.seen = request.now
        after.requests += 1
        if not request.step and decision.source in TRAINED:
            after.scored += 1
            after.score_sum += decision.score
        if request.tokens < after.context:  # the beginning was left out, so that no cache fits
            after.read.clear()
        after.context = request.tokens
        after.read[answers] = (request.tokens, request.now)
        return after

    def _why_kept(self, session: SessionState, request: _Request) -> str | None:
        """Say why the session keeps its model; None: it follows the decision."""
        decision = request.decision
        if self._prices is not None and decision.source in TRAINED and decision.cause in BY_SCORE:
            other = decision.model
            if other == session.model:  # the decision that was not drawn
                others = [name for name in decision.candidates if name != session.model]
                other = others[0] if len(others) == 1 else other
            switch = self._prices.switch(
                session,
                other,
                tokens=request.tokens,
                score=decision.score,
                threshold=decision.threshold,
                requests_left=self._lengths.left(session.requests + 1),
                now=request.now,
            )
            if switch is not None and session.model in decision.candidates:
                if switch.gain > switch.price:
                    return None
                return (
                    f"kept {session.model}, chosen at {session.score:.4f}: {other} gains {switch.gain:.2g} USD, "
                    f"and the switch costs {switch.price:.2g} USD"
                )
        return why_kept(session, decision, request.margin, request.utility)


@dataclass(frozen=True, slots=True)
class _Request:
    """A request of a session; see `Conversations.decide`."""

    decision: Decision
    margin: float
    utility: Mapping[str, float] | None
    up: Sequence[str]
    tokens: int
    step: bool
    escalate_to: str | None
    why: str
    now: float


def _among_up(chosen: Decision, up: Sequence[str]) -> Decision:
    """The decision among the models that are up, for the session's model if that one is."""
    result = chosen
    if up and chosen.model not in up:
        down = chosen.instead(up[0], DIVERTED, f"{chosen.model}, the session's model, is down")
        result = replace(down, propensity=chosen.propensity)
    # The only one that is up answers whatever was drawn.
    return replace(result, propensity=1.0) if len(up) == 1 and result.propensity != 1 else result


def _check_request(session_id: object, decision: object, available: object) -> None:
    if not isinstance(decision, Decision):
        raise InputError(f"decision is {decision!r:.80}; expected the decision of router.route(query)")
    if session_id is not None and not isinstance(session_id, str):
        raise InputError(f"session_id is {session_id!r:.80}; expected a text, or None")
    if available is not None and not callable(available):
        raise InputError(f"available is {available!r:.80}; expected a function of a model's name, or None")


def _checked(margin: float) -> float:
    """Return the margin, or refuse it."""
    check_number("margin", margin, "a number from 0 to 1")
    if not 0 <= margin <= 1:
        raise InputError(f"margin is {margin}; expected a number from 0 to 1")
    return margin
