"""A threshold whose quality loss is bounded: Learn-then-Test with fixed-sequence testing.

The method is that of Angelopoulos, Bates, Candes, Jordan and Lei (arXiv 2110.01052). Every threshold of a grid stands
for the hypothesis "the expected loss at this threshold is larger than alpha". The hypotheses are tested one after the
other, each at level delta, from "everything goes to strong" (loss 0) towards "everything goes to weak"; the first one
that cannot be rejected ends the testing. So with probability 1 - delta no threshold with a larger loss is chosen,
however fine the grid is. The loss of a query is quality(strong) - quality(weak) where the query goes to weak (a gain is
a negative loss), and 0 where it goes to strong.

The grid is fixed beforehand: it depends neither on the losses nor on the scores of the sample. (With quantiles of the
sample's scores as a grid, the share of queries below a threshold would look certain although it is random, and the
bound would be a little too small.) Grid points with no score of the sample between them have the same p-value, and are
tested as one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt

from ...routers.errors import InputError
from ...training.fit.metrics import Array, weighted_mean
from .losses import Losses
from .p_values import PValues, betting, fewest, p_values_of, upper_limit

#: The thresholds that are tested, rising; a query with a score below the threshold goes to weak.
GRID: Array = np.append(np.arange(1, 10_001) / 10_000, math.nextafter(1.0, 2.0))
#: A guaranteed threshold must keep at least this share of the queries from strong; otherwise more labels are needed.
LEAST_SAVED = 0.01
#: No error message asks for more labels than this.
MOST_LABELS = 50_000
#: Number of losses that are held in memory at a time.
_CELLS = 500_000


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """A threshold with a bounded loss; the bundle keeps it as `Manifest.guarantee`.

    Example:
        >>> from routelearn.evaluation import bound_loss, losses_of
        >>> router = routelearn.load("router/")
        >>> losses = losses_of(routelearn.read_records("records.jsonl").records, router.strong, router.weak)
        >>> guarantee = bound_loss(
        ...     losses, router.score(losses.queries), strong="sim-max", weak="sim-small", max_quality_loss=0.2
        ... )
        >>> guarantee.loss <= guarantee.bound <= 0.2
        True

    Attributes:
        n: number of prompts in the calibration sample.
        max_quality_loss: alpha: the expected loss is at most this, with probability 1 - delta over the sample.
        delta: 1 - confidence.
        bound: upper confidence limit (1 - delta) of the loss at this threshold taken alone; at most alpha.
        threshold: score at or above it goes to strong.
        strong_share: share of the sample that goes to strong.
        loss: mean loss of the sample.
        unit: unit of the losses, "score" or "win rate".
        method: how the p-values were computed, "betting" or "clopper-pearson" (see `p_values.py`).
        strong: the strong model.
        weak: the weak model.
        data_fingerprint: fingerprint of the sample.
        date: day of the calibration, ISO 8601, UTC.
        history: the earlier guarantees, oldest first.
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
        """The guarantee as plain data, ready for JSON."""
        return asdict(self)


def bound_loss(
    losses: Losses,
    scores: npt.NDArray[np.floating],
    *,
    strong: str,
    weak: str,
    max_quality_loss: float,
    confidence: float = 0.95,
    method: str = "betting",
) -> Guarantee:
    """The cheapest threshold whose expected loss against always-strong is bounded with a confidence.

    The queries must be exchangeable with those to come, and the router must not have been trained on them. Prompts that
    were chosen with known probabilities stand for all prompts by their weights: what is tested is then the
    weighted loss, which the largest weight bounds, so that unequal weights cost power.

    Args:
        losses: losses of n prompts.
        scores: (n,) the router's scores of the same prompts.
        strong: the strong model.
        weak: the weak model.
        max_quality_loss: alpha, the largest expected loss, in the unit of the losses.
        confidence: 1 - delta, from 0.5 to below 1.
        method: how p-values are computed: "betting", or "clopper-pearson" for losses of 0 and 1.

    Raises:
        InputError: an argument is out of range, or there are too few prompts; the message says how many would do.
    """
    check_bound(losses, max_quality_loss, confidence, method)
    p_values = p_values_of(method)
    delta = 1 - confidence
    largest = losses.largest_weighted
    gaps, alpha = losses.weighted_gap / largest, max_quality_loss / largest
    scores = np.asarray(scores, np.float64)
    threshold = lowest_cost_threshold(scores, gaps, alpha, delta, p_values)
    to_weak = scores < threshold
    saved = float(weighted_mean(to_weak, losses.weight))
    if saved < LEAST_SAVED:
        needed = labels_needed(scores, gaps, alpha, delta, method)
        raise InputError(_too_few(len(losses), needed, losses.unit, max_quality_loss, delta))
    lost = np.where(to_weak, gaps, 0.0)
    return Guarantee(
        n=len(losses),
        max_quality_loss=max_quality_loss,
        delta=round(delta, 12),
        bound=min(upper_limit(p_values, lost, delta), alpha) * largest,
        threshold=threshold,
        strong_share=1 - saved,
        loss=float(lost.mean()) * largest,
        unit=losses.unit,
        method=method,
        strong=strong,
        weak=weak,
        data_fingerprint=losses.fingerprint,
        date=datetime.now(timezone.utc).date().isoformat(),
    )


