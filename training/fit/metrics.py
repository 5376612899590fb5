"""Routing metrics as RouteLLM defines them (arXiv 2406.18665, section 3), and bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: What APGR is, for the first place where a page or a table states it.
APGR_IN_WORDS = "average performance gap recovered (APGR): 0.5 is random, 1 is perfect"

#: RouteLLM's evaluation takes the edges of this many quantile bins of the score as thresholds.
QUANTILE_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The mean score of a router at every share of strong calls.

    Example:
        >>> import numpy as np
        >>> from routelearn.training.fit.metrics import Curve
        >>> curve = Curve(share=np.array([0, 0.5, 1]), quality=np.array([0.4, 0.9, 0.9]), weak=0.4, strong=0.9)
        >>> curve.apgr, curve.cpt(0.5), round(curve.share_for(0.8), 3)
        (0.75, 0.25, 0.4)

    Attributes:
        share: (k,) shares of the queries that go to strong, rising from 0 to 1.
        quality: (k,) mean scores of the chosen answers.
        weak: mean score of weak alone.
        strong: mean score of strong alone.
    """

    share: Array
    quality: Array
    weak: float
    strong: float

    @property
    def pgr(self) -> Array:
        """Performance gap recovered (PGR) at each share, (k,); NaN when strong and weak are equally good."""
        gap = self.strong - self.weak
        return (self.quality - self.weak) / gap if gap else np.full(len(self.quality), np.nan)

    @property
    def apgr(self) -> float:
        """Average performance gap recovered (APGR): the area under PGR over the strong share, by trapezoids."""
        return float(np.trapezoid(self.pgr, self.share))

    def cpt(self, target: float) -> float:
        """Call-performance threshold (CPT): the smallest strong share whose interpolated PGR reaches the target.

        Args:
            target: the PGR that has to be reached.

        Returns:
            The share; 1 where no share reaches the target.
        """
        pgr, share = self.pgr, self.share
        for i in range(len(pgr)):
            if pgr[i] >= target:
                if i == 0 or pgr[i] == pgr[i - 1]:
                    return float(share[i])
                step = (target - pgr[i - 1]) / (pgr[i] - pgr[i - 1])
                return float(share[i - 1] + step * (share[i] - share[i - 1]))
        return 1.0

    def share_for(self, quality: float) -> float:
        """The smallest strong share whose interpolated mean score reaches a quality; 1 where no share reaches it."""
        reached = np.flatnonzero(self.quality >= quality)
        if not len(reached):
            return 1.0
        i = int(reached[0])
        if i == 0 or self.quality[i] == self.quality[i - 1]:
            return float(self.share[i])
        step = (quality - self.quality[i - 1]) / (self.quality[i] - self.quality[i - 1])
        return float(self.share[i - 1] + step * (self.share[i] - self.share[i - 1]))


def routing_curve(scores: npt.NDArray[np.floating], strong: Array, weak: Array, weight: Array | None = None) -> Curve:
    """The curve of a router over a set of queries, as RouteLLM draws it.

    The thresholds are the edges of `QUANTILE_BINS` quantile bins of the score. A query with a score at or above the
    threshold goes to strong; at the last edge only a query with a score above it does.

    Args:
        scores: (n,) win rates of strong over weak.
        strong: (n,) scores of the strong model's answers.
        weak: (n,) scores of the weak model's answers.
        weight: (n,) weights of the queries in every quantile, share and mean; None: all count alike.
    """
    levels = np.linspace(0, 1, QUANTILE_BINS + 1)
    edges = np.unique(weighted_quantiles(np.asarray(scores, np.float64), levels, weight))
    points = []
    for i, edge in enumerate(edges):
        to_strong = scores > edge if i == len(edges) - 1 else scores >= edge
        share_and_quality = to_strong, np.where(to_strong, strong, weak)
        points.append(tuple(float(weighted_mean(one, weight)) for one in share_and_quality))
    points.sort()
    share, quality = np.array(points).T
    ends = {"weak": float(weighted_mean(weak, weight)), "strong": float(weighted_mean(strong, weight))}
    return Curve(share=share, quality=quality, **ends)


def weighted_mean(values: npt.NDArray[Any], weight: Array | None) -> Any:
    """The mean over the first axis, with weights (n,); None: all count alike."""
    return values.mean(axis=0) if weight is None else np.average(values, axis=0, weights=weight)


def weighted_quantiles(values: Array, levels: Array, weight: Array | None) -> Array:
    """Quantiles (k,) of values (n,), where a value counts as often as its weight says; None: all count alike."""
    if weight is None:
        return np.asarray(np.quantile(values, levels))
    order = np.argsort(values, kind="stable")
    ordered = weight[order]
    middle = np.cumsum(ordered) - ordered / 2
    # The first value is the quantile 0 and the last one the quantile 1, as without weights.
    spread = max(float(middle[-1] - middle[0]), 1e-300)
    return np.asarray(np.interp(levels, (middle - middle[0]) / spread, values[order]))


