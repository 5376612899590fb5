"""A question to a model, and its reply as the journal keeps it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..routers.query import Query
from .candidates import Candidate


@dataclass(frozen=True)
class Ask:
    """One question to one model.

    Attributes:
        key: names the question and the model, in the journal.
        candidate: name of the model.
        query: the prompt or the chat.
        options: parameters of this call beside those of the candidate.

    Example:
        >>> from routelearn.labelling import Ask, Candidate, key_of
        >>> model = Candidate(name="small")
        >>> ask = Ask(key_of(model, "How much is 12 * 12?"), model.name, "How much is 12 * 12?")
        >>> ask.key == key_of(Candidate(name="small", input_price=3.0), "How much is 12 * 12?")  # prices do not matter
        True
    """

    key: str
    candidate: str
    query: Query
    options: Mapping[str, Any] = field(default_factory=dict)


def key_of(candidate: Candidate, query: Query, *more: Any) -> str:
    """The key of a question: the same question to the same model, with the same parameters, has the same key."""
    content = [candidate.name, candidate.served_as, dict(candidate.options), query, *more]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()[:24]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model answered, as the journal keeps it.

    Attributes:
        candidate: name of the model that was asked.
        text: the answer.
        input_tokens: tokens that the model read.
        cached_tokens: how many of these came from the service's cache.
        output_tokens: tokens that the model wrote, its reasoning included.
        reasoning_tokens: how many of these were reasoning.
        estimated: the service reported no tokens, so that they are estimated.
        cost_usd: price of the call; None: a price is not known.
        latency_s: seconds until the answer was there.
        finish_reason: why the model stopped, in the words of the service; None: not reported.
        served_model: the model that answered, in the words of the service; None: not reported.
        error: why the service refuses this question for good; then there is no answer.

    Example:
        >>> from routelearn.labelling import Reply
        >>> Reply.from_entry({"key": "k1", "candidate": "small", "text": "144", "output_tokens": 1}).text
        '144'
    """

    candidate: str
    text: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    cost_usd: float | None = 0.0
    latency_s: float = 0.0
    finish_reason: str | None = None
    served_model: str | None = None
    error: str | None = None

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Reply:
        """Read a line of the journal."""
        return cls(**{name: value for name, value in entry.items() if name != "key"})