def check_bound(losses: Losses, max_quality_loss: float, confidence: float, method: str = "betting") -> None:
    """Refuse a bound that no labels could show.

    Raises:
        InputError: an argument is out of range.
    """
    if not 0 < max_quality_loss < losses.largest:
        raise InputError(
            f"max_quality_loss is {max_quality_loss}; expected a number between 0 and {losses.largest:g} "
            f"(points of the {losses.unit})"
        )
    if not 0.5 <= confidence < 1:
        raise InputError(f"confidence is {confidence}; expected a number from 0.5 to below 1, such as 0.95")
    if losses.weight is not None and method != "betting":
        raise InputError(f"method is {method!r}, and the prompts have unequal weights; expected 'betting'")


def lowest_cost_threshold(
    scores: Array, gaps: Array, alpha: float, delta: float, p_values: PValues, grid: Array = GRID
) -> float:
    """The largest threshold that fixed-sequence testing reaches; 0 (everything goes to strong) where it reaches none.

    Args:
        scores: (n,) the router's scores.
        gaps: (n,) loss of each query if it goes to weak, at most 1.
        alpha: the largest expected loss, in the unit of the gaps.
        delta: level of the tests.
        p_values: computes the p-values of "the expected loss is larger than alpha".
        grid: the thresholds to test, rising.
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
    """How many labels are needed to find, nine times out of ten, a threshold that saves `LEAST_SAVED` of the calls.

    The answer comes from a simulation: scores are drawn between the known ones, each with the gap of a prompt whose
    score is close.

    Args:
        scores: (n,) the router's scores.
        gaps: (n,) loss of each query if it goes to weak, at most 1.
        alpha: the largest expected loss.
        delta: level of the tests.
        method: how p-values are computed.
        trials: number of simulations for each number of labels.

    Returns:
        The number of labels; None when even `MOST_LABELS` are not enough.
    """
    p_values = p_values_of(method)
    order = np.argsort(scores, kind="stable")
    scores, gaps = scores[order], gaps[order]
    last = len(scores) - 1
    reach = min(max(30, len(scores) // 20), last)
    # A threshold that saves enough ends the testing: the grid need not go on beyond it.
    grid = GRID[: int(np.searchsorted(GRID, np.quantile(scores, 3 * LEAST_SAVED, method="higher"), side="right")) + 1]

    def enough(count: int) -> bool:
        random = np.random.default_rng(0)
        successes = 0
        for trial in range(trials):
            if trial - successes > 0.1 * trials:  # too many failures already
                return False
            place = random.random(count) * last
            drawn = np.interp(place, np.arange(len(scores)), scores)
            near = np.rint(place).astype(np.int64) + random.integers(-reach, reach + 1, count)
            near = last - np.abs(last - np.abs(near))  # reflected at both ends
            threshold = lowest_cost_threshold(drawn, gaps[near], alpha, delta, p_values, grid)
            successes += bool((drawn < threshold).mean() >= LEAST_SAVED)
        return successes >= 0.9 * trials

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


def contradiction(guarantee: Mapping[str, Any], losses: Losses, scores: npt.NDArray[np.floating]) -> float:
    """The p-value of "the expected loss is at most what an earlier guarantee says", on new losses.

    A small p-value, for instance one below the guarantee's delta, contradicts the guarantee: the queries, the models or
    the judge have changed.

    Args:
        guarantee: an earlier guarantee of the same pair of models and in the same unit.
        losses: losses of n new prompts.
        scores: (n,) the router's scores of the same prompts.
    """
    lost = np.where(scores < guarantee["threshold"], losses.weighted_gap, 0.0) / losses.largest_weighted
    alpha = guarantee["max_quality_loss"] / losses.largest_weighted
    return float(betting(-lost[:, None], -alpha, guarantee["delta"])[0])


def _too_few(labels: int, needed: int | None, unit: str, wanted: float, delta: float) -> str:
    """The message that so many labelled prompts are too few, and how many would do."""
    start = (
        f"{labels} labelled prompts do not show that a threshold which spares strong {LEAST_SAVED:.0%} of the "
        f"queries loses at most {wanted:g} points of the {unit} with confidence {1 - delta:g}"
    )
    if needed is None:
        return f"{start}, and {MOST_LABELS:,} would not either: allow a larger loss, or train a better router"
    more = max(needed - labels, 1)
    return f"{start}; some {more:,} more would do ({needed:,} in all, by a simulation from these labels)"
