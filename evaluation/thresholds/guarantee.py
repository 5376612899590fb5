"""A threshold whose quality loss is bounded: Learn-then-Test with fixed-sequence testing.

Angelopoulos, Bates, Candes, Jordan and Lei (arXiv 2110.01052): every threshold of a grid is a hypothesis "its expected
loss is larger than alpha". They are tested one after the other, from "everything to strong" (loss 0) downwards, each
at level delta, and the first that cannot be rejected ends it. So with probability 1 - delta no threshold with a larger
loss is chosen, however fine the grid. The loss of a query is quality(strong) - quality(weak) where it
goes to weak (a gain is a negative loss), 0 where it goes to strong.

The grid is fixed beforehand: it looks neither at losses nor at the scores of the sample. (Quantiles of the sample's
own scores would make the share of queries below a threshold certain where it is random: the bound would be a little
too small.) Grid points between which no score of the sample lies have the same p-value, and are tested as one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.records import Record
from ...routers.base import Router
from ...routers.errors import InputError
from ...training.fit.metrics import Array
from .losses import Outcomes, outcomes_of
from .risk_bounds import PValues, betting, fewest, p_values_of, upper_limit

#: Thresholds tested, rising: a query whose score is below goes to weak.
GRID: Array = np.append(np.arange(1, 10_001) / 10_000, math.nextafter(1.0, 2.0))
#: A guaranteed threshold that keeps fewer queries than this from strong is none: more labels are needed.
LEAST_SAVED = 0.01
#: Labels beyond which nobody is told to collect more.
MOST_LABELS = 50_000
#: Losses in memory at a time.
_CELLS = 500_000


@dataclass(frozen=True)
class Guarantee:
    """A threshold, and what is known of its loss; `Manifest.guarantee`.

    Attributes:
        n: prompts of the calibration sample.
        max_quality_loss: alpha: with probability 1 - delta over the sample the expected loss is at most this.
        delta: 1 - confidence.
        bound: upper confidence limit (1 - delta) of the loss at this threshold taken alone; at most alpha.
        threshold: score at or above it goes to strong.
        strong_share: share of the sample that does.
        loss: mean loss of the sample.
        unit: of the losses: "score" or "win rate".
        method: of the p-values, see `risk_bounds`.
        strong: the strong model.
        weak: the weak model.
        data_fingerprint: of the sample.
        date: of the calibration, ISO 8601, UTC.
        history: the guarantees before this one, oldest first.
    """

    n: int
    max_quality_loss: float
    delta: float
    bound: float
    threshold: float
    strong_share: float
    loss: float
    unit: str
    method: str
    strong: str
    weak: str
    data_fingerprint: str
    date: str
    history: list[Mapping[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)


def calibrate_threshold(
    router: Router,
    records: Sequence[Record],
    *,
    max_quality_loss: float,
    confidence: float = 0.95,
    method: str = "betting",
) -> Guarantee:
    """The cheapest threshold whose expected loss against always-strong is bounded with a confidence.

    Args:
        router: scores the queries.
        records: performance or preference records of its strong and its weak model, not trained on (`check_leaks`),
            exchangeable with the queries to come.
        max_quality_loss: alpha, in points of the score (or of the win rate, of preferences).
        confidence: 1 - delta.
        method: of the p-values: "betting", or "clopper-pearson" for losses of 0 and 1.

    Raises:
        InputError: no outcome of both models, a setting out of range, or too few records; says how many would do.
    """
    outcomes = outcomes_of(records, router.strong, router.weak)
    return bound_loss(
        outcomes,
        router.score(outcomes.queries),
        strong=router.strong,
        weak=router.weak,
        max_quality_loss=max_quality_loss,
        confidence=confidence,
        method=method,
    )


def bound_loss(
    outcomes: Outcomes,
    scores: npt.NDArray[np.floating],
    *,
    strong: str,
    weak: str,
    max_quality_loss: float,
    confidence: float,
    method: str = "betting",
) -> Guarantee:
    """See `calibrate_threshold`.

    Args:
        outcomes: n prompts.
        scores: (n,) of the router.
        strong: the strong model.
        weak: the weak model.
        max_quality_loss: alpha.
        confidence: 1 - delta.
        method: of the p-values.
    """
    if not 0 < max_quality_loss < outcomes.largest:
        raise InputError(
            f"max_quality_loss is {max_quality_loss}; expected a number between 0 and {outcomes.largest:g} "
            f"(points of the {outcomes.unit})"
        )
    if not 0.5 <= confidence < 1:
        raise InputError(f"confidence is {confidence}; expected a number from 0.5 to below 1, such as 0.95")
    p_values = p_values_of(method)
    delta = 1 - confidence
    gaps, alpha = outcomes.gap / outcomes.largest, max_quality_loss / outcomes.largest
    scores = np.asarray(scores, np.float64)
    threshold = lowest_cost_threshold(scores, gaps, alpha, delta, p_values)
    to_weak = scores < threshold
    if to_weak.mean() < LEAST_SAVED:
        raise InputError(_too_few(scores, gaps, alpha, delta, method, outcomes, max_quality_loss))
    losses = np.where(to_weak, gaps, 0.0)
    return Guarantee(
        n=len(outcomes),
        max_quality_loss=max_quality_loss,
        delta=round(delta, 12),
        bound=min(upper_limit(p_values, losses, delta), alpha) * outcomes.largest,
        threshold=threshold,
        strong_share=float(1 - to_weak.mean()),
        loss=float(losses.mean()) * outcomes.largest,
        unit=outcomes.unit,
        method=method,
        strong=strong,
        weak=weak,
        data_fingerprint=outcomes.fingerprint,
        date=datetime.now(timezone.utc).date().isoformat(),
    )


def lowest_cost_threshold(
    scores: Array, gaps: Array, alpha: float, delta: float, p_values: PValues, grid: Array = GRID
) -> float:
    """The largest threshold that fixed-sequence testing reaches; 0 (everything to strong) where it reaches none.

    Args:
        scores: (n,).
        gaps: (n,), at most 1 each: the loss of a query that goes to weak.
        alpha: the largest expected loss, in the unit of the gaps.
        delta: level of the tests.
        p_values: of "the expected loss is larger than alpha".
        grid: thresholds, rising.
    """
    below = np.searchsorted(np.sort(scores), grid, side="left")
    distinct = grid[np.append(np.flatnonzero(np.diff(below)), len(grid) - 1)]
    reached = 0.0
    block = max(1, _CELLS // len(scores))
    for start in range(0, len(distinct), block):
        thresholds = distinct[start : start + block]
        losses = np.where(scores[:, None] < thresholds, gaps[:, None], 0.0)
        failed = np.flatnonzero(p_values(losses, alpha, delta) > delta)
        if len(failed):
            return float(thresholds[failed[0] - 1]) if failed[0] else reached
        reached = float(thresholds[-1])
    return reached


def labels_needed(scores: Array, gaps: Array, alpha: float, delta: float, method: str, trials: int = 20) -> int | None:
    """With how many labels a threshold that saves `LEAST_SAVED` is found nine times out of ten; None: with none.

    By simulation: prompts are drawn between those that there are, each with the gap of a neighbour in score.

    Args:
        scores: (n,).
        gaps: (n,).
        alpha: the largest expected loss.
        delta: level of the tests.
        method: of the p-values.
        trials: simulations of each n.
    """
    p_values = p_values_of(method)
    order = np.argsort(scores, kind="stable")
    scores, gaps = scores[order], gaps[order]
    last = len(scores) - 1
    reach = min(max(30, len(scores) // 20), last)
    # Testing may stop once a threshold saves enough.
    grid = GRID[: int(np.searchsorted(GRID, np.quantile(scores, 3 * LEAST_SAVED, method="higher"), side="right")) + 1]

    def enough(count: int) -> bool:
        random = np.random.default_rng(0)
        found = 0
        for trial in range(trials):
            if trial - found > 0.1 * trials:  # cannot succeed any more
                return False
            place = random.random(count) * last
            drawn = np.interp(place, np.arange(len(scores)), scores)
            near = np.rint(place).astype(np.int64) + random.integers(-reach, reach + 1, count)
            near = last - np.abs(last - np.abs(near))  # reflected at both ends
            threshold = lowest_cost_threshold(drawn, gaps[near], alpha, delta, p_values, grid)
            found += bool((drawn < threshold).mean() >= LEAST_SAVED)
        return found >= 0.9 * trials

    low, high = 0, fewest(method, alpha, delta)
    if high > MOST_LABELS:
        return None
    while not enough(high):
        low, high = high, 2 * high
        if low >= MOST_LABELS:
            return None
    while high - low > max(10, high // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def contradiction(guarantee: Mapping[str, Any], outcomes: Outcomes, scores: npt.NDArray[np.floating]) -> float:
    """How surprising new outcomes are under an old guarantee: the p-value of "its loss is at most what it says".

    A small one, below the guarantee's delta say, contradicts it: the queries, the models or the judge have changed.

    Args:
        guarantee: of the same pair and in the same unit.
        outcomes: n new prompts.
        scores: (n,) of the router.
    """
    losses = np.where(scores < guarantee["threshold"], outcomes.gap, 0.0) / outcomes.largest
    alpha = guarantee["max_quality_loss"] / outcomes.largest
    return float(betting(-losses[:, None], -alpha, guarantee["delta"])[0])


def _too_few(
    scores: Array, gaps: Array, alpha: float, delta: float, method: str, outcomes: Outcomes, wanted: float
) -> str:
    needed = labels_needed(scores, gaps, alpha, delta, method)
    start = (
        f"{len(scores)} labelled prompts do not show that a threshold which spares strong {LEAST_SAVED:.0%} of the "
        f"queries loses at most {wanted:g} points of the {outcomes.unit} with confidence {1 - delta:g}"
    )
    if needed is None:
        return f"{start}, and {MOST_LABELS:,} would not either: allow a larger loss, or train a better router"
    more = max(needed - len(scores), 1)
    return f"{start}; some {more:,} more would do ({needed:,} in all, by simulation from these)"
