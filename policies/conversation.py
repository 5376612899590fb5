"""Conversations: a session keeps its model unless another one is better by more than a margin."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from ..routers.checks import as_number, check_number, check_seconds, check_whole
from ..routers.decision import THRESHOLD, TRAINED, Decision, Model, Source
from ..routers.errors import InputError
from ..routers.forks import new_lock
from ..routers.stand_in import FALLBACK_CAUSES
from .composed import EXPLORE

#: The `Decision.cause` when the session kept its model, and when it could not because its model is down.
KEPT, DIVERTED = "kept", "diverted"
#: Causes of decisions that compared the score with the threshold: the router's, or of the one that stands in for it.
_BY_SCORE = FALLBACK_CAUSES | {THRESHOLD, EXPLORE}


@dataclass(slots=True)
class _Session:
    """A session: its model, the score and source of the decision that chose it, and the time of its last request."""

    model: str
    score: float
    source: Source
    seen: float


@dataclass(slots=True)
class SessionCounts:
    """Counts of the requests of sessions, since the start.

    Attributes:
        begun: requests that began a session, or that came after the session was forgotten.
        same: requests whose decision was for the session's model.
        kept: requests whose decision was for another model, and the session kept its model.
        switched: requests whose decision was for another model, and the session switched to it.
        diverted: requests that another model answered because the session's model is down. Each of them also counts
            as begun, same, kept or switched.
        evicted: sessions that were forgotten because there were too many.
        expired: sessions that were forgotten because they were silent for too long.

    Example:
        >>> from routelearn.policies import SessionCounts
        >>> SessionCounts(begun=2, same=5).begun
        2
    """

    begun: int = 0
    same: int = 0
    kept: int = 0
    switched: int = 0
    diverted: int = 0
    evicted: int = 0
    expired: int = 0


class Conversations:
    """Keeps the model of each session. Threads may share one.

    A session follows a decision for another model only when that decision is clear by more than `margin`, in units
    of the score (hysteresis):

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
    With margin 0 every decision is followed. Session ids are not stored; they are hashed with a key of this object.

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
        margin: float = 0.1,
        *,
        max_sessions: int = 10_000,
        ttl_s: float | None = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without sessions.

        Args:
            margin: how clear a decision must be, from 0 (follow every decision) to 1.
            max_sessions: the most sessions to remember; beyond it, the session that was silent longest is forgotten.
            ttl_s: forget a session after so many silent seconds; None: never. Providers keep prompt caches for
                minutes; after that, staying with a model saves nothing.
            clock: a function that gives the time in seconds.

        Raises:
            InputError: an argument is out of its range.
        """
        self._margin = _checked(margin)
        check_whole("max_sessions", max_sessions, 1)
        check_seconds("ttl_s", ttl_s)
        self._max_sessions, self._ttl_s, self._clock = max_sessions, ttl_s, clock
        self._key = os.urandom(32)
        self._lock = new_lock()
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()  # the most recent session is last
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
        """Decide a request of a session: keep the session's model, or follow the router's decision.

        Args:
            session_id: a text that identifies the conversation; None or empty: the decision is returned unchanged.
            decision: the router's decision for this request alone. A decision with `targets` is returned unchanged.
            margin: the margin for this request; None: the margin of this object. See `margin_of_cost`.
            utility: the utility of each model for this query, on the scale of a quality, if the policy has utilities.
            available: says whether a model is up (`Availability.is_available`). While the session's model is down, the
                first candidate that is up answers, and the session returns to its model later. If no candidate is up,
                nothing changes.

        Returns:
            The decision, or a copy whose first candidate is the model that answers, with the cause "kept" or
            "diverted" and a reason. If the session would have kept the model whatever was drawn, its propensity is 1.
            With `Explore` around a policy that is not a threshold, propensities are approximate.

        Raises:
            InputError: the margin is out of range.
        """
        if not isinstance(decision, Decision):
            raise InputError(f"decision is {decision!r:.80}; expected the decision of router.route(query)")
        if session_id is not None and not isinstance(session_id, str):
            raise InputError(f"session_id is {session_id!r:.80}; expected a text, or None")
        if available is not None and not callable(available):
            raise InputError(f"available is {available!r:.80}; expected a function of a model's name, or None")
        limit = self._margin if margin is None else _checked(margin)
        if not session_id or decision.targets:
            return decision
        up = decision.candidates if available is None else [name for name in decision.candidates if available(name)]
        key = self._hashed(session_id)
        with self._lock:
            now = self._clock()
            session = self._session(key, now)
            if session is None:
                session = _Session(decision.model, decision.score, decision.source, now)
                result = decision
                self._counts.begun += 1
            else:
                result = self._keep_or_follow(session, decision, limit, utility)
            self._sessions[key] = session
            self._forget_beyond()
            if up and result.model not in up:
                self._counts.diverted += 1
                result = _instead(result, up[0], DIVERTED, f"{result.model}, the session's model, is down")
        return result

    def also_named(self, session_id: str, other_id: str) -> None:
        """Find a session by another id as well, such as that of the response which the next request goes on from.

        Args:
            session_id: the id of the session; nothing happens where it is forgotten.
            other_id: the other id. It counts as one more session, which is forgotten by itself.
        """
        with self._lock:
            session = self._session(self._hashed(session_id), self._clock())
            if session is not None:
                self._sessions[self._hashed(other_id)] = session
                self._forget_beyond()

    def as_dict(self) -> dict[str, int]:
        """Return the number of sessions and the counts since the start, as plain data."""
        with self._lock:
            return {"sessions": len(self._sessions), **asdict(self._counts)}

    def _hashed(self, session_id: str) -> bytes:
        return hashlib.blake2b(session_id.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).digest()

    def _forget_beyond(self) -> None:
        """Forget the session that was silent longest, where there are too many."""
        if len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)
            self._counts.evicted += 1

    def _session(self, key: bytes, now: float) -> _Session | None:
        """Forget the sessions that were silent for too long, then look up one and mark it as the most recent."""
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

    def _keep_or_follow(
        self, session: _Session, decision: Decision, margin: float, utility: Mapping[str, float] | None
    ) -> Decision:
        """Follow the decision, or keep the session's model."""
        why = _why_kept(session, decision, margin, utility)
        if decision.model == session.model:
            self._counts.same += 1
            # This model would answer whatever was drawn.
            return decision if why is None or decision.propensity == 1 else replace(decision, propensity=1.0)
        if why is None:
            self._counts.switched += 1
            was = f"the session leaves {session.model}, chosen at {session.score:.4f}"
            session.model, session.score, session.source = decision.model, decision.score, decision.source
            return replace(decision, reason=f"{decision.reason}; {was}")
        self._counts.kept += 1
        return replace(_instead(decision, session.model, KEPT, why), propensity=1.0)


