"""Conversations: a session keeps its model unless the score moves by more than a margin."""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from ..routers.base import THRESHOLD, Decision, Model, Source
from ..routers.checks import check_seconds
from ..routers.errors import InputError
from .composed import EXPLORE

#: `Decision.cause` where the session's model was kept, and where it could not be, because it is down.
KEPT, DIVERTED = "kept", "diverted"


@dataclass(slots=True)
class _Session:
    """The model of a session, the score it was chosen at and where from, and when the session was last heard of."""

    model: str
    score: float
    source: Source
    seen: float


@dataclass(slots=True)
class SessionCounts:
    """What came of the decisions that belong to a session, since the start.

    Attributes:
        begun: first requests of a session, and first ones after it was forgotten.
        same: the decision was for the session's model anyway.
        kept: it was for another one; the session kept its model.
        switched: it was for another one, and the session took it.
        diverted: another model than the session's answers this request, because that one is down; it counts as one
            of the above as well.
        evicted: sessions forgotten because there were too many.
        expired: sessions forgotten because they were silent for too long.
    """

    begun: int = 0
    same: int = 0
    kept: int = 0
    switched: int = 0
    diverted: int = 0
    evicted: int = 0
    expired: int = 0


class Conversations:
    """Keeps the models of sessions. Safe to share between threads.

    Hysteresis: a decision for another model than the session's is followed
    only when it is clear by more than `margin`, in units of the score:

    ======================================= ====================================================
    decision                                the session's model is replaced when
    ======================================= ====================================================
    by the threshold, or explored around it score >= threshold + margin, or < threshold - margin
    by another policy, utilities given      (utility[new] - utility[kept]) / 2 > margin
    by another policy, none given           the score has moved by > margin since it was chosen
    by rules or default, for strong         always: the safe direction
    by rules, for weak                      score < threshold - margin, and it was rules or default
                                            that chose the kept model; scores are on one scale then
    ======================================= ====================================================

    A utility is on the scale of a quality; half a difference of qualities is
    what the score moves by (`win_rate`). With margin 0 every decision is taken
    as it is. Session ids are hashed with a key of this object, not stored.
    """

    def __init__(
        self,
        margin: float = 0.1,
        *,
        max_sessions: int = 10_000,
        ttl_s: float | None = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without sessions.

        Args:
            margin: see the class; from 0 (every decision is taken as it is) to 1.
            max_sessions: beyond it the one not heard of for longest is forgotten.
            ttl_s: a session that is silent for longer is forgotten; None: never. Prompt caches are kept for minutes:
                after that, staying saves nothing.
            clock: seconds.

        Raises:
            InputError: an argument is out of its range.
        """
        self._margin = _checked(margin)
        if max_sessions < 1:
            raise InputError(f"max_sessions is {max_sessions}; expected at least 1")
        check_seconds("ttl_s", ttl_s)
        self._max_sessions, self._ttl_s, self._clock = max_sessions, ttl_s, clock
        self._key = os.urandom(32)
        self._lock = threading.Lock()
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()  # the one heard of last is last
        self._counts = SessionCounts()

    def decide(
        self,
        session_id: str | None,
        decision: Decision,
        *,
        margin: float | None = None,
        utility: Mapping[str, float] | None = None,
        available: Callable[[str], bool] | None = None,
    ) -> Decision:
        """The decision for a request of a session.

        Args:
            session_id: whatever tells conversations apart; None or empty: the decision is returned untouched.
            decision: what the router decided for this request alone. One with `targets` is returned untouched.
            margin: of this request, in the place of the object's own; see `margin_of_cost`.
            utility: what the policy ranked the models by for this query, on the scale of a quality.
            available: whether a model is up (`Availability.is_available`). While the session's model is down, the
                first candidate that is up answers; the session returns when it is back. With none up, nothing is
                diverted.

        Returns:
            The decision itself, or a copy with the model that answers as the first candidate, `cause` "kept" or
            "diverted" and the reason. A model that the session would have kept in any case has propensity 1, whatever
            was drawn; with `Explore` around a policy that is no threshold, propensities are approximate.

        Raises:
            InputError: the margin is out of its range.
        """
        limit = self._margin if margin is None else _checked(margin)
        if not session_id or decision.targets:
            return decision
        up = decision.candidates if available is None else [name for name in decision.candidates if available(name)]
        key = hashlib.blake2b(session_id.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).digest()
        with self._lock:
            now = self._clock()
            session = self._session(key, now)
            if session is None:
                session = _Session(decision.model, decision.score, decision.source, now)
                settled = decision
                self._counts.begun += 1
            else:
                settled = self._settle(session, decision, limit, utility)
            self._sessions[key] = session
            if len(self._sessions) > self._max_sessions:
                self._sessions.popitem(last=False)
                self._counts.evicted += 1
            if up and settled.model not in up:
                self._counts.diverted += 1
                settled = _instead(settled, up[0], DIVERTED, f"{settled.model}, the session's model, is down")
        return settled

    def as_dict(self) -> dict[str, int]:
        """The number of sessions, and the counts since the start, as plain data."""
        with self._lock:
            return {"sessions": len(self._sessions), **asdict(self._counts)}

    def _session(self, key: bytes, now: float) -> _Session | None:
        """The session, made the one heard of last; what was silent for too long is forgotten first."""
        while self._ttl_s is not None and self._sessions:
            oldest = next(iter(self._sessions))
            if now - self._sessions[oldest].seen <= self._ttl_s:
                break
            del self._sessions[oldest]
            self._counts.expired += 1
        session = self._sessions.get(key)
        if session is not None:
            session.seen = now
            self._sessions.move_to_end(key)
        return session

    def _settle(
        self, session: _Session, decision: Decision, margin: float, utility: Mapping[str, float] | None
    ) -> Decision:
        """Follow a decision, or keep the model of the session."""
        why = _why_kept(session, decision, margin, utility)
        if decision.model == session.model:
            self._counts.same += 1
            # Whatever had been drawn, the answer would be this model's.
            return decision if why is None or decision.propensity == 1 else replace(decision, propensity=1.0)
        if why is None:
            self._counts.switched += 1
            was = f"the session leaves {session.model}, chosen at {session.score:.4f}"
            session.model, session.score, session.source = decision.model, decision.score, decision.source
            return replace(decision, reason=f"{decision.reason}; {was}")
        self._counts.kept += 1
        return replace(_instead(decision, session.model, KEPT, why), propensity=1.0)


def switch_cost(history_tokens: int, model: Model, cached_price_share: float) -> float | None:
    """What it costs to switch: the new model reads the whole history at full price, not from its prompt cache.

    Args:
        history_tokens: tokens of the conversation so far.
        model: the model switched to.
        cached_price_share: price of a cached input token / its full price, in [0, 1]; 1: the provider has no cache.

    Returns:
        USD more than staying with a model of that price, or None when the price is not known.

    Raises:
        InputError: a number is out of its range.
    """
    if history_tokens < 0 or not 0 <= cached_price_share <= 1:
        raise InputError(
            f"history_tokens is {history_tokens} and cached_price_share {cached_price_share}; "
            "expected 0 or more, and a share from 0 to 1"
        )
    if model.input_price is None:
        return None
    return history_tokens * model.input_price * (1 - cached_price_share) / 1e6


def margin_of_cost(usd: float, value_per_quality_usd: float) -> float:
    """The margin at which a switch is worth its cost.

    A switch gains quality[new] - quality[kept] in this one answer; it pays when
    that is worth more than the cost. The score moves by half of it, hence the
    margin is ``usd / value_per_quality_usd / 2``, at most 1. Where n more
    answers are expected of the session, divide the cost by n.

    Args:
        usd: cost of the switch, `switch_cost`.
        value_per_quality_usd: what an answer of quality 1 is worth above one of quality 0, USD, above 0.

    Raises:
        InputError: a number is out of its range.
    """
    if not (0 <= usd < math.inf and value_per_quality_usd > 0):
        raise InputError(
            f"usd is {usd} and value_per_quality_usd {value_per_quality_usd}; expected 0 or more, and above 0"
        )
    return min(1.0, usd / value_per_quality_usd / 2)


def _why_kept(session: _Session, decision: Decision, margin: float, utility: Mapping[str, float] | None) -> str | None:
    """Why the session keeps its model; None: it takes that of the decision."""
    kept, score = session.model, decision.score
    if margin == 0 or kept not in decision.candidates:
        return None
    fallback = decision.source != "learned"
    if fallback and (decision.source == "default" or score >= decision.threshold):
        return None
    if fallback and session.source == "learned":
        stays = True
        why = f"rules ask for {decision.model}, and move a session that the router began to strong only"
    elif fallback or decision.cause in {THRESHOLD, EXPLORE}:
        stays = -margin <= score - decision.threshold < margin
        why = f"score {score:.4f} is within {margin:.4g} of threshold {decision.threshold:.4f}"
    elif utility is not None and kept in utility and decision.model in utility:
        advantage = (utility[decision.model] - utility[kept]) / 2
        stays = advantage <= margin
        why = f"{decision.model} is ahead by {advantage:.4f}, not more than {margin:.4g}"
    else:
        stays = abs(score - session.score) <= margin
        why = f"score {score:.4f} moved by not more than {margin:.4g}"
    return f"kept {kept}, chosen at {session.score:.4f}: {why}" if stays else None


def _instead(decision: Decision, model: str, cause: str, reason: str) -> Decision:
    others = tuple(name for name in decision.candidates if name != model)
    return replace(decision, model=model, candidates=(model, *others), cause=cause, reason=reason)


def _checked(margin: float) -> float:
    """A margin, refused when it is out of its range."""
    if not 0 <= margin <= 1:
        raise InputError(f"margin is {margin}; expected a number from 0 to 1")
    return margin
