"""What a window of queries is compared with its reference by, from sums that windows add and subtract."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .limits import count_limit, ks_limit, mean_limit
from .reference import Reference, Spread

SIGNALS = ("score", "novelty", "vector", "unfamiliar")
#: What credit scoring calls a moderate and a large shift of the PSI: a custom, no test.
PSI_LIMITS = (0.1, 0.25)

Sums = npt.NDArray[np.float64]
Limit = Callable[[float, int], float]


class Compared(NamedTuple):
    """One signal: what is seen of n queries, and what chance exceeds with a probability."""

    value: float
    n: int
    limit: Limit


class Comparison:
    """Sums up queries and compares their sums with a reference."""

    def __init__(self, reference: Reference) -> None:
        """Prepare the parts that the reference has."""
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
        """The sums of no queries."""
        return np.zeros(self._length)

    def sums(
        self,
        scores: npt.NDArray[np.float32],
        novelties: npt.NDArray[np.float32],
        vectors: npt.NDArray[np.float32],
    ) -> Sums:
        """Of some queries: (n,), (n',) and (n'', k) finite numbers; vectors of another length count as none."""
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

    def compared(self, total: Sums) -> dict[str, Compared | str]:
        """Each of `SIGNALS` of a window's sums, or why the reference cannot tell."""
        reference = self._reference
        found: dict[str, Compared | str] = {"score": _compared_spread(reference.scores, total[self._score])}
        if reference.novelties is None:
            found["novelty"] = "the reference has no novelties"
        else:
            found["novelty"] = _compared_spread(reference.novelties, total[self._novelty])
        found["vector"] = self._compared_vectors(total)
        found["unfamiliar"] = self._compared_unfamiliar(total)
        return found

    def _compared_vectors(self, total: Sums) -> Compared | str:
        moments = self._reference.vectors
        if moments is None:
            return "the reference has no vectors"
        n, of_reference, dimensions = int(total[self._vectors]), moments.n, len(self._whitening)
        mean = total[self._vector] / max(n, 1)
        distance = float(np.linalg.norm(self._whitening @ (mean - moments.mean)))
        return Compared(distance, n, lambda p, n: mean_limit(p, n, of_reference, dimensions))

    def _compared_unfamiliar(self, total: Sums) -> Compared | str:
        reference = self._reference
        if reference.novelties is None or reference.novelty_bound is None:
            return "the reference has no novelty bound"
        found, of_reference = reference.unfamiliar, reference.novelties.n
        beyond, n = self.unfamiliar(total)
        # Between two counts, so that "beyond the limit" means the count that chance hardly reaches.
        return Compared(beyond / max(n, 1), n, lambda p, n: (count_limit(p, n, found, of_reference) - 0.5) / n)

    def unfamiliar(self, total: Sums) -> tuple[int, int]:
        """Queries of a window beyond the novelty bound, and queries whose novelty is known."""
        return int(total[self._unfamiliar]), int(total[self._novelty].sum())

    def psi(self, total: Sums) -> float:
        """Population stability index of a window's scores; at least one."""
        return psi(self._reference.scores, total[self._score])


def _compared_spread(spread: Spread, counts: Sums) -> Compared:
    n, of_reference = int(counts.sum()), spread.n
    return Compared(ks_distance(spread, counts) if n else 0.0, n, lambda p, n: ks_limit(p, n, of_reference))


def ks_distance(spread: Spread, counts: Sums) -> float:
    """Kolmogorov-Smirnov distance of a window from a reference, at the points that the reference keeps.

    Args:
        spread: of the reference.
        counts: of the window, by `Spread.counts`; not all zero.
    """
    below = counts[:-1].cumsum()
    return float(np.abs(below / counts.sum() - spread.shares).max())


def psi(spread: Spread, counts: Sums) -> float:
    """Population stability index over the tenths of the reference: ``sum((a - e) log(a / e))``.

    Args:
        spread: of the reference.
        counts: of the window, by `Spread.counts`; not all zero. An empty tenth counts as half a query.
    """
    cuts = np.unique(np.searchsorted(spread.shares, np.arange(1, 10) / 10 - 1e-9))
    cuts = cuts[cuts < len(spread.shares) - 1]
    expected = np.diff(np.concatenate([[0.0], spread.shares[cuts], [1.0]]))
    total = counts.sum()
    below = counts.cumsum()[cuts] / total
    actual = np.maximum(np.diff(np.concatenate([[0.0], below, [1.0]])), 0.5 / total)
    return float(((actual - expected) * np.log(actual / expected)).sum())