def switch_cost(history_tokens: int, model: Model, cached_price_share: float | None = None) -> float | None:
    """Compute what a switch costs: the new model reads the whole history at full price, not from a prompt cache.

    Args:
        history_tokens: the tokens of the conversation so far, 0 or more.
        model: the model to switch to.
        cached_price_share: the price of a cached input token as a share of the full price, from 0 to 1; 1 means that
            the provider has no prompt cache. None: what the model's `cached_input_price` says, or 1 where it has none.

    Returns:
        The USD that the switch costs more than staying with a model of the same price; None: the price is not known.

    Raises:
        InputError: a number is out of range.
    """
    if not isinstance(model, Model):
        raise InputError(f"model is {model!r:.80}; expected Model(name, input_price=...)")
    check_number("history_tokens", history_tokens, "a number from 0")
    if cached_price_share is None:
        full, cached = model.input_price, model.cached_input_price
        cached_price_share = min(cached / full, 1.0) if full and cached is not None else 1.0
    check_number("cached_price_share", cached_price_share, "a number from 0 to 1")
    if history_tokens < 0 or not 0 <= cached_price_share <= 1:
        raise InputError(
            f"history_tokens is {history_tokens} and cached_price_share is {cached_price_share}; "
            "expected a number from 0, and a number from 0 to 1"
        )
    if model.input_price is None:
        return None
    return history_tokens * model.input_price * (1 - cached_price_share) / 1e6


def margin_of_cost(usd: float, value_per_quality_usd: float) -> float:
    """Compute the margin at which a switch is worth its cost.

    A switch gains quality[new] - quality[kept] in this answer, and pays when that is worth more than it costs. The
    score moves by half of the gain, so the margin is ``usd / value_per_quality_usd / 2``, at most 1. If the session
    is expected to have n more answers, divide the cost by n.

    Args:
        usd: the cost of the switch in USD, from `switch_cost`.
        value_per_quality_usd: how many USD an answer of quality 1 is worth more than one of quality 0, above 0.

    Raises:
        InputError: a number is out of range.
    """
    if not (0 <= as_number(usd) < math.inf and as_number(value_per_quality_usd) > 0):
        raise InputError(
            f"usd is {usd} and value_per_quality_usd is {value_per_quality_usd}; "
            "expected a number from 0, and a number above 0"
        )
    return min(1.0, float(usd) / float(value_per_quality_usd) / 2)


def _why_kept(session: _Session, decision: Decision, margin: float, utility: Mapping[str, float] | None) -> str | None:
    """Say why the session keeps its model; None: it follows the decision."""
    kept, score = session.model, decision.score
    if margin == 0 or kept not in decision.candidates:
        return None
    fallback = decision.source not in TRAINED
    if fallback and (decision.source == "default" or score >= decision.threshold):
        return None
    if fallback and session.source in TRAINED:
        stays = True
        why = (
            f"rules chose {decision.model}, and rules may only move this session to strong, because the router began it"
        )
    elif fallback or decision.cause in _BY_SCORE:
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
    """Return the margin, or refuse it."""
    check_number("margin", margin, "a number from 0 to 1")
    if not 0 <= margin <= 1:
        raise InputError(f"margin is {margin}; expected a number from 0 to 1")
    return margin
