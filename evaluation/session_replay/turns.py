"""Recorded conversations: their requests in order, with what each model's answer was worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...routers.checks import as_number
from ...routers.errors import InputError
from ...routers.query import Query


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """One request of a recorded conversation.

    Attributes:
        query: what the router reads.
        tokens: that a model reads for the request: the conversation so far, with system prompt and tools.
        output_tokens: tokens of the answer; a mapping gives them by model.
        quality: worth of each model's answer in [0, 1], by the model's name.
        pause_s: seconds since the request before.
        step: the request goes on after a tool call within the user's turn.

    Example:
        >>> from routelearn.evaluation import SessionRequest
        >>> first = SessionRequest(query="Hello!", tokens=1200, quality={"sim-max": 1.0, "sim-small": 1.0})
        >>> first.output_tokens
        300
    """

    query: Query
    tokens: int
    output_tokens: float | Mapping[str, float] = 300
    quality: Mapping[str, float] = field(default_factory=dict)
    pause_s: float = 0.0
    step: bool = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: a number is none, or out of its range.
        """
        lengths = list(self.output_tokens.values()) if isinstance(self.output_tokens, Mapping) else [self.output_tokens]
        for name, value in (
            ("tokens", self.tokens),
            ("pause_s", self.pause_s),
            *(("output_tokens", n) for n in lengths),
        ):
            if not 0 <= as_number(value) < float("inf"):
                raise InputError(f"{name} is {value!r:.80}; expected a number of 0 or more")
        for model, value in self.quality.items():
            if not 0 <= as_number(value) <= 1:
                raise InputError(f"quality of {model!r} is {value!r:.80}; expected a number from 0 to 1")

    def output(self, model: str) -> float:
        """Tokens of the answer of a model.

        Raises:
            InputError: they are not known.
        """
        if not isinstance(self.output_tokens, Mapping):
            return float(self.output_tokens)
        if model not in self.output_tokens:
            raise InputError(
                f"output_tokens has no number for {model!r}; it has numbers for {list(self.output_tokens)}"
            )
        return float(self.output_tokens[model])


#: The requests of each conversation, by its id.
Sessions = Mapping[str, Sequence[SessionRequest]]


def check_sessions(sessions: Sessions, models: Sequence[str]) -> None:
    """Refuse sessions that cannot be replayed between some models.

    Raises:
        InputError: a session has no request, or one of them has no quality for one of the models; the message names it.
    """
    if not isinstance(sessions, Mapping) or not any(sessions.values()):
        raise InputError(
            "there are no sessions; expected the requests of each by its id: {'s-1': [SessionRequest(...)]}"
        )
    for name, requests in sessions.items():
        if not requests:
            raise InputError(f"session {name!r:.60} has no requests; expected one or more")
        for number, request in enumerate(requests):
            missing = [model for model in models if model not in request.quality]
            if missing:
                raise InputError(
                    f"request {number} of session {name!r:.60} has no quality for {missing}; it has one for "
                    f"{sorted(request.quality)}"
                )
