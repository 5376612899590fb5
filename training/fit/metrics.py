"""Routing metrics as RouteLLM defines them (arXiv 2406.18665, section 3), and their confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: What APGR is, for the first place where a page or a table states it.
APGR_IN_WORDS = "average performance gap recovered (APGR): 0.5 is random, 1 is perfect"

#: RouteLLM's evaluation takes thresholds at these quantiles of the score.
QUANTILE_BINS = 10


@dataclass(frozen=True)
class Curve:
    """Quality against strong share.

    Attributes:
        share: (k,) rising, share of queries sent to strong, from 0 to 1.
        quality: (k,) mean score of the chosen answers.
        weak: mean score of weak alone.
        strong: mean score of strong alone.
    """

    share: Array
    quality: Array
    weak: float
    strong: float

    @property
    def pgr(self) -> Array:
        """Performance gap recovered at each share; NaN when strong and weak are equally good."""
        gap = self.strong - self.weak
        return (self.quality - self.weak) / gap if gap else np.full(len(self.quality), np.nan)

    @property
    def apgr(self) -> float:
        """Average PGR: the area under PGR over the strong share (trapezoid)."""
        return float(np.trapezoid(self.pgr, self.share))

    def cpt(self, target: float) -> float:
        """Call-performance threshold: the smallest share whose (interpolated) PGR reaches the target."""
        pgr, share = self.pgr, self.share
        for i in range(len(pgr)):
            if pgr[i] >= target:
                if i == 0 or pgr[i] == pgr[i - 1]:
                    return float(share[i])
                step = (target - pgr[i - 1]) / (pgr[i] - pgr[i - 1])
                return float(share[i - 1] + step * (share[i] - share[i - 1]))
        return 1.0

    def share_for(self, quality: float) -> float:
        """The smallest share whose (interpolated) mean score reaches a quality; 1 where none does."""
        reached = np.flatnonzero(self.quality >= quality)
        if not len(reached):
            return 1.0
        i = int(reached[0])
        if i == 0 or self.quality[i] == self.quality[i - 1]:
            return float(self.share[i])
        step = (quality - self.quality[i - 1]) / (self.quality[i] - self.quality[i - 1])
        return float(self.share[i - 1] + step * (self.share[i] - self.share[i - 1]))


def routing_curve(scores: npt.NDArray[np.floating], strong: Array, weak: Array) -> Curve:
    """The cost-quality curve of a router over a set of queries, as RouteLLM draws it.

    Thresholds are the edges of `QUANTILE_BINS` quantile bins of the score;
    at or above goes to strong, at the last edge above only.

    Args:
        scores: (n,) win rate of strong over weak.
        strong: (n,) score of the strong model's answers.
        weak: (n,) score of the weak model's answers.
    """
    edges = np.unique(np.quantile(np.asarray(scores, np.float64), np.linspace(0, 1, QUANTILE_BINS + 1)))
    points = []
    for i, edge in enumerate(edges):
        to_strong = scores > edge if i == len(edges) - 1 else scores >= edge
        points.append((float(to_strong.mean()), float(np.where(to_strong, strong, weak).mean())))
    points.sort()
    share, quality = np.array(points).T
    return Curve(share, quality, float(weak.mean()), float(strong.mean()))


def log_loss(win_rates: npt.NDArray[np.floating], preferences: Array) -> Array:
    """Cross entropy (nats) of each preference, soft labels and ties included: (n,)."""
    clipped = np.clip(np.asarray(win_rates, np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(-(preferences * np.log(clipped) + (1 - preferences) * np.log(1 - clipped)))


def auroc(scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve of "strong is needed" (Mann and Whitney 1947), ties one half; NaN with one class."""
    from scipy.stats import rankdata

    count = int(positive.sum())
    if count in {0, len(positive)}:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def reliability(predicted: npt.NDArray[np.floating], outcome: Array, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean prediction, mean outcome, count) of equal-count bins, by rising prediction."""
    order = np.argsort(predicted, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return [(float(predicted[part].mean()), float(outcome[part].mean()), len(part)) for part in parts]


def expected_calibration_error(predicted: npt.NDArray[np.floating], outcome: Array, bins: int = 10) -> float:
    """ECE over equal-count bins (Nixon et al. 2019): mean |outcome - prediction|, weighted by bin size."""
    parts = reliability(predicted, outcome, bins)
    return sum(count * abs(seen - said) for said, seen, count in parts) / len(predicted)


def resamples(groups: npt.NDArray[np.int64], samples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Bootstrap resamples of row numbers (Efron 1979); rows of one group (one prompt) are drawn together."""
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
    """The percentile interval of bootstrapped values."""
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
    """Percentile bootstrap interval of a statistic, resampling groups.

    Args:
        statistic: row numbers to a number.
        groups: (n,) group of each row; see `resamples`.
        samples: resamples.
        level: of confidence.
        seed: of the resampling.
    """
    return percentile_interval([statistic(rows) for rows in resamples(groups, samples, seed)], level)
