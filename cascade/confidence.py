"""How sure one can be that an answer is good enough: the protocol, and two estimators that ask the model itself.

The third estimator, the recommended one, is a trained verifier (`cascade.verifier`):
it costs no call of a model. Self-consistency costs N calls, self-evaluation one;
self-evaluation is badly calibrated until it is fitted to your own labels.
"""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..routers.errors import InferenceError, InputError
from ..routers.query import Query, transcript
from .answer_forms import number, stated_confidence
from .backends import Answer

logger = logging.getLogger(__name__)

#: Asks the model behind an answer again; a cascade's own accounts for every call.
Ask = Callable[[Query], Awaitable[Answer]]

#: Fewer labels than this fit nothing.
LEAST_LABELS = 20

TEMPLATE = """\
Question:
{query}

Proposed answer:
{answer}

How sure are you that the proposed answer is correct and complete? Reply with one number from 0 (certainly wrong) to \
100 (certainly right), and nothing else."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """How sure one can be of an answer.

    Attributes:
        confidence: that the answer is good enough, in [0, 1].
        answer: a better answer that was found on the way (the majority's), to replace the first; or None.
    """

    confidence: float
    answer: Answer | None = None


@runtime_checkable
class Confidence(Protocol):
    """Estimates the confidence in an answer; a verifier, self-consistency, self-evaluation, or your own."""

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        """The confidence in one answer.

        Args:
            query: what was asked.
            answer: what the model said.
            ask: asks the same model again; whoever gives it accounts for the calls.
            prior: the router's score of the query, where there is a router.

        Raises:
            Exception: anything; a cascade then has no confidence, and escalates.
        """
        ...


class SelfConsistency:
    """Asks the model again, and is as confident as the answers agree (Wang et al. 2022, arXiv 2203.11171).

    The answer that came first counts as the first sample. The rest are asked for
    in rounds: as many at once as must be asked before anything can be decided,
    so that no call is made, or cut off, for nothing. It stops as soon as the
    majority cannot change any more; with `threshold`, as soon as it is certain
    on which side of it the agreement of all samples ends.

    The samples must differ by chance: set a temperature at the back end. The
    majority is the largest group of agreeing answers, the earlier of two equal
    ones; the confidence is its share of the answers that came.
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
        """Set how many samples, and when two agree.

        Args:
            samples: answers in all, the first included; at least 2.
            normalise: from a text to the form that is compared, None where the text holds no answer (which agrees
                with nothing): `normalise.number`, `multiple_choice`, `json_value`, `words`, or your own.
            same: whether two forms agree; for `words` use `normalise.similar`.
            concurrency: most calls at once; None: no limit.
            threshold: stop when it is certain whether the agreement reaches it; use the tier's.

        Raises:
            InputError: a setting is out of range.
        """
        if samples < 2:
            raise InputError(f"samples is {samples}; expected 2 or more")
        if concurrency is not None and concurrency < 1:
            raise InputError(f"concurrency is {concurrency}; expected 1 or more, or None")
        if threshold is not None and not 0 < threshold <= 1:
            raise InputError(f"threshold is {threshold}; expected a number above 0, at most 1, or None")
        self.samples = samples
        self.normalise = normalise
        self.same = same
        self.concurrency = concurrency
        self.threshold = threshold

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        """See `Confidence.estimate`.

        Samples that fail are left out, and the others decide.

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
                    logger.info("a sample of self-consistency failed: %s", result)
                    failure = result
                else:
                    self._join(groups, result)
                    answers += 1
            open_samples -= round_size
        if answers == 1 and failure is not None:
            raise InferenceError(f"none of {self.samples - 1} further samples came: {failure}")
        majority = max((group for _, group in groups), key=len, default=[])
        return Estimate(len(majority) / answers, majority[0] if majority else answer)

    def _join(self, groups: list[tuple[Any, list[Answer]]], answer: Answer) -> None:
        """Put an answer into the group whose first answer it agrees with, or into one of its own."""
        form = self.normalise(answer.text)
        if form is None:
            return
        for first, group in groups:
            if self.same(first, form):
                group.append(answer)
                return
        groups.append((form, [answer]))

    def _round(self, groups: list[tuple[Any, list[Answer]]], answers: int, open_samples: int) -> int:
        """How many further samples are needed before anything can be decided; 0 when it is."""
        sizes = [*sorted((len(group) for _, group in groups), reverse=True), 0, 0]
        needed = 0
        while needed < open_samples and not self._decided(sizes, needed, open_samples, answers + open_samples):
            needed += 1
        return min(needed, self.concurrency or needed)

    def _decided(self, sizes: Sequence[int], more: int, open_samples: int, total: int) -> bool:
        """Whether all is decided, should `more` of the open samples come out in the quickest way."""
        first, second = sizes[0], sizes[1]
        if self.threshold is None:
            return first + more > second + open_samples - more
        # Accepted when the first group has grown enough; rejected when all that is left cannot make it so.
        return (first + more) / total >= self.threshold or (first + open_samples - more) / total < self.threshold


class SelfEvaluation:
    """Asks the model once more, how sure it is of its answer (Kadavath et al. 2022, arXiv 2207.05221).

    What models say of themselves is badly calibrated, mostly far too sure (Tian
    et al. 2023, arXiv 2305.14975): `fit` it to labels of your own traffic.

    Attributes:
        template: the prompt, with ``{query}`` and ``{answer}``.
        calibration: (stated, true) confidences by rising stated one; linear between; empty: taken as stated.
    """

    def __init__(self, template: str = TEMPLATE, calibration: Sequence[tuple[float, float]] = ()) -> None:
        """Set the prompt and, where there is one, the fitted map.

        Raises:
            InputError: the template cannot be filled in, or the map is not monotone within [0, 1].
        """
        try:
            filled = template.format(query="\0query", answer="\0answer")
        except (LookupError, ValueError, AttributeError) as error:
            raise InputError(
                f"the template cannot be filled in ({error}); expected {{query}} and {{answer}}"
            ) from error
        if "\0query" not in filled or "\0answer" not in filled:
            raise InputError("the template lacks {query} or {answer}; expected both")
        points = [(float(stated), float(true)) for stated, true in calibration]
        rising = all(a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(points))
        if not rising or not all(0 <= value <= 1 for point in points for value in point):
            raise InputError("the calibration is no rising list of (stated, true) pairs within [0, 1]")
        self.template = template
        self.calibration = tuple(points)

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        """See `Confidence.estimate`.

        Raises:
            InputError: the model's reply holds no confidence.
        """
        del prior
        return Estimate(self.calibrated(await self.stated(query, answer, ask)))

    async def stated(self, query: Query, answer: Answer, ask: Ask) -> float:
        """The confidence as the model states it, in [0, 1]: what `fit` takes.

        Raises:
            InputError: the model's reply holds no confidence.
        """
        reply = await ask(self.template.format(query=transcript(query), answer=answer.text))
        return stated_confidence(reply.text)

    def calibrated(self, stated: float) -> float:
        """The true confidence behind a stated one."""
        if not self.calibration:
            return stated
        stated_ones, true_ones = zip(*self.calibration, strict=True)
        return float(np.interp(stated, stated_ones, true_ones))

    def fit(self, stated: Sequence[float], good: Sequence[bool]) -> SelfEvaluation:
        """The same with a map fitted to labels: isotonic regression (Zadrozny and Elkan 2002), linear between steps.

        Args:
            stated: n confidences in [0, 1], as the model stated them.
            good: n labels, whether the answer was good enough.

        Raises:
            InputError: fewer than 20 labels, labels that are all the same, or numbers out of range.
        """
        x, y = np.asarray(stated, np.float64), np.asarray(good, np.float64)
        if x.ndim != 1 or x.shape != y.shape or len(x) < LEAST_LABELS:
            raise InputError(f"{x.size} confidences and {y.size} labels; expected as many, at least {LEAST_LABELS}")
        if not (np.all((x >= 0) & (x <= 1)) and np.all((y == 0) | (y == 1))):
            raise InputError("a confidence is outside [0, 1] or a label is neither True nor False")
        if y.min() == y.max():
            raise InputError(f"all {len(y)} labels are {bool(y[0])}; expected good and bad answers")
        return SelfEvaluation(self.template, _isotonic(x, y))

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain data, ready for JSON."""
        return {
            "kind": "self-evaluation",
            "template": self.template,
            "calibration": [list(p) for p in self.calibration],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SelfEvaluation:
        """The reverse of `as_dict`.

        Raises:
            InputError: the data are not such settings.
        """
        if data.get("kind") != "self-evaluation":
            raise InputError(f"kind is {data.get('kind')!r}; expected 'self-evaluation'")
        try:
            return cls(str(data["template"]), [(stated, true) for stated, true in data["calibration"]])
        except (LookupError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"these are no settings of a self-evaluation ({error!r})") from error


def _isotonic(
    x: np.ndarray[Any, np.dtype[np.float64]], y: np.ndarray[Any, np.dtype[np.float64]]
) -> list[tuple[float, float]]:
    """Pool adjacent violators (Ayer et al. 1955): (x, value) at both ends of every pool, by rising x."""
    places, at = np.unique(x, return_inverse=True)
    counts = np.bincount(at).astype(np.float64)
    pools: list[list[float]] = []  # lowest x, highest x, sum of labels, labels
    for place, total, count in zip(places.tolist(), np.bincount(at, y).tolist(), counts.tolist(), strict=True):
        pools.append([place, place, total, count])
        while len(pools) > 1 and pools[-2][2] * pools[-1][3] >= pools[-1][2] * pools[-2][3]:
            _, high, total_above, count_above = pools.pop()
            pools[-1][1] = high
            pools[-1][2] += total_above
            pools[-1][3] += count_above
    return [(end, total / count) for low, high, total, count in pools for end in sorted({low, high})]
