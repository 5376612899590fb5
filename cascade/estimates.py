"""Estimates of the confidence in an answer: what a cascade asks of a confidence, and what it takes for an estimate."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from ..routers.errors import InputError
from ..routers.query import Query
from .backends import Answer
from .threads import call, contained

#: Asks the same model again. Cascades pass a function that counts the call.
Ask = Callable[[Query], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The confidence in one answer.

    Attributes:
        confidence: probability that the answer is good enough, in [0, 1].
        answer: a better answer that replaces the first one, such as the answer of the majority; None: keep the first.

    Example:
        >>> from routelearn.cascade import Estimate
        >>> Estimate(0.8)
        Estimate(confidence=0.8, answer=None)
    """

    confidence: float
    answer: Answer | None = None


@runtime_checkable
class Confidence(Protocol):
    """Estimates the confidence in an answer: a verifier, self-consistency, self-evaluation, or a class of your own.

    Example:
        >>> import asyncio
        >>> from routelearn.cascade import Answer, Confidence, Estimate
        >>> class Admissions:
        ...     async def estimate(self, query, answer, ask, prior=None):
        ...         return Estimate(0.0 if "do not know" in answer.text else 1.0)
        >>> isinstance(Admissions(), Confidence)
        True
        >>> asyncio.run(Admissions().estimate("Why?", Answer("I do not know."), None)).confidence
        0.0
    """

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate | float:
        """Estimate the confidence in one answer: an `Estimate`, or a number from 0 to 1.

        Args:
            query: the query that was asked.
            answer: the answer of the model.
            ask: asks the same model again. Cascades pass a function that counts the call.
            prior: the router's score of the query, in [0, 1]; None when there is no router, or when it failed.

        Raises:
            Exception: any exception; a cascade then has no confidence in the answer, and escalates.
        """
        ...


class NoEstimateError(InputError):
    """A confidence returned neither an estimate nor a number from 0 to 1."""


#: How `estimate` is called.
_CALL = "estimate(query, answer, ask, prior)"


def check_confidence(confidence: object, where: str) -> None:
    """Refuse a confidence that a cascade cannot call.

    Args:
        confidence: what was given.
        where: whose confidence it is, for the message.

    Raises:
        InputError: it is a class, or has no method `estimate`.
    """
    if isinstance(confidence, type):
        raise InputError(f"{where} is the class {confidence.__name__}; expected an object: {confidence.__name__}(...)")
    if not isinstance(confidence, Confidence) or not callable(confidence.estimate):
        hint = f" (a threshold is written threshold={confidence!r})" if isinstance(confidence, (int, float)) else ""
        raise InputError(f"{where} is a {type(confidence).__name__}; expected an object with a method {_CALL}{hint}")


def check_signature(confidence: Confidence, where: str) -> None:
    """Refuse a confidence whose `estimate` does not take the four arguments of a cascade.

    Args:
        confidence: an object with a method `estimate`.
        where: whose confidence it is, for the message.

    Raises:
        InputError: it does not.
    """
    try:
        signature = inspect.signature(confidence.estimate)
    except ValueError:  # compiled code that does not tell its signature
        return
    try:
        signature.bind("query", "answer", "ask", 0.5)
    except TypeError as error:
        raise InputError(f"{where} has estimate{signature}, and {error}; expected {_CALL}") from error


async def estimated(confidence: Confidence, query: Query, answer: Answer, ask: Ask, prior: float | None) -> object:
    """What a confidence returns; an `estimate` that is a plain function runs in a thread of its own."""
    with contained():
        return await call(confidence.estimate, query, answer, ask, prior)


def as_estimate(found: object, where: str) -> Estimate:
    """The estimate that a confidence returned, as such or as a plain number.

    Raises:
        NoEstimateError: it is neither; `where` says whose confidence it is.
    """
    whole = found if isinstance(found, Estimate) else Estimate(found)  # type: ignore[arg-type]  # checked below
    share, answer = whole.confidence, whole.answer
    if not isinstance(share, numbers.Real):
        raise NoEstimateError(
            f"the confidence of {where} returned {found!r:.80}; expected Estimate(0.8) or a number from 0 to 1"
        )
    if answer is not None and not isinstance(answer, Answer):
        raise NoEstimateError(f"the confidence of {where} returned the answer {answer!r:.80}; expected Answer(text)")
    if whole is not found and math.isfinite(share) and not 0 <= share <= 1:
        raise NoEstimateError(f"the confidence of {where} returned {share}; expected a number from 0 to 1, as 0.85")
    return replace(whole, confidence=float(share))
