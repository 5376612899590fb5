"""Every plan of a family at once: direct thresholds by confidence thresholds, with exact quality and cost.

The queries are counted into cells by the two thresholds that they stand between. Sums over cells then give quality and
cost of every pair of thresholds, without a replay of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...training.fit.metrics import Array
from .answered_queries import AnsweredQueries

#: Most thresholds of each kind. With fewer different values the search is exact; with more, neighbouring thresholds
#: differ by this part of the queries.
LEVELS = 2000
#: Above every score and every confidence.
ABOVE_ALL = float(np.nextafter(1, 2))
#: Sums of the same numbers in another order differ by less.
_ROUNDING = 1e-12
#: The kinds of plans, by whether they need a router's scores.
KINDS = {"cascade": False, "route": True, "both": True}


@dataclass(frozen=True, kw_only=True)
class Family:
    """The plans of one kind.

    Attributes:
        direct: (a,) direct thresholds, rising; [None]: no query goes straight to strong.
        thresholds: (b,) thresholds of the confidence, rising; [None]: nothing is verified.
        quality: (a, b) mean scores.
        cost: (a, b) USD for 1,000 queries.
    """

    direct: list[float] | list[None]
    thresholds: list[float] | list[None]
    quality: Array
    cost: Array

    def cheapest(self, quality: float, below: float = float("inf")) -> tuple[float | None, float | None] | None:
        """Thresholds of the cheapest plan that is at least so good and costs less than `below`, or None.

        Args:
            quality: least mean score.
            below: USD for 1,000 queries.
        """
        cost = np.where(self.quality >= quality - _ROUNDING, self.cost, np.inf)
        place = int(cost.argmin())
        if not cost.flat[place] < below:
            return None
        return self._at(place)

    def frontier(self) -> list[tuple[float | None, float | None]]:
        """Thresholds of the plans that no other plan beats in both cost and quality, by rising cost."""
        order = np.lexsort((-self.quality.ravel(), self.cost.ravel()))
        quality = self.quality.ravel()[order]
        best_before = np.concatenate([[-np.inf], np.maximum.accumulate(quality)[:-1]])
        return [self._at(place) for place in order[quality > best_before + _ROUNDING].tolist()]

    def _at(self, place: int) -> tuple[float | None, float | None]:
        row, column = divmod(place, self.cost.shape[1])
        return self.direct[row], self.thresholds[column]


def families(
    answered: AnsweredQueries,
    scores: Array | None,
    confidence: Array,
    verifier_cost: float = 0.0,
    levels: int = LEVELS,
) -> dict[str, Family]:
    """All plans by their kind: "cascade" and, where there are scores, "route" and "both".

    Args:
        answered: n queries.
        scores: (n,) the router's scores; None: cascades alone.
        confidence: (n,) confidence in weak's answers.
        verifier_cost: USD of verifying one answer.
        levels: most thresholds of each kind.
    """
    thresholds = _levels(confidence, levels)
    column = np.searchsorted(thresholds, confidence, side="right")
    direct = np.array([ABOVE_ALL]) if scores is None else _levels(scores, levels)
    # Query i goes straight to strong at the levels below its row: where its score is at or above the level.
    row = np.zeros(len(answered), np.int64) if scores is None else np.searchsorted(direct, scores, side="right")
    shape = (len(direct) + 1, len(thresholds))
    gain, strong_cost = answered.strong - answered.weak, answered.strong_cost
    better, dearer = (_sums_until(row, column, values, shape) for values in (gain, strong_cost))
    first = answered.weak_cost + verifier_cost
    past_gain, past_strong, past_first, past_weak = (
        np.cumsum(np.bincount(row, weights=values, minlength=shape[0]))[:-1, None]
        for values in (gain, strong_cost, first, answered.weak_cost)
    )
    per_query, per_thousand = 1 / len(answered), 1000 / len(answered)
    routed_quality = (answered.strong.sum() - past_gain) * per_query
    routed_cost = strong_cost.sum() - past_strong
    quality = routed_quality + better[:-1] * per_query
    cost = (routed_cost + past_first + dearer[:-1]) * per_thousand
    steps: list[float] = thresholds.tolist()
    found = {"cascade": Family(direct=[None], thresholds=steps, quality=quality[-1:], cost=cost[-1:])}
    if scores is None:
        return found
    straight: list[float] = direct.tolist()
    found["route"] = Family(
        direct=straight, thresholds=[None], quality=routed_quality, cost=(routed_cost + past_weak) * per_thousand
    )
    found["both"] = Family(direct=straight, thresholds=steps, quality=quality, cost=cost)
    return found


def _levels(values: Array, most: int) -> Array:
    """Thresholds from "all at or above" to "none at or above", each different value or so many quantiles."""
    different = np.unique(values)
    if len(different) > most:
        different = np.unique(np.quantile(values, np.linspace(0, 1, most), method="lower"))
    return np.append(different, ABOVE_ALL)


def _sums_until(
    row: npt.NDArray[np.int64], column: npt.NDArray[np.int64], values: Array, shape: tuple[int, int]
) -> Array:
    """Sums (rows, columns) of the values of all queries up to each row and column."""
    cells = np.bincount(row * shape[1] + column, weights=values, minlength=shape[0] * shape[1]).reshape(shape)
    return np.asarray(cells.cumsum(axis=0).cumsum(axis=1))
