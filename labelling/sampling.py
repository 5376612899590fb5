"""Samples of unequal probability: systematic sampling with probabilities proportional to a size.

The rows stand in a row, each as long as its probability, and points one apart, from a random start, choose the rows
that they fall on (Madow 1949). Each row is then chosen with exactly its probability, the number of rows is fixed, and
rows that stand together are spread over: a sort is a stratification. With weights of 1 / probability every mean
over the chosen rows estimates the mean over all rows without bias (Horvitz and Thompson 1952; divided by the sum of the
weights: Hajek 1971).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..routers.errors import InputError

Array = npt.NDArray[np.float64]


def inclusion_probabilities(size: npt.ArrayLike, count: int) -> Array:
    """Probabilities proportional to the sizes, each at most 1, that sum to a count.

    Args:
        size: (n,) sizes above 0.
        count: from 0 to n.

    Returns:
        (n,) probabilities.

    Raises:
        InputError: a size is not above 0, or there are fewer rows than the count.
    """
    sizes = np.asarray(size, np.float64)
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise InputError("a size is not above 0; expected sizes above 0, so that every prompt may be chosen")
    if not 0 <= count <= len(sizes):
        raise InputError(f"{count} of {len(sizes)} rows cannot be chosen; expected a number from 0 to {len(sizes)}")
    probability = np.ones(len(sizes))
    open_rows = np.ones(len(sizes), np.bool_)
    while open_rows.any():
        # What is surely chosen leaves less for the others, which may then pass 1 in turn.
        left = count - int((~open_rows).sum())
        probability[open_rows] = left * sizes[open_rows] / sizes[open_rows].sum()
        sure = open_rows & (probability >= 1)
        if not sure.any():
            break
        probability[sure], open_rows = 1.0, open_rows & ~sure
    return probability


def systematic_sample(
    probability: Array, order: npt.NDArray[np.int64], random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Choose rows, each with its probability, spread over an order.

    Args:
        probability: (n,) probabilities whose sum is a whole number k.
        order: int64 (n,), the rows as they stand.
        random: gives the start.

    Returns:
        int64 (k,), the chosen rows, rising.
    """
    # Rounding could count a row of probability 1 twice, or not at all: these rows need no draw.
    sure = probability[order] >= 1
    drawn = order[~sure]
    ends = np.cumsum(probability[drawn])
    points = random.random() + np.arange(round(float(ends[-1])) if len(ends) else 0)
    places = np.minimum(np.searchsorted(ends, points, side="right"), len(drawn) - 1)
    return np.sort(np.concatenate([order[sure], drawn[places]]))
