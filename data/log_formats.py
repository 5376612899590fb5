"""What a line of a request log says: decisions of routelearn, LiteLLM's logs, OpenAI-style requests, and batches.

The fields of a line tell its kind, so that one file may hold several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..routers.errors import DataError
from ..routers.query import Query
from .log_line import MOST_USD, Line, LogFields
from .log_messages import is_chunk, logged_answer

KINDS = (
    "a decision of routelearn (query_hash, model, propensity), a LiteLLM log (call_type, startTime), a request with "
    "its response (request, response), or a line of a batch (custom_id with body or response)"
)
#: The first HTTP status of an error.
_FIRST_ERROR = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedCall:
    """One call of a model, as one line logs it.

    Attributes:
        file: the file of the line.
        row: its number.
        ids: the names of the request; the first is its own.
        model: the model that was asked; of a decision, the model that was chosen.
        is_decision: the line says what was decided, not what was answered.
        query: what was asked; None: the line has no text of it.
        query_hash: the hash of it, of a decision.
        custom_id: the name of the request in a batch, whose input file has the query.
        response: the answer, or None.
        failed: the call failed.
        is_chunk: the response is one chunk of a stream.
        time: seconds since 1970, or None.
        cost_usd: the cost that the line states, or None.
        tokens: input tokens and output tokens, or None.
        propensity: the probability with which the model `decided` was chosen; None: the line holds none.
        decided: that model.
        outcome: how good the answer was, in [0, 1], or None.
        task: name of the task, or None.
    """

    file: str
    row: int
    ids: tuple[str, ...]
    model: str
    is_decision: bool = False
    query: Query | None = None
    query_hash: str | None = None
    custom_id: str | None = None
    response: str | None = None
    failed: bool = False
    is_chunk: bool = False
    time: float | None = None
    cost_usd: float | None = None
    tokens: tuple[float, float] | None = None
    propensity: float | None = None
    decided: str | None = None
    outcome: float | None = None
    task: str | None = None


@dataclass(frozen=True, slots=True)
class LoggedOutcome:
    """The outcome of a decision, on a line of its own.

    Attributes:
        id: the request.
        line: the line, with "id", "outcome" and mostly "time".
        score: the outcome, in [0, 1].
    """

    id: str
    line: Mapping[str, Any]
    score: float


@dataclass(frozen=True, slots=True)
class BatchInput:
    """A request of a batch, before it was sent."""

    file: str
    row: int
    custom_id: str
    model: str
    query: Query | None


@dataclass(frozen=True, slots=True)
class OtherCall:
    """A call that is no question to a model: embeddings, images."""

    kind: str


LoggedLine = LoggedCall | LoggedOutcome | BatchInput | OtherCall


def parse_line(file: str, row: int, line: Mapping[str, Any], fields: LogFields) -> LoggedLine:
    """What a line says.

    Raises:
        DataError: the line is of no known kind, or a field is not as its kind has it.
    """
    for is_kind, parse in _KINDS:
        if is_kind(line):
            return parse(Line(file, row, line, fields))
    shown = ", ".join(sorted(map(str, line))[:12]) or "none"
    raise DataError(file, row, None, f"a line of no known kind, with the fields: {shown:.200}", KINDS)


def _is_outcome(line: Mapping[str, Any]) -> bool:
    return {"id", "outcome"} <= line.keys() <= {"id", "outcome", "time"}


def _is_decision(line: Mapping[str, Any]) -> bool:
    return {"query_hash", "model", "propensity"} <= line.keys()


def _is_usage(line: Mapping[str, Any]) -> bool:
    return {"id", "usage"} <= line.keys() <= {"id", "usage", "time"}


def is_decision_log(line: Mapping[str, Any]) -> bool:
    """Whether a line is of a decision log of routelearn."""
    return _is_outcome(line) or _is_usage(line) or _is_decision(line)


def _outcome(line: Line) -> LoggedOutcome | OtherCall:
    score = line.outcome(["outcome"])
    if score is None:
        return OtherCall("outcome without a value")
    name = line.needed_text("the name of a request", "id")
    return LoggedOutcome(name, {"id": name, "outcome": score, "time": line.at("time")}, score)


def _decision(line: Line) -> LoggedCall:
    found = line.common(["outcome"])  # its field "score" is the router's
    found["task"] = found["task"] or line.text("context.use_case")
    shadow = line.at("shadow") is True  # strong answered, whatever was decided
    model = line.model("served" if shadow else "model")
    return LoggedCall(
        ids=line.texts("id"),
        model=model,
        is_decision=True,
        query=line.query("query"),
        query_hash=line.text("query_hash"),
        **{**found, "decided": model, "propensity": 1.0 if shadow else line.propensity("propensity")},
    )


def _litellm(line: Line) -> LoggedCall | OtherCall:
    kind = line.text("call_type") or ""
    if not any(word in kind for word in ("completion", "responses", "messages", "generate_content")):
        return OtherCall(kind or "unknown")
    found = line.common()
    if line.at("cache_hit") is True:  # the answer was paid for earlier
        found["cost_usd"] = found["cost_usd"] or line.first_number(["saved_cache_cost"], MOST_USD)
    if not found["cost_usd"] and line.at("response_cost_failure_debug_info"):  # LiteLLM knows no price
        found["cost_usd"] = None
    return LoggedCall(
        ids=line.texts("id", "request_id", "litellm_call_id", "metadata.litellm_call_id"),
        model=line.model("model_group", "model"),
        query=line.query("messages", "proxy_server_request"),
        response=logged_answer(line.at("response")),
        failed=line.at("status") == "failure" or bool(line.at("error_str")),
        **found,
    )


def _request(line: Line) -> LoggedCall | OtherCall:
    if line.at("response.object") == "list":
        return OtherCall("embedding")
    return LoggedCall(
        ids=line.texts("id", "request_id", "response.id", "response.request_id", "response.body.id"),
        model=line.model("request.model", "request.body.model", "model", "response.model", "response.body.model"),
        query=line.query("request.body") if isinstance(line.at("request.body"), Mapping) else line.query("request"),
        response=logged_answer(line.at("response")),
        is_chunk=is_chunk(line.at("response")),
        failed=_failed(line),
        **line.common(),
    )


def _batch_output(line: Line) -> LoggedCall | OtherCall:
    if line.at("response.body.object") == "list":
        return OtherCall("embedding")
    failed = _failed(line)
    return LoggedCall(
        ids=line.texts("id", "response.request_id", "response.body.id", "custom_id"),
        model="" if failed else line.model("response.body.model"),
        custom_id=line.needed_text("the name of a request", "custom_id"),
        response=logged_answer(line.at("response")),
        failed=failed,
        **line.common(),
    )


def _batch_input(line: Line) -> BatchInput | OtherCall:
    if (line.text("url") or "").endswith("/embeddings"):
        return OtherCall("embedding")
    custom_id = line.needed_text("the name of a request", "custom_id")
    return BatchInput(line.file, line.row, custom_id, line.model("body.model"), line.query("body"))


def _failed(line: Line) -> bool:
    """Whether the call of a request failed: an error stands there, or a status of 400 or more."""
    if any(line.at(path) for path in ("error", "response.error", "response.body.error")):
        return True
    if line.at("status") in ("failure", "failed", "error"):
        return True
    status = line.first_number(["status_code", "status", "response.status_code", "response.status"], 1000)
    return status is not None and status >= _FIRST_ERROR


_KINDS: tuple[tuple[Callable[[Mapping[str, Any]], bool], Callable[[Line], LoggedLine]], ...] = (
    (_is_outcome, _outcome),
    (_is_usage, lambda _: OtherCall("what a call used")),
    (_is_decision, _decision),
    (lambda line: {"call_type", "startTime"} <= line.keys(), _litellm),
    (lambda line: "request" in line and ("response" in line or "error" in line), _request),
    (lambda line: "custom_id" in line and ("response" in line or "error" in line), _batch_output),
    (lambda line: {"custom_id", "body"} <= line.keys(), _batch_input),
)
