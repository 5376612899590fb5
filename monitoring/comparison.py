"""Statistics that compare a window with the reference.

They are kept as sums, so that a sliding window can add and subtract blocks.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from .alarms import Measurement, Unmeasured
from .limits import count_limit, ks_limit, mean_limit
from .reference import Reference, Spread

SIGNALS = ("score", "novelty", "vector", "unfamiliar")
#: In credit scoring, a PSI from the first number on is called moderate, above the second large. This is not a test.
PSI_LIMITS = (0.1, 0.25)

Sums = npt.NDArray[np.float64]


class Comparison:
    """Sums up queries and compares the sums of a window with a reference."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        novelties, vectors = reference.novelties, reference.vectors
        self._whitening = np.empty((0, 0)) if vectors is None else vectors.whitening()
        sizes = [
            len(reference.scores.values) + 1,
            0 if novelties is None else len(novelties.values) + 1,
            0 if vectors is None else len(vectors.mean),
        ]
        first, second, third = np.cumsum(sizes).tolist()
        self._score, self._novelty = slice(0, first), slice(first, second)
        self._vector, self._vectors, self._unfamiliar = slice(second, third), third, third + 1
        self._length = third + 2

    def nothing(self) -> Sums:
        """The sums of an empty window: zeros."""
        return np.zeros(self._length)

    def sums(
        self,
        scores: npt.NDArray[np.float32],
        novelties: npt.NDArray[np.float32],
        vectors: npt.NDArray[np.float32],
    ) -> Sums:
        """The sums of some queries.

        Args:
            scores: (n,) finite numbers.
            novelties: (n',) finite numbers.
            vectors: (n'', k) finite numbers; left out when k is not the length of the reference's vectors.
        """
        reference, total = self._reference, self.nothing()
        total[self._score] = reference.scores.counts(scores)
        if reference.novelties is not None:
            total[self._novelty] = reference.novelties.counts(novelties)
            if reference.novelty_bound is not None:
                total[self._unfamiliar] = (novelties > reference.novelty_bound).sum()
        if reference.vectors is not None and vectors.shape[1] == len(reference.vectors.mean):
            total[self._vector] = vectors.sum(axis=0, dtype=np.float64)
            total[self._vectors] = len(vectors)
        return total

    def measurements(self, total: Sums) -> dict[str, Measurement | Unmeasured]:
        """Measure each of `SIGNALS` from the sums of a window."""
        reference = self._reference
        return {
            "score": _measured_spread(reference.scores, total[self._score]),
            "novelty": Unmeasured("the reference has no novelties")
            if reference.novelties is None
            else _measured_spread(reference.novelties, total[self._novelty]),
            "vector": self._measured_vectors(total),
            "unfamiliar": self._measured_unfamiliar(total),
        }

    def _measured_vectors(self, total: Sums) -> Measurement | Unmeasured:
        moments = self._reference.vectors
        if moments is None:
            return Unmeasured("the reference has no vectors")
        n, dimensions = int(total[self._vectors]), len(self._whitening)
        mean = total[self._vector] / max(n, 1)
        distance = float(np.linalg.norm(self._whitening @ (mean - moments.mean)))
        return Measurement(distance, n, partial(mean_limit, n=n, n_reference=moments.n, dimensions=dimensions))

    def _measured_unfamiliar(self, total: Sums) -> Measurement | Unmeasured:
        reference = self._reference
        if reference.novelties is None or reference.novelty_bound is None:
            return Unmeasured("the reference has no novelty bound")
        unfamiliar, n_reference = reference.unfamiliar, reference.novelties.n
        beyond, n = self.unfamiliar(total)

        def limit(probability: float) -> float:
            # The limit lies between two counts, so that "above the limit" means the count that chance hardly reaches.
            return (count_limit(probability, n, unfamiliar, n_reference) - 0.5) / n

        return Measurement(beyond / max(n, 1), n, limit)

    def unfamiliar(self, total: Sums) -> tuple[int, int]:
        """The number of queries beyond the novelty bound, and the number of queries whose novelty is known."""
        return int(total[self._unfamiliar]), int(total[self._novelty].sum())

    def psi(self, total: Sums) -> float:
        """Population stability index of the scores of a window that is not empty."""
        return psi(self._reference.scores, total[self._score])


def _measured_spread(spread: Spread, counts: Sums) -> Measurement:
    n = int(counts.sum())
    return Measurement(ks_distance(spread, counts) if n else 0.0, n, partial(ks_limit, n=n, n_reference=spread.n))


def ks_distance(spread: Spread, counts: Sums) -> float:
    """Kolmogorov-Smirnov distance between a window and a reference, at the points that the reference keeps.

    Args:
        spread: the distribution of the reference.
        counts: the counts of the window, from `Spread.counts`; not all zero.
    """
    below = counts[:-1].cumsum()
    return float(np.abs(below / counts.sum() - spread.shares).max())


def psi(spread: Spread, counts: Sums) -> float:
    """Population stability index over the tenths of the reference: ``sum((a - e) log(a / e))``.

    Here a is the share of the window in a tenth, and e is the share of the reference.

    Args:
        spread: the distribution of the reference.
        counts: the counts of the window, from `Spread.counts`; not all zero. An empty tenth counts as half a query.
    """
    cuts = np.unique(np.searchsorted(spread.shares, np.arange(1, 10) / 10 - 1e-9))
    cuts = cuts[cuts < len(spread.shares) - 1]
    expected = np.diff(np.concatenate([[0.0], spread.shares[cuts], [1.0]]))
    total = counts.sum()
    below = counts.cumsum()[cuts] / total
    actual = np.maximum(np.diff(np.concatenate([[0.0], below, [1.0]])), 0.5 / total)
    return float(((actual - expected) * np.log(actual / expected)).sum())
