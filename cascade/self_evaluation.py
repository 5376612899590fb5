"""Self-evaluation: ask the model how sure it is of its answer, read the reply, and calibrate it with labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..routers.errors import InputError
from ..routers.query import Query, transcript
from .backends import Answer
from .estimates import Ask, Estimate

#: `SelfEvaluation.fit` needs at least this many labels.
LEAST_LABELS = 20

TEMPLATE = """\
Question:
{query}

Proposed answer:
{answer}

How sure are you that the proposed answer is correct and complete? Reply with one number from 0 (certainly wrong) to \
100 (certainly right), and nothing else."""


class SelfEvaluation:
    """A `Confidence` that asks the model once more how sure it is (Kadavath et al. 2022, arXiv 2207.05221).

    The confidence that a model states is badly calibrated and mostly far too
    high (Tian et al. 2023, arXiv 2305.14975), so `fit` it to labels of your own
    traffic.

    Attributes:
        template: the prompt, which contains ``{query}`` and ``{answer}``.
        calibration: pairs of stated confidence and true confidence, by rising stated confidence. Values between two
            pairs are interpolated linearly. Empty: the stated confidence is used as it is.

    Example:
        >>> from routelearn.cascade import SelfEvaluation
        >>> SelfEvaluation().calibrated(0.9)
        0.9
        >>> stated, good = [0.7, 0.9] * 10, [False, True, True, True] * 5
        >>> fitted = SelfEvaluation().fit(stated, good)
        >>> fitted.calibrated(0.7), fitted.calibrated(0.9)
        (0.5, 1.0)
    """

    def __init__(self, template: str = TEMPLATE, calibration: Sequence[tuple[float, float]] = ()) -> None:
        """Set the prompt and, if you have one, the fitted calibration.

        Args:
            template: the prompt; it must contain ``{query}`` and ``{answer}``.
            calibration: pairs of stated and true confidence, see the class.

        Raises:
            InputError: the template cannot be filled in, or the calibration does not rise within [0, 1].
        """
        try:
            filled = template.format(query="\0query", answer="\0answer")
        except (LookupError, ValueError, AttributeError) as error:
            raise InputError(
                f"the template cannot be filled in ({error}); expected a text with {{query}} and {{answer}}"
            ) from error
        for name in ("query", "answer"):
            if f"\0{name}" not in filled:
                raise InputError(f"the template lacks {{{name}}}; expected a text with {{query}} and {{answer}}")
        try:
            points = [(float(stated), float(true)) for stated, true in calibration]
        except (TypeError, ValueError) as error:
            raise InputError(f"calibration is {calibration!r:.80}; expected (stated, true) pairs of numbers") from error
        rising = all(a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(points))
        if not rising or not all(0 <= value <= 1 for point in points for value in point):
            raise InputError(
                f"calibration is {points}; expected (stated, true) pairs of numbers from 0 to 1 in rising order"
            )
        self.template = template
        self.calibration = tuple(points)

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        """Estimate the confidence in one answer, as `Confidence.estimate` says.

        Raises:
            InputError: the reply of the model states no confidence.
        """
        del prior
        return Estimate(self.calibrated(await self.stated(query, answer, ask)))

    async def stated(self, query: Query, answer: Answer, ask: Ask) -> float:
        """Ask the model, and return the confidence that it states, in [0, 1]. `fit` needs these numbers.

        Raises:
            InputError: the reply of the model states no confidence.
        """
        reply = await ask(self.template.format(query=transcript(query), answer=answer.text))
        return stated_confidence(reply.text)

    def calibrated(self, stated: float) -> float:
        """The true confidence that belongs to a stated confidence."""
        if not self.calibration:
            return stated
        stated_ones, true_ones = zip(*self.calibration, strict=True)
        return float(np.interp(stated, stated_ones, true_ones))

    def fit(self, stated: Sequence[float], good: Sequence[bool]) -> SelfEvaluation:
        """Fit the calibration to labels by isotonic regression (Zadrozny and Elkan 2002), linear between its steps.

        Args:
            stated: n confidences in [0, 1], as the model stated them.
            good: n labels: whether the answer was good enough.

        Returns:
            A copy of this self-evaluation with the fitted calibration.

        Raises:
            InputError: there are fewer than 20 labels, all labels are the same, or a number is out of range.
        """
        try:
            x, y = np.asarray(stated, np.float64), np.asarray(good, np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"stated or good holds no numbers ({error}); expected numbers and labels") from error
        if x.ndim != 1 or x.shape != y.shape or len(x) < LEAST_LABELS:
            raise InputError(
                f"{x.size} confidences and {y.size} labels; expected as many labels as confidences, at least "
                f"{LEAST_LABELS}"
            )
        if not np.all((x >= 0) & (x <= 1)):
            raise InputError(f"stated holds {x[~((x >= 0) & (x <= 1))][0]}, outside [0, 1]; expected 0.85, not 85")
        if not np.all((y == 0) | (y == 1)):
            raise InputError(f"good holds {y[(y != 0) & (y != 1)][0]}; expected True or False")
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
        """Make a self-evaluation from the settings that `as_dict` gave.

        Raises:
            InputError: the data are not the settings of a self-evaluation.
        """
        if data.get("kind") != "self-evaluation":
            raise InputError(f"kind is {data.get('kind')!r}; expected 'self-evaluation'")
        try:
            return cls(str(data["template"]), [(stated, true) for stated, true in data["calibration"]])
        except (LookupError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"the settings of a self-evaluation cannot be read ({error!r}); expected a template and a calibration"
            ) from error


def _isotonic(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    """Pool adjacent violators (Ayer et al. 1955).

    Returns:
        Pairs of x and fitted value at both ends of each pool, by rising x.
    """
    places, at = np.unique(x, return_inverse=True)
    counts = np.bincount(at).astype(np.float64)
    pools: list[list[float]] = []  # each: lowest x, highest x, sum of the labels, number of labels
    for place, total, count in zip(places.tolist(), np.bincount(at, y).tolist(), counts.tolist(), strict=True):
        pools.append([place, place, total, count])
        while len(pools) > 1 and pools[-2][2] * pools[-1][3] >= pools[-1][2] * pools[-2][3]:
            _, high, total_above, count_above = pools.pop()
            pools[-1][1] = high
            pools[-1][2] += total_above
            pools[-1][3] += count_above
    return [(end, total / count) for low, high, total, count in pools for end in sorted({low, high})]


#: Only this many characters at the end of a reply are read, because the verdict stands there.
VERDICT_CHARACTERS = 2000

_SCALE = re.compile(r"\(?\b0\s*%?\s*(?:-|–|to|and)\s*(?:100|10|1)\b\s*%?\)?", re.IGNORECASE)
_AMOUNT = r"(?<![\w.\-−])(\d+(?:\.\d+)?|\.\d+)(?![\d.]*\d)\s*(%|percent\b|(?:/|out of)\s*\d+)?"
_LABEL = r"(?:confidence|certainty|probability|likelihood)"
_LABELLED = re.compile(
    rf"{_LABEL}(?: (?:score|level|rating|is|of|that|it|correct)){{0,6}}[\s\"'*_:=~]{{0,8}}{_AMOUNT}", re.IGNORECASE
)
_WITH_UNIT = re.compile(_AMOUNT.removesuffix("?"), re.IGNORECASE)
_ALONE = re.compile(rf"^[ \t*_\"']*{_AMOUNT}[ \t*_\"'.]*$", re.IGNORECASE | re.MULTILINE)
_ANY = re.compile(_AMOUNT, re.IGNORECASE)
_LEVEL = r"(very high|high|medium|moderate|very low|low)"
_LEVELS = re.compile(
    rf"{_LABEL}(?: (?:score|level|rating|is)){{0,3}}[\s\"'*_:=~]{{0,8}}\b{_LEVEL}\b"
    rf"|\b{_LEVEL} {_LABEL}|^\W*{_LEVEL}\W*$",
    re.IGNORECASE,
)

#: The confidence that each level in words stands for. Levels are as badly calibrated as numbers are.
LEVELS = {"very high": 0.95, "high": 0.85, "medium": 0.5, "moderate": 0.5, "low": 0.15, "very low": 0.05}


def stated_confidence(text: str) -> float:
    """Read the confidence that a model states in its reply, in [0, 1].

    The reply may say "85", "85%", "0.85", "8/10", "8 out of 10",
    "Confidence: 85", ``{"confidence": 0.85}`` or "high", with words around it. A
    number without a unit is a number out of 100, unless it has a decimal point
    and is at most 1. A reply with several numbers is refused, unless one of them
    has a label, has a unit, or stands alone on a line.

    Raises:
        InputError: no confidence can be read, or it is out of range.
    """
    plain = _SCALE.sub(" ", text.rpartition("</think>")[2][-VERDICT_CHARACTERS:])
    for pattern in (_LABELLED, _WITH_UNIT, _ALONE):
        amounts = pattern.findall(plain)
        if amounts:
            return _share(amounts[-1], text)
    level = _LEVELS.search(plain)
    if level:
        return LEVELS[next(filter(None, level.groups())).casefold()]
    amounts = _ANY.findall(plain)
    if len(amounts) == 1:
        return _share(amounts[0], text)
    raise InputError(f"no confidence in {text[:80]!r}; expected a number from 0 to 100")


def _share(amount: tuple[str, str], text: str) -> float:
    digits, unit = amount
    scale = re.search(r"\d+", unit)
    most = float(scale.group()) if scale else 100.0
    if not unit and "." in digits and float(digits) <= 1:
        most = 1.0
    if not 0 <= float(digits) <= most or most == 0:
        raise InputError(f"the confidence in {text[:80]!r} is out of range; expected a number from 0 to 100")
    return float(digits) / most
