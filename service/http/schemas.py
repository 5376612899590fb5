"""What goes over the wire: requests as they are checked, replies and errors as OpenAPI describes them.

Requests are parsed from raw bytes by pydantic's own JSON parser, in a worker thread: it refuses deep nesting,
lone surrogates and numbers out of range, and it never builds anything but plain data.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from ...routers.base import Decision, Source

_IGNORE = ConfigDict(extra="ignore", strict=True)
_FORBID = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_ONE_OF_BOTH = ConfigDict(
    extra="forbid",
    strict=True,
    allow_inf_nan=False,
    json_schema_extra={"not": {"required": ["threshold", "strong_share"]}},
)
_FIELDS = frozenset(
    {"queries", "context", "threshold", "strong_share", "role", "content", "text", "tier", "use_case"}
) | {
    "outcomes",
    "logged",
    "id",
    "outcome",
    "escalations",
    "score",
    "strong_won",
    "model",
    "escalated",
    "latency_s",
    "cost_usd",
}


class Part(TypedDict):
    """A part of a multimodal message; only text counts."""

    __pydantic_config__ = _IGNORE  # type: ignore[misc]
    type: NotRequired[str]
    text: NotRequired[str | None]


class Message(TypedDict):
    """A message of a chat, as in the OpenAI API; other fields are ignored."""

    __pydantic_config__ = _IGNORE  # type: ignore[misc]
    role: NotRequired[str]
    content: Annotated[
        str | Annotated[list[str | Part], Field(fail_fast=True)] | None,
        Field(description="Text, or parts; null is no text."),
    ]


class RequestContext(TypedDict):
    """What is known of the caller, for rules and policies that use it."""

    __pydantic_config__ = _FORBID  # type: ignore[misc]
    tier: NotRequired[Annotated[str, Field(max_length=200)]]
    use_case: NotRequired[Annotated[str, Field(max_length=200)]]


class ScoringRequest(TypedDict):
    """Queries, and how to decide them: at most one of threshold and strong_share; neither: the service's own."""

    __pydantic_config__ = _ONE_OF_BOTH  # type: ignore[misc]
    queries: Annotated[
        list[str | Annotated[list[Message], Field(min_length=1, fail_fast=True)]],
        # fail_fast: a million wrong items would make a million errors.
        Field(min_length=1, fail_fast=True, description="Prompts, or chats as lists of messages."),
    ]
    context: NotRequired[Annotated[RequestContext, Field(description="Holds for all queries of the request.")]]
    threshold: NotRequired[Annotated[float, Field(description="A score at or above it goes to strong.")]]
    strong_share: NotRequired[
        Annotated[float, Field(ge=0, le=1, description="Send this share of queries like the calibration's to strong.")]
    ]


class Outcome(TypedDict):
    """Which answer to a decided query was the better one.

    Report all, or a random part: those of one model alone would bias the comparison.
    """

    __pydantic_config__ = _FORBID  # type: ignore[misc]
    score: Annotated[float, Field(ge=0, le=1, description="The decision's score.")]
    strong_won: Annotated[float, Field(ge=0, le=1, description="1: the strong model's was better; 0.5: a tie.")]


class LoggedOutcome(TypedDict):
    """How good the answer to a logged decision was: for the evaluation of other policies."""

    __pydantic_config__ = _FORBID  # type: ignore[misc]
    id: Annotated[str, Field(min_length=1, max_length=64, description="Of the decision, as /v1/route gave it.")]
    outcome: Annotated[float, Field(ge=0, le=1, description="The more the better.")]


class Escalation(TypedDict):
    """How a cascade went that asked a weak model first."""

    __pydantic_config__ = _FORBID  # type: ignore[misc]
    model: Annotated[str, Field(max_length=200, description="The weak model.")]
    escalated: Annotated[bool, Field(description="The strong model was asked as well.")]
    use_case: NotRequired[Annotated[str, Field(max_length=200)]]
    latency_s: NotRequired[Annotated[float, Field(ge=0, description="From the request to the final answer.")]]
    cost_usd: NotRequired[Annotated[float, Field(ge=0, description="Of all calls.")]]


