"""The circuit breaker of one model (Nygard, Release It!, 2007): its limits, the errors that count, its states.

pybreaker keeps the states and changes them. This module adds three things. The
caller reports each outcome after the call, so that no lock is held while a
model answers. Time comes from the caller's clock. A half-open breaker lets only
a bounded number of probes through, each with a lease; pybreaker would let every
call through.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Literal, cast

from ..routers.checks import check_number, check_seconds, check_whole
from ..routers.errors import InputError, RoutelearnError, require

#: What a breaker does with requests: lets them through, skips the model, or tries it with some.
BreakerState = Literal["closed", "open", "half-open"]

#: Errors that a bug in the caller's own code raises; they say nothing about the model.
PROGRAMMING = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    TypeError,
    ValueError,
)


#: Fields that clients read in a completion: where one is missing, the answer was no completion (`{"error": ...}`).
_ANSWER_FIELDS = frozenset(
    {"candidates", "choices", "completion", "content", "delta", "finish_reason", "generated_text", "generations"}
    | {"message", "output", "output_text", "outputs", "parts", "response", "stop_reason", "text", "usage"}
)

#: HTTP statuses of the words that gRPC and Google's clients have for them.
_STATUS_OF_WORD = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "CANCELLED": 499,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """The limits at which a breaker opens, and the rules for probing an open one.

    Attributes:
        failures: this many failures in a row open the breaker.
        error_rate: the breaker opens when failures divided by outcomes in the window reach this share, in (0, 1].
        min_requests: the error rate counts only with at least this many outcomes in the window, the P95 latency only
            with at least this many latencies. With fewer, only failures in a row open the breaker.
        window: the window holds at most this many of a model's newest outcomes.
        window_s: the window drops outcomes that are older than this many seconds. None: it keeps them at any age.
        max_p95_s: the breaker opens when the P95 latency in the window exceeds this many seconds; a probe that takes
            longer counts as a failure. None: latency never opens the breaker.
        reset_timeout_s: the breaker stays open for this many seconds before the first probe.
        probes: a half-open breaker lets this many requests through at a time.
        probe_lease_s: a probe without an outcome makes room for another one after this many seconds. Choose more than
            your longest call takes, or the outcome of a slow probe may come too late to count.

    Raises:
        InputError: a limit is out of its range.

    Example:
        >>> from routelearn.availability import Availability, BreakerLimits
        >>> availability = Availability(["sim-max"], BreakerLimits(failures=2))
        >>> for _ in range(2):
        ...     availability.record("sim-max", ok=False)
        >>> availability.status("sim-max").state
        'open'
    """

    failures: int = 5
    error_rate: float = 0.5
    min_requests: int = 20
    window: int = 100
    window_s: float | None = 60.0
    max_p95_s: float | None = None
    reset_timeout_s: float = 30.0
    probes: int = 1
    probe_lease_s: float = 60.0

    def __post_init__(self) -> None:
        """Check every limit.

        Raises:
            InputError: a limit is out of its range.
        """
        for name in ("failures", "min_requests", "probes", "window"):
            check_whole(name, getattr(self, name), 1)
        check_number("error_rate", self.error_rate, "a number above 0 and at most 1")
        if self.window < self.min_requests:
            raise InputError(f"window is {self.window}; expected at least min_requests, which is {self.min_requests}")
        if not 0 < self.error_rate <= 1:
            raise InputError(f"error_rate is {self.error_rate}; expected a number above 0 and at most 1")
        for name in ("window_s", "max_p95_s", "reset_timeout_s", "probe_lease_s"):
            check_seconds(name, getattr(self, name))


def status_of(error: BaseException) -> int | None:
    """Read the HTTP status of an error, or of the error that caused it; None: there is none.

    It stands in `status_code`, `status`, `http_status` or `code` of the error or of its `response`; botocore has it in
    a mapping, gRPC and Google's clients have a word ("INVALID_ARGUMENT").
    """
    for _ in range(5):  # frameworks wrap the error of the client that they call
        for value in _statuses(error):
            status = _status(value)
            if status is not None:
                return status
        if error.__cause__ is None:
            return None
        error = error.__cause__
    return None


def _statuses(error: BaseException) -> Iterator[Any]:
    response = getattr(error, "response", None)
    for holder in (error, response):
        for name in ("status_code", "status", "http_status", "code"):
            yield getattr(holder, name, None)
    if isinstance(response, Mapping):
        about = response.get("ResponseMetadata")
        yield about.get("HTTPStatusCode") if isinstance(about, Mapping) else None


def _status(value: Any) -> int | None:
    """A status as a number, as digits, or as a word; gRPC gives it by a method, as a member of an enum."""
    if callable(value):
        try:
            value = value()
        except Exception:  # noqa: BLE001 - a method that wants arguments is no status
            return None
    value = value if isinstance(value, (int, str)) else getattr(value, "name", None)
    if isinstance(value, str):
        value = int(value) if value.isdecimal() and len(value) == 3 else _STATUS_OF_WORD.get(value.upper())
    return int(value) if isinstance(value, int) and 100 <= value <= 599 else None


def is_failure(error: BaseException) -> bool:
    """Whether an error counts against the model that was asked.

    If the error has an HTTP status, then 408, 429 and every status from 500 on count, and so does a status below 400:
    the answer came, and was no completion. Any other status is the fault of the request (bad request, no rights, not
    found, conflict) and does not count. If the error has no status, then connection errors (an expired certificate is
    one), timeouts and unknown exceptions count, and so does an answer that cannot be read: not JSON, refused by a
    library's validation, without the fields of a completion. Cancellations and programming errors (`PROGRAMMING`) do
    not.
    """
    status = status_of(error)
    if status is not None:
        return status < 400 or status in {408, 429} or status >= 500
    if not isinstance(error, Exception) or isinstance(error, CancelledError):
        return False
    if isinstance(error, OSError) or not isinstance(error, PROGRAMMING):
        return True
    return not isinstance(error, RoutelearnError) and _is_no_completion(error)


def _is_no_completion(error: Exception) -> bool:
    """Whether this error comes from reading an answer that is no completion, although its class is that of a bug."""
    if isinstance(error, (IndexError, UnicodeDecodeError)):  # choices without an entry; bytes that are no text
        return True
    if isinstance(error, KeyError):
        return error.args[:1] != () and isinstance(error.args[0], str) and error.args[0] in _ANSWER_FIELDS
    if type(error) is AttributeError:
        return error.name in _ANSWER_FIELDS
    if type(error) is TypeError:
        return str(error).startswith("'NoneType' object is not ")  # `{"choices": null}`
    # Libraries derive the errors of their parsers and validators from ValueError: json, pydantic, marshmallow.
    return type(error).__module__ != "builtins" and isinstance(error, ValueError)


def describe(error: BaseException) -> str:
    """The type of an error and its HTTP status. The text of the error is left out: clients quote the prompt in it."""
    status = status_of(error)
    return type(error).__name__ if status is None else f"{type(error).__name__} {status}"


class _FailedError(Exception):
    """Reports a failed call to pybreaker, which learns of failures from exceptions."""


def _fail() -> None:
    raise _FailedError


def _succeed() -> None:
    pass


class Breaker:
    """The breaker of one model. It has no lock: the object that holds it locks.

    Attributes:
        due_at: when the first probe of an open breaker may go, in seconds of the caller's clock.
    """

    def __init__(self, name: str, limits: BreakerLimits) -> None:
        """Start with a closed breaker.

        Args:
            name: name of the model.
            limits: `failures`, `reset_timeout_s`, `probes` and `probe_lease_s` are used here; `ModelHealth` judges
                the window.

        Raises:
            MissingExtraError: pybreaker is not installed.
        """
        self._breaker = require("pybreaker", "availability").CircuitBreaker(
            fail_max=limits.failures, reset_timeout=limits.reset_timeout_s, name=name, throw_new_error_on_trip=False
        )
        self._limits = limits
        self._leases: dict[int, float] = {}  # running probe -> end of its lease, oldest probe first
        self._next = 0
        self._unsettled = 0
        self.due_at = 0.0

    @property
    def state(self) -> BreakerState:
        """The state: closed, open or half-open."""
        return cast(BreakerState, self._breaker.current_state)

    @property
    def failures_in_a_row(self) -> int:
        """Number of failures since the last success."""
        return int(self._breaker.fail_counter)

    @property
    def oldest_probe(self) -> int | None:
        """The lease of the probe that has been running longest, or None when no probe is running."""
        return next(iter(self._leases), None)

    def wait_s(self, now: float) -> float:
        """Seconds until a request may go to the model; 0 when the breaker is closed or a probe may go now."""
        if self.state == "open":
            return max(0.0, self.due_at - now)
        if self.state == "half-open" and len(self._leases) >= self._limits.probes:
            return max(0.0, next(iter(self._leases.values())) - now)
        return 0.0

    def claim(self, now: float) -> int | None:
        """Let a probe through if one may go; this makes an open breaker half-open.

        Returns:
            The lease of the probe, to be passed to `settle` or `release`; None when the breaker is closed, or when no
            probe may go yet.
        """
        if self.state == "closed" or self.wait_s(now) > 0:
            return None
        if self.state == "open":
            self._breaker.half_open()
        if len(self._leases) >= self._limits.probes:  # nobody reported the outcome of the oldest probe
            del self._leases[next(iter(self._leases))]
        self._next += 1
        self._leases[self._next] = now + self._limits.probe_lease_s
        return self._next

    def settle(self, lease: int, ok: bool, now: float) -> None:
        """Report the outcome of a probe: success closes the breaker, failure opens it.

        An outcome whose lease has ended changes nothing.
        """
        if self._leases.pop(lease, None) is not None:
            self._report(ok, now)

    def release(self, lease: int, now: float, *, counts: bool = True) -> None:
        """End a probe that has no outcome, so that the next probe may go.

        After as many such probes in a row as failures open a breaker, this one opens again: a model that hangs until
        its callers leave would else get every request as the next probe.

        Args:
            lease: the lease of the probe.
            now: the time in seconds.
            counts: the probe is one of these; False: it says nothing at all (the process was interrupted).
        """
        if self._leases.pop(lease, None) is None or not counts:
            return
        self._unsettled += 1
        if self._unsettled >= self._limits.failures:
            self.open(now)

    def record(self, ok: bool, now: float) -> None:
        """Report the outcome of a call that was made while the breaker was closed."""
        self._report(ok, now)

    def open(self, now: float) -> None:
        """Open the breaker for a reason that `ModelHealth` found, such as a high error rate."""
        self._breaker.open()
        self._changed(now)

    def hold(self, seconds: float, now: float) -> None:
        """Open the breaker for so many seconds, or keep it open for as long. A half-open breaker is left alone."""
        if self.state == "closed":
            self.open(now)
            self.due_at = now + seconds
        elif self.state == "open":
            self.due_at = max(self.due_at, now + seconds)

    def close(self, now: float) -> None:
        """Close the breaker."""
        self._breaker.close()
        self._changed(now)

    def _report(self, ok: bool, now: float) -> None:
        before = self.state
        with contextlib.suppress(_FailedError):
            self._breaker.call(_succeed if ok else _fail)
        if self.state != before:
            self._changed(now)

    def _changed(self, now: float) -> None:
        self._leases.clear()  # outcomes of the probes that still run come too late now
        self._unsettled = 0
        if self.state == "open":
            self.due_at = now + self._limits.reset_timeout_s