def log_loss(win_rates: npt.NDArray[np.floating], preferences: Array) -> Array:
    """Cross entropy (nats) of each preference; preferences may be ties or soft labels.

    Args:
        win_rates: (n,) predicted win rates.
        preferences: (n,) preferences in [0, 1].

    Returns:
        (n,) losses.
    """
    clipped = np.clip(np.asarray(win_rates, np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(-(preferences * np.log(clipped) + (1 - preferences) * np.log(1 - clipped)))


def auroc(scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_], weight: Array | None = None) -> float:
    """Area under the ROC curve (Mann and Whitney 1947); ties count one half.

    Args:
        scores: (n,) scores that should be higher for the positive rows.
        positive: (n,) whether each row is positive.
        weight: (n,) weights of the rows; None: all count alike.

    Returns:
        The area in [0, 1]; NaN when all rows are alike.
    """
    from scipy.stats import rankdata

    count = int(positive.sum())
    if count in {0, len(positive)}:
        return float("nan")
    if weight is not None:
        _, place = np.unique(scores, return_inverse=True)
        won, lost = (np.bincount(place, weight * one, place.max() + 1) for one in (positive, ~positive))
        return float(won @ (np.cumsum(lost) - lost / 2) / (won.sum() * lost.sum()))
    return float((rankdata(scores)[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def reliability(
    predicted: npt.NDArray[np.floating], outcome: Array, bins: int = 10, weight: Array | None = None
) -> list[tuple[float, float, int]]:
    """Compare predictions with outcomes in bins of equal counts.

    Args:
        predicted: (n,) predicted probabilities or win rates.
        outcome: (n,) outcomes in [0, 1].
        bins: number of bins.
        weight: (n,) weights of the rows in the means; None: all count alike.

    Returns:
        (mean prediction, mean outcome, count) of each bin, by rising prediction.
    """
    order = np.argsort(predicted, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    if weight is None:
        return [(float(predicted[part].mean()), float(outcome[part].mean()), len(part)) for part in parts]
    means = [[float(weighted_mean(one[part], weight[part])) for one in (predicted, outcome)] for part in parts]
    return [(expected, observed, len(part)) for (expected, observed), part in zip(means, parts, strict=True)]


def expected_calibration_error(
    predicted: npt.NDArray[np.floating], outcome: Array, bins: int = 10, weight: Array | None = None
) -> float:
    """Expected calibration error (ECE) over bins of equal counts (Nixon et al. 2019).

    The error is the mean of |mean outcome - mean prediction| over the bins, weighted by their counts.

    Args:
        predicted: (n,) predicted probabilities or win rates.
        outcome: (n,) outcomes in [0, 1].
        bins: number of bins.
        weight: (n,) weights of the rows; None: all count alike.
    """
    parts = reliability(predicted, outcome, bins, weight)
    counts: list[float] = [count for _, _, count in parts]
    if weight is not None:
        order = np.argsort(predicted, kind="stable")
        counts = [float(weight[part].sum()) for part in np.array_split(order, len(parts))]
    errors = [abs(observed - expected) for expected, observed, _ in parts]
    return float(sum(count * error for count, error in zip(counts, errors, strict=True)) / sum(counts))


def resamples(groups: npt.NDArray[np.int64], samples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Draw bootstrap resamples (Efron 1979); rows of one group, such as one prompt, are drawn together.

    Args:
        groups: (n,) group of each row.
        samples: number of resamples.
        seed: seed of the draws.

    Yields:
        Row numbers, some of them repeated.
    """
    random = np.random.default_rng(seed)
    order = np.argsort(groups, kind="stable")
    _, starts = np.unique(groups[order], return_index=True)
    members = np.split(order, starts[1:])
    single = len(members) == len(groups)
    flat = np.concatenate(members)
    for _ in range(samples):
        drawn = random.integers(0, len(members), len(members))
        yield flat[drawn] if single else np.concatenate([members[i] for i in drawn.tolist()])


def percentile_interval(values: Sequence[float] | Array, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrapped values; NaN values are left out.

    Args:
        values: the statistic on each resample.
        level: confidence of the interval.

    Returns:
        Lower and upper limit; NaN when all values are NaN.
    """
    tail = (1 - level) / 2
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_interval(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    groups: npt.NDArray[np.int64],
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic; whole groups are resampled.

    Args:
        statistic: a function from row numbers to a number.
        groups: (n,) group of each row, as for `resamples`.
        samples: number of resamples.
        level: confidence of the interval.
        seed: seed of the resamples.
    """
    return percentile_interval([statistic(rows) for rows in resamples(groups, samples, seed)], level)
