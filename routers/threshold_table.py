"""The threshold table: the threshold that sends a given share of the queries to strong."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .errors import InputError


def share_threshold(scores: npt.NDArray[np.floating], share: float) -> float:
    """Find the threshold that `share` of the scores (n,) reach; exact to one score, apart from ties."""
    if share <= 0:
        return math.nextafter(1.0, 2.0)
    if share >= 1:
        return 0.0
    return float(np.quantile(np.asarray(scores, np.float64), 1 - share, method="higher"))


def threshold_table(scores: npt.NDArray[np.floating], steps: int = 20) -> list[tuple[float, float]]:
    """Measure the threshold of every strong share on a set of scores.

    Args:
        scores: (n,) scores of validation queries, n >= 1.
        steps: the shares are 0, 1/steps, ..., 1.

    Returns:
        (strong share, threshold) pairs by rising share; thresholds fall or stay.

    Raises:
        InputError: no scores.
    """
    if len(scores) == 0:
        raise InputError("a threshold table needs at least one score")
    shares = np.linspace(0, 1, steps + 1).tolist()
    return [(share, share_threshold(scores, share)) for share in shares]
