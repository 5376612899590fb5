"""Requests and replies of the HTTP service: the names, types and ranges of their fields.

Requests are parsed from raw bytes by pydantic's JSON parser, in a worker thread: it refuses deep nesting, lone
surrogates and numbers out of range, and it builds nothing but plain data.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import NotRequired, TypedDict

from ...routers.decision import Decision, Source
from ..wire_names import ErrorType
from .message_schemas import Message, Part
from .outcome_fields import FORBID, CallUsage, Escalation, LoggedOutcome, Outcome

_ONE_OF_BOTH = ConfigDict(
    extra="forbid",
    strict=True,
    allow_inf_nan=False,
    json_schema_extra={"not": {"required": ["threshold", "strong_share"]}},
)


class RequestContext(TypedDict):
    """Facts about the caller, for rules and policies that use them."""

    __pydantic_config__ = FORBID  # type: ignore[misc]
    tier: NotRequired[Annotated[str, Field(max_length=200, description="The tier of the user.")]]
    use_case: NotRequired[Annotated[str, Field(max_length=200, description="What the queries are for.")]]


class ScoringRequest(TypedDict):
    """Queries, and how to decide them: by a threshold, by a strong share, or, with neither, as the service decides."""

    __pydantic_config__ = _ONE_OF_BOTH  # type: ignore[misc]
    queries: Annotated[
        list[str | Annotated[list[Message], Field(min_length=1, fail_fast=True)]],
        # fail_fast: a million wrong items would make a million errors.
        Field(min_length=1, fail_fast=True, description="Prompts, or chats as lists of messages."),
    ]
    context: NotRequired[Annotated[RequestContext, Field(description="Holds for all queries of the request.")]]
    sessions: NotRequired[
        Annotated[
            list[str | None],
            Field(
                fail_fast=True,
                description="The session of each query, if the service keeps sessions; null: by how the chat began.",
            ),
        ]
    ]
    threshold: NotRequired[Annotated[float, Field(description="A score at or above it goes to the strong model.")]]
    strong_share: NotRequired[
        Annotated[
            float,
            Field(
                ge=0,
                le=1,
                description="The threshold that sends this share of the calibration queries to the strong model.",
            ),
        ]
    ]


class OutcomesRequest(TypedDict):
    """Outcomes of decided queries; each list may have as many entries as a request may have queries."""

    __pydantic_config__ = FORBID  # type: ignore[misc]
    outcomes: NotRequired[Annotated[list[Outcome], Field(fail_fast=True)]]
    logged: NotRequired[Annotated[list[LoggedOutcome], Field(fail_fast=True)]]
    escalations: NotRequired[Annotated[list[Escalation], Field(fail_fast=True)]]
    usage: NotRequired[Annotated[list[CallUsage], Field(fail_fast=True)]]


SCORING_REQUEST: TypeAdapter[ScoringRequest] = TypeAdapter(ScoringRequest)
OUTCOMES_REQUEST: TypeAdapter[OutcomesRequest] = TypeAdapter(OutcomesRequest)

_BUNDLE = Field(description="Digest of the bundle that decided; null: there is no bundle.")


class ScoreReply(TypedDict):
    """Lists with one entry per query, in the order of the request."""

    scores: Annotated[list[float], Field(description="Expected win rate of the strong model over weak, in [0, 1].")]
    models: Annotated[list[str], Field(description="The chosen models.")]
    sources: Annotated[list[Source], Field(description="What decided: learned, general, rules, or the safe default.")]
    bundle: Annotated[str | None, _BUNDLE]


class RouteReply(TypedDict):
    """One decision per query, in the order of the request."""

    decisions: list[Decision]
    bundle: Annotated[str | None, _BUNDLE]
    ids: Annotated[
        list[str] | None, Field(description="Ids of the decisions in the decision log; null: there is no log.")
    ]


class OutcomesReply(TypedDict):
    """The whole request was taken in."""

    taken: Annotated[int, Field(description="Number of outcomes of all kinds.")]
    unknown: Annotated[
        int,
        Field(description="How many of `logged` and `usage` have an id that this process did not give; kept apart."),
    ]


class HealthReply(TypedDict):
    """The process answers; `answers` says what decides queries."""

    status: Annotated[str, Field(description="Always ok.")]
    answers: Annotated[Source, Field(description="learned; without a usable bundle general, or else rules.")]


class RouterReply(TypedDict):
    """The router in service, and the result of the last reload."""

    kind: Annotated[str, Field(description="Kind of the router, such as matrix_factorization or rules.")]
    path: Annotated[str, Field(description="Where the router is loaded from.")]
    answers: Annotated[Source, Field(description="What decides queries: learned, general, or rules.")]
    unavailable: Annotated[str | None, Field(description="Why the bundle does not decide; null: it does.")]
    bundle: Annotated[
        str | None, Field(description="sha256 of the bundle's manifest, which holds the hashes of its files.")
    ]
    loaded_at: Annotated[str, Field(description="When this router took over, ISO 8601, UTC.")]
    models: Annotated[list[str], Field(description="The names of the pool.")]
    strong: str
    weak: str
    threshold: Annotated[float, Field(description="A score at or above it goes to the strong model.")]
    threshold_table: Annotated[list[list[float]], Field(description="Pairs of strong share and threshold.")]
    guarantee: Annotated[dict[str, Any] | None, Field(description="The bundle's guaranteed threshold; null: none.")]
    reference: Annotated[bool, Field(description="The bundle has a drift reference, so drift is watched.")]
    reloads: Annotated[int, Field(description="Bundles taken over since the start.")]
    refused: Annotated[int, Field(description="Bundles refused since the start.")]
    reload_error: Annotated[
        str | None, Field(description="Why the newest bundle was refused; null: it was not refused.")
    ]


class StatusReply(TypedDict):
    """What the status page shows."""

    uptime_s: Annotated[float, Field(description="Seconds since the start.")]
    requests: Annotated[dict[str, int], Field(description="Requests answered since the start, by path.")]
    waiting: Annotated[int, Field(description="Requests that are being read, wait or are scored.")]
    max_waiting: Annotated[int, Field(description="Most requests that may wait.")]
    router: RouterReply
    monitor: Annotated[dict[str, Any], Field(description="Counts of decisions, drift and calibration.")]
    escalation: Annotated[dict[str, Any], Field(description="Escalation rates of the cascades that callers report.")]
    savings: Annotated[dict[str, Any], Field(description="What the reported calls cost; as /v1/savings.")]
    shadow: Annotated[bool, Field(description="Decisions are logged, and replies name the strong model.")]


class ErrorDetail(TypedDict):
    """What is wrong, and in which part of the request."""

    type: Annotated[str, Field(description="One word for programs.")]
    message: Annotated[str, Field(description="One sentence for people.")]
    param: NotRequired[Annotated[str, Field(description="The part of the request, such as queries[1].")]]


class ErrorReply(TypedDict):
    """The shape of every error."""

    error: ErrorDetail


_ENTRIES = {
    "context": RequestContext,
    "outcomes": Outcome,
    "logged": LoggedOutcome,
    "escalations": Escalation,
    "usage": CallUsage,
}
_TOP = {kind.__name__: kind for kind in (ScoringRequest, OutcomesRequest)}
_FIELDS = frozenset().union(*(kind.__annotations__ for kind in (*_TOP.values(), *_ENTRIES.values(), Message, Part)))

#: What was expected, by pydantic's type of an error; filled in with the context of the error.
_EXPECTED = {
    "string_type": "a string",
    "string_too_short": "{min_length} or more characters",
    "string_too_long": "at most {max_length} characters",
    "list_type": "a list",
    "too_short": "{min_length} or more entries",
    "dict_type": "an object",
    "bool_type": "true or false",
    "multiple_of": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "greater_than_equal": "a number of {ge:g} or more",
    "less_than_equal": "a number of at most {le:g}",
}
_JSON_NAMES = {str: "a string", list: "a list", dict: "an object", type(None): "null"}


def validation_problem(error: ValidationError) -> tuple[int, ErrorType, str, str | None]:
    """The arguments of the `RequestError` for a request that does not fit its schema.

    The message says what was given and what was expected; it quotes no text of the request.
    """
    problems = error.errors(include_url=False)
    if problems[0]["type"] == "json_invalid":
        return 400, "invalid_json", f"the body is not JSON: {problems[0].get('ctx', {})['error']}", None
    worst = max(problems, key=lambda problem: len(problem["loc"]))  # the branch of a union that got furthest
    if worst["type"] == "extra_forbidden":
        return 422, "invalid_request", _unknown_field(error.title, worst["loc"]), _path(worst["loc"]) or None
    path = _path(worst["loc"])
    if worst["type"] == "missing":
        return 422, "invalid_request", f"{path} is missing; it is required", path
    return (
        422,
        "invalid_request",
        f"{path or 'the body'} is {_given(worst)}; expected {_expected(worst, path)}",
        path or None,
    )


def _path(steps: tuple[int | str, ...]) -> str:
    """The place of an error, such as queries[1][0].content; pydantic's names of the branches of unions are left out."""
    path = ""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step in _FIELDS:
            path += f".{step}" if path else str(step)
    return path


