"""Confidence in an answer: self-consistency, and the joint confidence; `cascade/estimates.py` has the protocol.

The recommended confidence is a trained verifier (`cascade/verifier.py`), because
it calls no model. Self-consistency, in this file, calls the model several
times. Self-evaluation (`cascade/self_evaluation.py`) calls it once, and is badly
calibrated until it is fitted to your own labels. The joint confidence combines
any of them with a router.
"""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..routers.base import Router, check_router
from ..routers.checks import check_number, check_whole
from ..routers.errors import InferenceError, InputError
from ..routers.query import Query
from .answer_forms import number
from .backends import Answer
from .estimates import Ask, Confidence, Estimate, as_estimate, check_confidence, check_signature, estimated

logger = logging.getLogger(__name__)


class PriorConfidence:
    """Base class of confidences that need the router's score of the query.

    A cascade without a router refuses a tier with such a confidence. Other
    confidences need no base class.

    Example:
        >>> from routelearn.cascade import Cascade, Estimate, PriorConfidence, Tier
        >>> from routelearn import Model
        >>> class EasyQueries(PriorConfidence):
        ...     async def estimate(self, query, answer, ask, prior=None):
        ...         return Estimate(1 - prior)
        >>> Cascade([Tier(Model("weak"), str, EasyQueries()), Tier(Model("strong"), str)])
        Traceback (most recent call last):
        routelearn.routers.errors.InputError: the confidence of tier 'weak' needs a router's score; expected a router
    """

    @property
    def needs_prior(self) -> bool:
        """Whether `estimate` needs the prior. A subclass may say that this depends on its settings."""
        return True


def needs_prior(confidence: Confidence) -> bool:
    """Whether a confidence needs the router's score of the query."""
    return isinstance(confidence, PriorConfidence) and confidence.needs_prior


class SelfConsistency:
    """A `Confidence` that asks the model again and counts the answers that agree (Wang et al. 2022, arXiv 2203.11171).

    The first answer counts as the first sample. The other samples are asked for
    in rounds. Each round holds as many calls as are needed before anything can
    be decided, so no call is made in vain. Sampling stops when the majority
    cannot change any more. With `threshold`, it stops when it is certain
    whether the agreement of all samples would reach the threshold.

    The majority is the largest group of agreeing answers; of two equal groups,
    the earlier one. The confidence is the share of the majority in the answers
    that came. Set a temperature at the back end, since samples must differ by
    chance.

    Example:
        >>> import asyncio
        >>> from routelearn.cascade import Answer, SelfConsistency
        >>> async def ask(query):
        ...     return Answer("It is 144.")
        >>> first = Answer("The result is 12 * 12 = 144")
        >>> asyncio.run(SelfConsistency(samples=3).estimate("How much is 12 * 12?", first, ask)).confidence
        1.0
    """

    def __init__(
        self,
        samples: int = 5,
        normalise: Callable[[str], Any] = number,
        same: Callable[[Any, Any], bool] = operator.eq,
        *,
        concurrency: int | None = None,
        threshold: float | None = None,
    ) -> None:
        """Set the number of samples, and when two of them agree.

        Args:
            samples: number of answers, the first one included; at least 2.
            normalise: maps a text to the form that is compared, or to None when the text holds no answer; such a text
                agrees with nothing. Use `number`, `multiple_choice`, `json_value` or `words`, or your own function.
            same: says whether two forms agree. With `words`, use `similar()`.
            concurrency: largest number of calls at once. None: no limit.
            threshold: stop when it is certain whether the agreement reaches this number. Use the threshold of the
                tier. None: stop when the majority is certain.

        Raises:
            InputError: a setting is out of range.
        """
        check_whole("samples", samples, 2)
        if not callable(normalise) or not callable(same):
            raise InputError(f"normalise is {normalise!r:.80} and same is {same!r:.80}; expected functions")
        if concurrency is not None:
            check_whole("concurrency", concurrency, 1)
        if threshold is not None:
            check_number("threshold", threshold, "a number above 0 and at most 1, or None")
        if threshold is not None and not 0 < threshold <= 1:
            raise InputError(f"threshold is {threshold}; expected a number above 0 and at most 1, or None")
        self.samples = samples
        self.normalise = normalise
        self.same = same
        self.concurrency = concurrency
        self.threshold = threshold

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        """Estimate the confidence in one answer, as `Confidence.estimate` says.

        Samples that fail are left out, and the other samples decide.

        Raises:
            InferenceError: every further sample failed.
        """
        del prior
        groups: list[tuple[Any, list[Answer]]] = []
        self._join(groups, answer)
        answers, open_samples = 1, self.samples - 1
        failure: BaseException | None = None
        while round_size := self._round(groups, answers, open_samples):
            asked = (ask(query) for _ in range(round_size))
            for result in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(result, BaseException):
                    logger.info("a sample of self-consistency failed: %s", type(result).__name__)
                    failure = result
                else:
                    self._join(groups, result)
                    answers += 1
            open_samples -= round_size
        if answers == 1 and failure is not None:
            raise InferenceError(f"none of {self.samples - 1} further samples succeeded: {failure}")
        majority = max((group for _, group in groups), key=len, default=[])
        return Estimate(len(majority) / answers, majority[0] if majority else answer)

    def _join(self, groups: list[tuple[Any, list[Answer]]], answer: Answer) -> None:
        """Add an answer to the group whose first answer it agrees with, or start a new group."""
        form = self.normalise(answer.text)
        if form is None:
            return
        for first, group in groups:
            if self.same(first, form):
                group.append(answer)
                return
        groups.append((form, [answer]))

    def _round(self, groups: list[tuple[Any, list[Answer]]], answers: int, open_samples: int) -> int:
        """Number of further samples that are needed before anything can be decided; 0 when the result is certain."""
        sizes = [*sorted((len(group) for _, group in groups), reverse=True), 0, 0]
        needed = 0
        while needed < open_samples and not self._decided(sizes, needed, open_samples, answers + open_samples):
            needed += 1
        return min(needed, self.concurrency or needed)

    def _decided(self, sizes: Sequence[int], more: int, open_samples: int, total: int) -> bool:
        """Whether the result would be certain if `more` of the open samples came out in the most decisive way."""
        first, second = sizes[0], sizes[1]
        if self.threshold is None:
            return first + more > second + open_samples - more
        # Accepted when the first group is large enough; rejected when no outcome of the open samples can make it so.
        return (first + more) / total >= self.threshold or (first + open_samples - more) / total < self.threshold


