"""What callers report to /v1/outcomes: the fields of each kind of report."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from typing_extensions import NotRequired, TypedDict

FORBID = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
#: JSON has one kind of numbers: 5.0 is a whole number.
_Tokens = Annotated[float, Field(ge=0, le=1e9, multiple_of=1)]


class Outcome(TypedDict):
    """Which of two answers to a decided query was the better one.

    Report all outcomes, or a random part of them. Outcomes of queries that one model answered would bias the
    comparison.
    """

    __pydantic_config__ = FORBID  # type: ignore[misc]
    score: Annotated[float, Field(ge=0, le=1, description="The score of the decision.")]
    strong_won: Annotated[
        float, Field(ge=0, le=1, description="1: the strong model's answer was better; 0.5: a tie; 0: it was worse.")
    ]


class LoggedOutcome(TypedDict):
    """How good the answer to a logged decision was, for the evaluation of other policies."""

    __pydantic_config__ = FORBID  # type: ignore[misc]
    id: Annotated[str, Field(min_length=1, max_length=64, description="The decision's id, from /v1/route.")]
    outcome: Annotated[float, Field(ge=0, le=1, description="How good the answer was; 1 is best.")]


class Escalation(TypedDict):
    """One request to a cascade that asks a weak model first."""

    __pydantic_config__ = FORBID  # type: ignore[misc]
    model: Annotated[str, Field(max_length=200, description="The weak model.")]
    escalated: Annotated[bool, Field(description="The strong model was asked as well.")]
    use_case: NotRequired[Annotated[str, Field(max_length=200, description="What the request was for.")]]
    latency_s: NotRequired[Annotated[float, Field(ge=0, description="Seconds from the request to the final answer.")]]
    cost_usd: NotRequired[Annotated[float, Field(ge=0, description="Cost of all calls of the request, in USD.")]]
    key: NotRequired[
        Annotated[str, Field(max_length=200, description="Equal for retries of a request, or turns of a session.")]
    ]


class CallUsage(TypedDict):
    """What one call of a model used, after it was answered."""

    __pydantic_config__ = FORBID  # type: ignore[misc]
    model: Annotated[str, Field(min_length=1, max_length=200, description="The model that answered.")]
    input_tokens: Annotated[_Tokens, Field(description="Tokens that it read, the cached ones among them.")]
    output_tokens: Annotated[_Tokens, Field(description="Tokens that it wrote.")]
    cached_tokens: NotRequired[Annotated[_Tokens, Field(description="Of the tokens read, those in its prompt cache.")]]
    cost_usd: NotRequired[
        Annotated[float, Field(ge=0, le=1e9, description="USD that were billed; without it, prices say them.")]
    ]
    id: NotRequired[
        Annotated[str, Field(min_length=1, max_length=64, description="The decision's id, from /v1/route.")]
    ]
    session: NotRequired[
        Annotated[str, Field(min_length=1, max_length=200, description="Equal for the requests of one conversation.")]
    ]