def _given(problem: ErrorDetails) -> str:
    """What a request holds at the place of an error: its type, and a number itself where it is not a query."""
    value = problem["input"]
    if problem["type"] in {"string_too_short", "string_too_long"}:
        return f"a string of {len(value)} characters"
    if problem["type"] == "too_short":
        return f"a list of {len(value)} entries"
    if isinstance(value, bool):
        return str(value).lower()
    plain = isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 53)
    if plain and problem["loc"][:1] != ("queries",):
        return f"{value:g}"
    return _JSON_NAMES.get(type(value), "a number")


def _expected(problem: ErrorDetails, path: str) -> str:
    if problem["type"] in {"string_type", "list_type", "dict_type"} and path.startswith("queries["):
        if path.count("[") == 1:
            return "a string, or a chat as a list of messages"
        if path.endswith(".content"):
            return "a string, a list of parts, or null"
        if path.endswith("]") and ".content[" in path:
            return "a string, or an object with a text"
    template = _EXPECTED.get(problem["type"])
    return problem["msg"] if template is None else template.format(**problem.get("ctx", {}))


def _unknown_field(title: str, steps: tuple[int | str, ...]) -> str:
    """The message about a field that the schema does not have."""
    parent = next((_ENTRIES[step] for step in reversed(steps[:-1]) if step in _ENTRIES), None) or _TOP[title]
    return f"unknown field {str(steps[-1])[:50]!r}; expected {', '.join(parent.__annotations__)}"