#: One number, or an array of n numbers.
Numbers = TypeVar("Numbers", float, npt.NDArray[np.float64])


def joint_confidence(confidence: Numbers, strong_quality: Numbers) -> Numbers:
    """Expected win rate of an answer over the answer of strong: ``1/2 + (confidence - strong_quality) / 2``.

    Args:
        confidence: probability that the answer is good enough, in [0, 1].
        strong_quality: expected quality of strong's answer, in [0, 1], by a router that was trained on performance
            records.

    Returns:
        The win rate, with ties at one half, in [0, 1].
    """
    return 0.5 + (confidence - strong_quality) / 2


class Joint(PriorConfidence):
    """A `Confidence` that compares the answer with what strong would say: see `joint_confidence`.

    The router knows the query, and so the quality that strong would reach; the
    inner confidence knows the answer. If strong would fail as well, escalating
    gains nothing, however doubtful the answer is.

    Example:
        >>> import asyncio, routelearn
        >>> from routelearn.cascade import Answer, Joint, load_verifier
        >>> joint = Joint(load_verifier("verifier/"), routelearn.load("router/"))
        >>> estimate = asyncio.run(joint.estimate("How much is 12 * 12?", Answer("144"), None))
        >>> 0 <= estimate.confidence <= 1
        True
    """

    def __init__(self, confidence: Confidence, router: Router, strong: str | None = None) -> None:
        """Combine a confidence with a router.

        Args:
            confidence: a calibrated probability that the answer is good enough.
            router: a router that was trained on performance records, so that its quality is an expected score.
            strong: the model that would answer after an escalation. None: the router's strong model.

        Raises:
            InputError: the router does not know the model, or was trained on preference records: its quality is then
                a win rate.
        """
        check_confidence(confidence, "the confidence of Joint")
        check_signature(confidence, "the confidence of Joint")
        check_router(router)
        if router.link == "bradley-terry":
            raise InputError(
                "the router was trained on preference records (link 'bradley-terry'), so its quality is a win rate; "
                "expected a router that was trained on performance records"
            )
        self._confidence = confidence
        self._router = router
        self._column = router.index(strong or router.strong)

    @property
    def needs_prior(self) -> bool:
        """Whether the inner confidence needs the prior."""
        return needs_prior(self._confidence)

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        """Estimate the confidence in one answer, as `Confidence.estimate` says."""
        found = await estimated(self._confidence, query, answer, ask, prior)
        inner = as_estimate(found, type(self._confidence).__name__)
        quality = await asyncio.to_thread(self._router.quality, [query])
        return Estimate(joint_confidence(inner.confidence, float(quality[0, self._column])), inner.answer)
