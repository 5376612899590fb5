"""The drift reference of a bundle: scores, novelties and vectors of queries like those to come.

The scores must come from the exported router. Calibration and thresholds come from fits without a fold, whose scores
differ: measured on 886 new arena prompts, their KS distance from the scores of new prompts is 0.15, and that of the
exported matrix factorization on its own training queries is 0.035 (on MMLU 0.02 to 0.04). A similarity router knows its
training queries too well, so that each is scored without itself. A transformer has a fold that it was not fitted to.

The graph reduces the encoder's vector to a few principal components of unit variance (PCA whitening), which costs one
small product. A change of what users ask shows in their means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...monitoring.reference import LEAST_REFERENCE, Moments, Reference
from ...routers.decision import Floats
from ...routers.learned import LearnedRouter
from ...routers.query import Query

#: Most components of the sketch, and the queries that each component needs.
COMPONENTS = 16
QUERIES_PER_COMPONENT = 10
#: Most queries that the graph scores for the reference. More would add little, since a window holds some hundreds.
MOST_QUERIES = 4000
#: Vectors that are read in float64 at once.
_VECTORS_AT_ONCE = 65_536

#: Weight (d, k) and offset (k,), float32: the sketch of vectors v (n, d) is ``v @ weight + offset``.
Projection = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def projection_of(vectors: npt.NDArray[np.floating]) -> Projection:
    """The projection onto the first principal components of vectors (n, d), each scaled to unit variance.

    The number of components is even.
    """
    n, d = vectors.shape
    count = max(2, min(COMPONENTS, d, n // QUERIES_PER_COMPONENT) // 2 * 2)
    blocks = [slice(start, start + _VECTORS_AT_ONCE) for start in range(0, n, _VECTORS_AT_ONCE)]
    mean = sum(vectors[rows].astype(np.float64).sum(axis=0) for rows in blocks) / n
    squares = np.zeros((d, d))
    for rows in blocks:
        centred = vectors[rows].astype(np.float64) - mean
        squares += centred.T @ centred
    variance, directions = np.linalg.eigh(squares / max(1, n - 1))
    variance, directions = variance[::-1][:count], directions[:, ::-1][:, :count]
    # The sign of an eigenvector is arbitrary: make its largest entry positive.
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0, keepdims=True), axis=0)
    known = variance > 1e-9 * max(float(variance[0]), 1e-30)
    scale = np.where(known, 1 / np.sqrt(np.maximum(variance, 1e-30)), 0.0)
    weight = directions * np.sign(largest) * scale
    return weight.astype(np.float32), (-mean @ weight).astype(np.float32)


@dataclass(frozen=True)
class ReferenceSample:
    """Queries of the primary source, as a router sees queries that it was not fitted to.

    Attributes:
        queries: n queries that the encoder was not fitted to; the exported graph gives their vectors.
        scores: float32 (n',), scores as if each query were new; None: the exported graph scores the queries.
        novelties: float32 (n'',), distances from centroids of other queries.
        novelty_bound: a query with a larger novelty is unfamiliar.
    """

    queries: Sequence[Query]
    scores: Floats | None
    novelties: Floats
    novelty_bound: float | None

    def reference(self, router: LearnedRouter) -> dict[str, Any] | None:
        """The drift reference for the manifest; None: there are too few queries."""
        assessment = router.assess(self.queries)
        scores = router.scores_of(assessment) if self.scores is None else self.scores
        if len(scores) < LEAST_REFERENCE:
            return None
        return Reference.from_samples(scores, self.novelties, assessment.vectors, self.novelty_bound).as_dict()


def some_queries(queries: Sequence[Query], rows: npt.NDArray[np.bool_], seed: int) -> list[Query]:
    """The queries that bool (n,) marks; of more than `MOST_QUERIES` a random sample."""
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(rows))[:MOST_QUERIES]
    return [queries[row] for row in np.sort(drawn)]


def blended(before: Moments, after: Moments, share: float) -> Moments:
    """Moments of a mixture of two kinds of queries, where `share` of them are of the second kind."""
    difference = after.mean - before.mean
    return Moments(
        before.n + after.n,
        before.mean + share * difference,
        (1 - share) * before.covariance
        + share * after.covariance
        + share * (1 - share) * np.outer(difference, difference),
    )
