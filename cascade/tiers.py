"""The parts of a cascade and its results: tiers, use cases, calls, results, and the error when no tier answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from ..routers.base import Model
from ..routers.checks import check_seconds
from ..routers.errors import InputError, RoutelearnError
from ..routers.query import Query, estimate_tokens, transcript
from .backends import Backend, as_backend
from .confidence import Confidence

Mode = Literal["cascade", "route", "strong", "weak"]

#: Why an answer is not the one that was wanted. None: it is.
Degraded = Literal["deadline", "budget", "failure"]


@dataclass(frozen=True)
class Tier:
    """One model of a cascade: how to ask it, and when its answer is good enough.

    Attributes:
        model: its name and prices.
        backend: a function from a query to an answer, `from_client(client, model)`, or a `Backend`.
        confidence: estimates the confidence in its answers; needed on every tier but the last.
        threshold: confidence below it escalates.
        timeout_s: longest that one call may take; a longer one is a failure.
        expected_s: how long a call usually takes: an escalation to this tier that cannot finish before the deadline
            is not started.
        expected_output_tokens: how long an answer usually is: what a budget sets aside for a call.
    """

    model: Model
    backend: Any
    confidence: Confidence | None = None
    threshold: float = 0.5
    timeout_s: float | None = None
    expected_s: float | None = None
    expected_output_tokens: int = 500

    def __post_init__(self) -> None:
        """Make a back end of a function, and refuse what cannot work.

        Raises:
            InputError: a setting is out of range or of the wrong kind.
        """
        backend: Backend = as_backend(self.backend)
        object.__setattr__(self, "backend", backend)
        if self.confidence is not None and not isinstance(self.confidence, Confidence):
            raise InputError(f"confidence is {type(self.confidence).__name__}; expected an object with `estimate`")
        check_seconds("timeout_s", self.timeout_s)
        check_seconds("expected_s", self.expected_s)
        if self.expected_output_tokens < 0:
            raise InputError(f"expected_output_tokens is {self.expected_output_tokens}; expected 0 or more")

    def cost(self, input_tokens: int, output_tokens: int) -> float | None:
        """USD for so many tokens, or None when a price is not known."""
        if self.model.input_price is None or self.model.output_price is None:
            return None
        return (input_tokens * self.model.input_price + output_tokens * self.model.output_price) / 1e6

    def expected_cost(self, query: Query) -> float | None:
        """USD that a call is expected to cost, or None when a price is not known."""
        return self.cost(estimate_tokens(transcript(query)), self.expected_output_tokens)


@dataclass(frozen=True, slots=True)
class UseCase:
    """How the requests of one use case are answered.

    Attributes:
        mode: "cascade": ask, verify, escalate. "route": the router chooses between the first and the last tier, and
            nothing is verified. "strong", "weak": always the last, always the first tier, not verified.
        threshold: in the place of every tier's own.
        direct_threshold: in the place of the cascade's.
    """

    mode: Mode = "cascade"
    threshold: float | None = None
    direct_threshold: float | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown mode."""
        if self.mode not in get_args(Mode):
            raise InputError(f"mode is {self.mode!r}; expected one of {list(get_args(Mode))}")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model, whatever came of it.

    Attributes:
        model: the model's name.
        purpose: "answer", or "confidence": asked again to estimate the confidence.
        latency_s: seconds until it ended or was cut off.
        input_tokens: tokens that it read; 0 when it failed and reported none.
        output_tokens: tokens that it wrote; likewise.
        cost_usd: tokens times prices; None when a price is not known.
        estimated: the tokens were not reported, but estimated from the characters that went out and came in.
        error: why there is no answer, or None.
    """

    model: str
    purpose: Literal["answer", "confidence"]
    latency_s: float
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    estimated: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class CascadeResult:
    """What came of one request.

    Attributes:
        answer: the text; empty unless answered.
        model: the model that gave it; empty unless answered.
        confidence: in the answer, or None: not estimated (the last tier's, a routed one's) or not to be had.
        escalated: a stronger tier was asked after the first one.
        cost_usd: of all calls, or None when the price of a model that was called is not known.
        latency_s: seconds from the request to the result.
        tier_latency_s: seconds spent at each tier that was asked, its verification included.
        calls: every call that was made, the failed ones and the samples too, in the order in which they ended.
        reason: one readable sentence.
        degraded: why the answer is not the one that was wanted: "deadline", "budget", "failure"; None: it is.
        outcome: "answered", "failed" (no tier gave an answer) or "cancelled".
        score: the router's score of the query, where there is a router and it answered.
        use_case: as given with the request.
    """

    answer: str
    model: str
    confidence: float | None
    escalated: bool
    cost_usd: float | None
    latency_s: float
    calls: tuple[Call, ...]
    reason: str
    degraded: Degraded | None = None
    outcome: Literal["answered", "failed", "cancelled"] = "answered"
    score: float | None = None
    use_case: str | None = None
    tier_latency_s: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The result as plain data, ready for JSON."""
        return asdict(self)


class CascadeError(RoutelearnError):
    """No tier of a cascade gave an answer.

    Attributes:
        errors: one sentence for each tier that was tried or ruled out, in that order.
        calls: every call that was made (`Call`), with what it cost.
    """

    def __init__(self, message: str, errors: Sequence[str] = (), calls: Sequence[Call] = ()) -> None:
        """Keep what went wrong beside the one-line message."""
        super().__init__(message)
        self.errors = tuple(errors)
        self.calls = tuple(calls)