class OutcomesRequest(TypedDict):
    """What became of decided queries: of each kind as many as there may be queries in a request."""

    __pydantic_config__ = _FORBID  # type: ignore[misc]
    outcomes: NotRequired[Annotated[list[Outcome], Field(fail_fast=True)]]
    logged: NotRequired[Annotated[list[LoggedOutcome], Field(fail_fast=True)]]
    escalations: NotRequired[Annotated[list[Escalation], Field(fail_fast=True)]]


REQUEST: TypeAdapter[ScoringRequest] = TypeAdapter(ScoringRequest)
OUTCOMES: TypeAdapter[OutcomesRequest] = TypeAdapter(OutcomesRequest)


class ScoreReply(BaseModel):
    """One entry a query, in the order of the request."""

    scores: list[float] = Field(description="Expected win rate of strong over weak, in [0, 1].")
    models: list[str] = Field(description="The chosen models.")
    sources: list[Source] = Field(description="Who answered: the learned router, rules, or the safe default.")
    bundle: str | None = Field(description="Digest of the bundle that answered; null: rules alone.")


class RouteReply(BaseModel):
    """One decision a query, in the order of the request."""

    decisions: list[Decision]
    bundle: str | None = Field(description="Digest of the bundle that answered; null: rules alone.")
    ids: list[str] | None = Field(None, description="Of the decisions in the decision log; null: there is none.")


class OutcomesReply(BaseModel):
    """All of the request was taken in."""

    taken: int = Field(description="Outcomes of all kinds.")


class Health(BaseModel):
    """The process answers; `answers` says who decides."""

    status: str = Field(description="ok, or closing while requests in flight are finished.")
    answers: Source = Field(description="learned, or rules when there is no usable bundle.")


class RouterReply(BaseModel):
    """The router in service, and how the last reload went."""

    kind: str
    path: str
    answers: Source
    unavailable: str | None = Field(description="Why rules answer in the place of a bundle.")
    bundle: str | None = Field(description="sha256 of the bundle's manifest, which holds the hashes of its files.")
    loaded_at: str = Field(description="When this router took over, ISO 8601, UTC.")
    models: list[str]
    strong: str
    weak: str
    threshold: float
    threshold_table: list[list[float]] = Field(description="Pairs of strong share and threshold.")
    guarantee: dict[str, Any] | None
    reference: bool = Field(description="The bundle knows its reference distribution: drift can be told.")
    reloads: int = Field(description="Bundles taken over since the start.")
    refused: int = Field(description="Bundles refused since the start.")
    reload_error: str | None = Field(description="Why the newest bundle was refused; null: it was not.")


class ErrorDetail(BaseModel):
    """What went wrong, and where in the request."""

    type: str
    message: str
    param: str | None = None


class ErrorReply(BaseModel):
    """The one shape of every error."""

    error: ErrorDetail


def invalid(error: ValidationError) -> tuple[int, str, str, str | None]:
    """What a request that does not parse is answered with: status, type, message, param; nothing of its text."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        return 400, "invalid_json", problems[0]["msg"], None
    worst = max(problems, key=lambda problem: len(problem["loc"]))  # the branch of a union that got furthest
    path, message = "", worst["msg"]
    for step in worst["loc"]:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step in _FIELDS:  # the others are pydantic's names of a union's branches
            path += f".{step}" if path else str(step)
    if worst["type"] == "extra_forbidden":
        message = f"unknown field {str(worst['loc'][-1])[:50]!r}"
    elif worst["type"] in {"string_type", "list_type"} and path.endswith("]"):
        message = "expected a string, or a chat as a list of messages"
    return 422, "invalid_request", message, path or None
