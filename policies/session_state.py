"""What is known of one session, and where it is kept: in memory here, or in a store that replicas share."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..routers.checks import check_seconds, check_whole
from ..routers.decision import Source
from ..routers.forks import new_lock

#: Makes the new state of a session from the old one; None: the session begins. It may be called more than once.
Change = Callable[["SessionState | None"], "SessionState"]


@dataclass(slots=True)
class SessionState:
    """A session: its model, how it came to it, and what the models have read of the conversation.

    Attributes:
        model: the session's model.
        score: the score of the decision that chose the model.
        source: what made that decision.
        seen: time of the last request, in seconds.
        requests: requests so far.
        scored: requests so far that were scored, which are the turns of the user.
        score_sum: sum of the scores of these requests.
        context: estimated tokens of the last request.
        read: tokens that each model has read of the conversation, and when, by the model's name.
        escalated: why the session stays with strong from now on; empty: it does not.

    Example:
        >>> from routelearn.policies import SessionState
        >>> state = SessionState("sim-small", 0.4, "learned", seen=0.0)
        >>> SessionState.from_json(state.as_json()) == state
        True
    """

    model: str
    score: float
    source: Source
    seen: float
    requests: int = 0
    scored: int = 0
    score_sum: float = 0.0
    context: int = 0
    read: dict[str, tuple[int, float]] = field(default_factory=dict)
    escalated: str = ""

    def copy(self) -> SessionState:
        """A state that can be changed while this one stays."""
        return SessionState(
            self.model,
            self.score,
            self.source,
            self.seen,
            self.requests,
            self.scored,
            self.score_sum,
            self.context,
            dict(self.read),
            self.escalated,
        )

    def as_json(self) -> str:
        """The state as JSON: a list of the fields in their order, because a session is kept in this form."""
        return _write([getattr(self, name) for name in self.__slots__])

    @classmethod
    def from_json(cls, text: str | bytes) -> SessionState | None:
        """The state that `as_json` wrote; None: the text is something else, such as that of a newer version."""
        try:
            fields: Any = json.loads(text)
            state = cls(*fields) if isinstance(fields, list) else None
            if state is None or not state._is_sound():
                return None
            state.read = {name: (int(tokens), float(when)) for name, (tokens, when) in state.read.items()}
        except (TypeError, ValueError, OverflowError, RecursionError):
            return None
        return state

    def _is_sound(self) -> bool:
        numbers, counts = (self.score, self.seen, self.score_sum), (self.requests, self.scored, self.context)
        texts = (self.model, self.source, self.escalated)
        return (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers)
            and all(isinstance(count, int) and count >= 0 for count in counts)
            and isinstance(self.read, dict)
        )


_write = json.JSONEncoder(separators=(",", ":")).encode


class SessionStore(Protocol):
    """Where sessions are kept, by hashed ids.

    Example:
        >>> from routelearn.policies import MemorySessions, SessionState, SessionStore
        >>> store: SessionStore = MemorySessions(max_sessions=1000)
        >>> store.update("session 1", 0.0, lambda state: state or SessionState("sim-small", 0.4, "learned", 0.0)).model
        'sim-small'
    """

    @property
    def note(self) -> str:
        """What decisions say of the store at present, such as that it is down; empty: nothing."""
        ...

    def update(self, key: str, now: float, change: Change) -> SessionState:
        """Change a session as one step, and return the new state. It never raises an error of the store.

        Args:
            key: the hashed id.
            now: time in seconds.
            change: called with the old state; called again where another replica wrote in between.
        """
        ...

    def alias(self, key: str, other: str) -> None:
        """Find a session by another key as well, if the session is known."""
        ...

    def as_dict(self) -> dict[str, int]:
        """The number of sessions ("sessions"), and counts since the start, as plain data."""
        ...


class MemorySessions:
    """Sessions in the memory of this process. Threads may share one.

    A session is kept as JSON, which takes half of the memory that the object takes.

    Example:
        >>> from routelearn.policies import MemorySessions
        >>> MemorySessions(max_sessions=1000).as_dict()
        {'sessions': 0, 'evicted': 0, 'expired': 0}
    """

    #: See `SessionStore.note`.
    note = ""

    def __init__(self, max_sessions: int = 10_000, ttl_s: float | None = 3600.0) -> None:
        """Start without sessions.

        Args:
            max_sessions: the most sessions to remember; beyond it, the session that was silent longest is forgotten.
            ttl_s: forget a session after so many silent seconds; None: never.

        Raises:
            InputError: an argument is out of its range.
        """
        check_whole("max_sessions", max_sessions, 1)
        check_seconds("ttl_s", ttl_s)
        self._max_sessions, self._ttl_s = max_sessions, ttl_s
        self._lock = new_lock()
        self._sessions: OrderedDict[str, bytes] = OrderedDict()  # the most recent session is last
        self._none_before = -math.inf  # no session is silent for too long before this time
        self._evicted = self._expired = 0

    def update(self, key: str, now: float, change: Change) -> SessionState:
        """Change a session as one step, and return the new state.

        Args:
            key: the hashed id.
            now: time in seconds.
            change: called with the old state.
        """
        with self._lock:
            self._forget_silent(now)
            state = change(_read(self._sessions.get(key)))
            self._put(key, state.as_json().encode())
        return state

    def alias(self, key: str, other: str) -> None:
        """Find a session by another key as well. The other key counts as one more session, forgotten by itself."""
        with self._lock:
            state = self._sessions.get(key)
            if state is not None:
                self._put(other, state)

    def kept(self, key: str, now: float) -> bytes | None:
        """A session in the form in which it is kept, which is the JSON of its state; None: it is not known.

        Args:
            key: the hashed id.
            now: time in seconds.
        """
        with self._lock:
            self._forget_silent(now)
            return self._sessions.get(key)

    def keep(self, key: str, state: bytes) -> None:
        """Keep a session that was changed elsewhere.

        Args:
            key: the hashed id.
            state: the JSON of its state.
        """
        with self._lock:
            self._put(key, state)

    def as_dict(self) -> dict[str, int]:
        """The number of sessions, and how many were forgotten since the start."""
        with self._lock:
            return {"sessions": len(self._sessions), "evicted": self._evicted, "expired": self._expired}

    def _put(self, key: str, state: bytes) -> None:
        self._sessions[key] = state
        self._sessions.move_to_end(key)
        while len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)
            self._evicted += 1

    def _forget_silent(self, now: float) -> None:
        """Forget the sessions that were silent for too long; the oldest one is read only when that may be so."""
        if self._ttl_s is None or now <= self._none_before:
            return
        while self._sessions:
            oldest = _read(next(iter(self._sessions.values())))
            if oldest is not None and now - oldest.seen <= self._ttl_s:
                self._none_before = oldest.seen + self._ttl_s
                break
            self._sessions.popitem(last=False)
            self._expired += 1


def _read(kept: bytes | None) -> SessionState | None:
    return None if kept is None else SessionState.from_json(kept)
