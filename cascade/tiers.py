"""The parts of a cascade and its results: tiers, use cases, calls, results, and the error when no tier answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from ..policies.cost import call_cost, check_prices, query_tokens
from ..routers.checks import check_number, check_seconds
from ..routers.decision import Model
from ..routers.errors import InputError, RoutelearnError
from ..routers.query import Query
from .backends import Backend, as_backend
from .estimates import Confidence, check_confidence

Mode = Literal["cascade", "route", "strong", "weak"]

#: Why a result is not the answer of the tier that should have given it.
Degraded = Literal["deadline", "budget", "failure"]


@dataclass(frozen=True)
class Tier:
    """One model of a cascade, with the way to ask it and the rule for accepting its answers.

    Attributes:
        model: name and prices of the model.
        backend: a function from a query to an answer, `from_client(client, model)`, or a `Backend`.
        confidence: estimates the confidence in the answers; every tier but the last needs one.
        threshold: an answer with a lower confidence is escalated to the next tier.
        timeout_s: longest time in seconds that one call may take; a call that takes longer fails. None: no limit.
        expected_s: usual duration of a call in seconds. A cascade does not escalate to this tier when less time is
            left before the deadline. None: not known.
        expected_output_tokens: usual length of an answer in tokens; a budget reserves money for that many.

    Raises:
        InputError: a setting is out of range or of the wrong kind.

    Example:
        >>> from routelearn import Model
        >>> from routelearn.cascade import Tier
        >>> tier = Tier(Model("strong", input_price=2.5, output_price=10.0), lambda query: "144")
        >>> tier.cost(input_tokens=1_000_000, output_tokens=100_000)
        3.5
    """

    model: Model
    backend: Any
    confidence: Confidence | None = None
    threshold: float = 0.5
    timeout_s: float | None = None
    expected_s: float | None = None
    expected_output_tokens: int = 500

    def __post_init__(self) -> None:
        """Make a back end from a function, and check the settings.

        Raises:
            InputError: a setting is out of range or of the wrong kind.
        """
        backend: Backend = as_backend(self.backend)
        object.__setattr__(self, "backend", backend)
        if not isinstance(self.model, Model):
            raise InputError(
                f"model is {self.model!r:.80}; expected Model({str(self.model)[:80]!r}), with input_price and "
                "output_price in USD per million tokens if they are known"
            )
        check_prices([self.model])
        if self.confidence is not None:
            check_confidence(self.confidence, "confidence")
        check_number("threshold", self.threshold, "a number from 0 to 1, as 0.5")
        if not 0 <= self.threshold <= 2:  # above 1, no answer is accepted
            raise InputError(f"threshold is {self.threshold}; expected a number from 0 to 1, as 0.5")
        check_seconds("timeout_s", self.timeout_s)
        check_seconds("expected_s", self.expected_s)
        check_number("expected_output_tokens", self.expected_output_tokens, "a whole number of 0 or more")
        if self.expected_output_tokens < 0:
            raise InputError(
                f"expected_output_tokens is {self.expected_output_tokens}; expected a whole number of 0 or more"
            )

    def cost(self, input_tokens: int, output_tokens: int) -> float | None:
        """USD of a call that reads and writes so many tokens, or None when a price of the model is not known."""
        return call_cost(self.model, input_tokens, output_tokens)

    def expected_cost(self, query: Query) -> float | None:
        """Expected cost of a call in USD, or None when a price of the model is not known."""
        return self.cost(query_tokens(query), self.expected_output_tokens)


@dataclass(frozen=True, slots=True)
class UseCase:
    """The rule for the requests of one use case.

    Attributes:
        mode: "cascade" asks a tier, verifies its answer, and escalates. "route" lets the router choose the first or the
            last tier, and verifies nothing. "strong" always asks the last tier, "weak" always the first; neither
            verifies.
        threshold: replaces the thresholds of all tiers. None: each tier keeps its own.
        direct_threshold: replaces the direct threshold of the cascade. None: the cascade's stays.

    Raises:
        InputError: the mode is unknown.

    Example:
        >>> from routelearn.cascade import UseCase
        >>> UseCase("cascade", threshold=0.9)
        UseCase(mode='cascade', threshold=0.9, direct_threshold=None)
    """

    mode: Mode = "cascade"
    threshold: float | None = None
    direct_threshold: float | None = None

    def __post_init__(self) -> None:
        """Check the mode.

        Raises:
            InputError: the mode is unknown.
        """
        if self.mode not in get_args(Mode):
            raise InputError(f"mode is {self.mode!r}; expected one of {list(get_args(Mode))}")
        for name in ("threshold", "direct_threshold"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), "a number from 0 to 1, or None")


@dataclass(frozen=True, slots=True)
class Call:
    """The account of one call of a model, also of a call that failed or was cut off.

    Attributes:
        model: name of the model.
        purpose: "answer", or "confidence" when the model was asked again to estimate the confidence.
        latency_s: seconds until the call ended or was cut off.
        input_tokens: number of tokens that the model read. A call that was sent and failed counts with its query; 0
            when the service was not reached, or refused the call with an HTTP status.
        output_tokens: number of tokens that the model wrote; of a call that failed, the pieces that came.
        cost_usd: tokens times prices, in USD; None when a price of the model is not known.
        estimated: True when the back end did not report the tokens (or reported impossible numbers), so that they were
            estimated from the characters. The true cost of a call that failed may be higher.
        error: why there is no answer, or None.

    Example:
        >>> from routelearn import Model
        >>> from routelearn.cascade import Cascade, SelfConsistency, Tier
        >>> weak = Tier(Model("weak"), lambda query: "144", SelfConsistency(samples=2))
        >>> result = Cascade([weak, Tier(Model("strong"), lambda query: "144")]).run("How much is 12 * 12?")
        >>> [(call.model, call.purpose, call.error) for call in result.calls]
        [('weak', 'answer', None), ('weak', 'confidence', None)]
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
    """The result of one request.

    Attributes:
        answer: text of the answer; "" unless the outcome is "answered".
        model: name of the model that gave the answer; "" unless the outcome is "answered".
        confidence: confidence in the answer, in [0, 1]. None when it was not estimated (the answers of the last tier
            and routed answers are not verified) or when the estimate failed.
        escalated: True when a stronger tier was asked after the first one.
        cost_usd: cost of all calls in USD; None when a price of a model that was called is not known.
        latency_s: seconds from the request to the result.
        calls: every call that was made, also failed calls and samples, in the order in which they ended.
        reason: one readable sentence.
        degraded: why the answer does not come from the tier that should have given it: "deadline", "budget" or
            "failure". None: it does.
        outcome: "answered", "failed" (no tier gave an answer) or "cancelled".
        score: the router's score of the query, in [0, 1]; None when there is no router, or when it gave no score.
        use_case: the use case that was given with the request.
        tier_latency_s: seconds spent at each tier that was asked, the verification included.

    Example:
        >>> from routelearn import Model
        >>> from routelearn.cascade import Cascade, SelfConsistency, Tier
        >>> weak = Tier(Model("weak"), lambda query: "144", SelfConsistency(samples=3))
        >>> result = Cascade([weak, Tier(Model("strong"), lambda query: "144")]).run("How much is 12 * 12?")
        >>> result.answer, result.model, result.confidence, result.escalated
        ('144', 'weak', 1.0, False)
        >>> result.reason
        'confidence in weak is 1.00, at or above 0.50'
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
        errors: one sentence for each tier that failed or was ruled out, in that order.
        calls: every call that was made, with its cost.

    Example:
        >>> from routelearn import Model
        >>> from routelearn.cascade import Cascade, CascadeError, SelfConsistency, Tier
        >>> def broken(query):
        ...     raise ConnectionError("down")
        >>> cascade = Cascade([Tier(Model("weak"), broken, SelfConsistency()), Tier(Model("strong"), broken)])
        >>> try:
        ...     cascade.run("How much is 12 * 12?")
        ... except CascadeError as error:
        ...     print(error.errors[0])
        weak failed (ConnectionError: down)
    """

    def __init__(self, message: str, errors: Sequence[str] = (), calls: Sequence[Call] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)
        self.calls = tuple(calls)
