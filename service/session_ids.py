"""Which session a request belongs to: by what the client says, else by how the conversation began."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..routers.errors import InputError
from ..routers.messages import USER, as_mapping, turn_of
from ..routers.query import Query

#: Where a session id came from.
SessionSource = Literal["metadata", "header", "body", "response", "user", "fingerprint"]
#: Fields of a request's metadata that name a session, the first one that is there.
METADATA_FIELDS = ("session_id", "conversation_id", "thread_id")
#: Headers that name a session, in lower case. LiteLLM makes the last one up where the client names no session.
HEADERS = (
    *("x-session-id", "x-litellm-session-id", "x-conversation-id", "x-thread-id", "x-claude-code-session-id"),
    *("helicone-session-id", "x-litellm-trace-id"),
)
#: Fields of a request's body that name a session.
BODY_FIELDS = ("litellm_session_id", "session_id", "conversation", "prompt_cache_key", "litellm_trace_id")
#: The field with the id of the response that a request goes on from. Each response has another id.
PREVIOUS = "previous_response_id"
#: Longest id; a longer one is no id.
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class SessionId:
    """The session of a request.

    Attributes:
        id: names it, as a hash; ids of different sources and owners never meet.
        source: where it came from.

    Example:
        >>> from routelearn.service import SessionId, SessionNames
        >>> isinstance(SessionNames().session_of({"prompt_cache_key": "chat 7"}), SessionId)
        True
    """

    id: str
    source: SessionSource


@dataclass(frozen=True, kw_only=True)
class SessionNames:
    """Where the session of a request is looked for, in this order.

    The metadata, the headers, the body, the response that the request goes on from, the user, the beginning of the
    conversation.

    Attributes:
        metadata: fields of the metadata.
        headers: headers, in lower case.
        body: fields of the body.
        user: count all requests of one `user` (or `safety_identifier`) as one session.
        fingerprint: where nothing names a session, take the system prompt and the first user turn for it.

    Example:
        >>> from routelearn.service import SessionNames
        >>> names = SessionNames()
        >>> names.session_of({"metadata": {"session_id": "s-1"}}).source
        'metadata'
        >>> first = [{"role": "user", "content": "Plan a trip to Oslo."}]
        >>> later = [*first, {"role": "assistant", "content": "Sure."}, {"role": "user", "content": "And back."}]
        >>> names.session_of({"messages": first}) == names.session_of({"messages": later})
        True
    """

    metadata: Sequence[str] = METADATA_FIELDS
    headers: Sequence[str] = HEADERS
    body: Sequence[str] = BODY_FIELDS
    user: bool = False
    fingerprint: bool = True

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            InputError: one of them is no text.
        """
        for name in ("metadata", "headers", "body"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(one, str) and one for one in value):
                raise InputError(f"{name} is {value!r:.80}; expected a list of names")

    def session_of(
        self,
        request: Mapping[str, Any],
        headers: Mapping[str, Any] | None = None,
        *,
        query: Query | None = None,
        owner: str = "",
    ) -> SessionId | None:
        """The session of a request; None: nothing tells it.

        Args:
            request: the body, with its metadata.
            headers: of the request.
            query: the query, where it is read already; for the fingerprint alone.
            owner: whoever sent the request, such as a hash of the API key; two owners have no session in common.
        """
        found = self._said(request, headers or {})
        if found is None and self.fingerprint:
            text = _beginning(request.get("messages") if query is None else query)
            if text is not None:
                found = text, "fingerprint"
        return None if found is None else SessionId(_hashed(found[1], owner, found[0]), found[1])

    def session_of_response(self, response_id: str, *, owner: str = "") -> SessionId:
        """The session of the requests that go on from a response, by the id of the response."""
        return SessionId(_hashed("response", owner, response_id), "response")

    def _said(self, request: Mapping[str, Any], headers: Mapping[str, Any]) -> tuple[str, SessionSource] | None:
        """What the client says, and where."""
        lower = {str(name).lower(): value for name, value in headers.items()}
        places: list[tuple[SessionSource, Mapping[str, Any], Sequence[str]]] = [
            ("metadata", as_mapping(request.get("metadata")) or {}, self.metadata),
            ("metadata", as_mapping(request.get("litellm_metadata")) or {}, self.metadata),
            ("header", lower, self.headers),
            ("body", request, self.body),
            ("response", request, (PREVIOUS,)),
            ("user", request, ("user", "safety_identifier") if self.user else ()),
        ]
        for source, values, names in places:
            value = _first(values, names)
            if value is not None:
                return value, source
        return None


def _hashed(source: str, owner: str, text: str) -> str:
    content = "\0".join((source, owner, text)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _first(values: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of these values that can be an id: a text, a number, or a mapping with an id."""
    for name in names:
        value = values.get(name)
        inner = as_mapping(value) if value is not None and not isinstance(value, (str, int)) else None
        if inner is not None:
            value = inner.get("id")
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            continue
        text = str(value).strip()
        if 0 < len(text) <= _LONGEST:
            return text
    return None


def _beginning(query: object) -> str | None:
    """How a conversation began: its system prompt and its first user turn; None: it has none."""
    if isinstance(query, str):
        return f"user\n{query}" if query.strip() else None
    if not isinstance(query, Sequence):
        return None
    parts = []
    for number, message in enumerate(query):
        try:
            role, text = turn_of(message, number)
        except InputError:
            return None
        parts.append(f"{role}\n{text}")
        if role in USER:
            return "\n".join(parts) if text.strip() else None
    return None
