"""Which errors say that a model is not well, and what of them is told."""

from __future__ import annotations

from concurrent.futures import CancelledError

#: Errors of Python programs: in a caller's own code, not at the model.
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


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error carries: its `status_code` or `status`, or its response's; None: it has none."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return int(value)
    return None


def is_failure(error: BaseException) -> bool:
    """Whether an error counts against the model that was asked.

    With an HTTP status: 408, 429 and from 500 on count; the others are the
    request's own fault (bad request, no rights, not found, conflict). Without
    one: connections, timeouts and unknown exceptions count; cancellations and
    programming errors (`PROGRAMMING`) do not.
    """
    status = status_of(error)
    if status is not None:
        return status in {408, 429} or status >= 500
    return isinstance(error, Exception) and not isinstance(error, (CancelledError, *PROGRAMMING))


def describe(error: BaseException) -> str:
    """The type of an error and its HTTP status; not its text, in which clients quote the prompt."""
    status = status_of(error)
    return type(error).__name__ if status is None else f"{type(error).__name__} {status}"
