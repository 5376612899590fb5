"""The reference of a bundle: how the router sees queries like those to come; and the vector that it sketches.

Scores must be those of the exported router: the folds' fits, from which calibration and thresholds come, stop
elsewhere on the path (measured on 886 new arena prompts: KS distance 0.15, and 0.035 from what the exported matrix
factorization says of its own training queries; on MMLU 0.02 to 0.04). A similarity router knows its training queries
too well: it is asked with each of them left out. A transformer has a fold that it was not fitted to.

The encoder's vector is brought to a few numbers by principal components of unit variance (PCA whitening), inside the
graph: drift of what is asked shows in their mean, at the price of one small product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...monitoring.reference import LEAST_REFERENCE, Moments, Reference
from ...routers.base import win_rate
from ...routers.bundle import Manifest
from ...routers.decision import Floats
from ...routers.query import Query
from ...routers.session import Session

#: Components of the sketch, and the queries that each needs.
COMPONENTS = 16
QUERIES_PER_COMPONENT = 10
#: Queries that the graph is asked about: more would tell little more of a window of hundreds.
MOST_QUERIES = 4000

#: Weight (d, k) and offset (k,), float32: the sketch of vectors v (n, d) is ``v @ weight + offset``.
Projection = tuple[torch.Tensor, torch.Tensor]


def projection_of(vectors: torch.Tensor) -> Projection:
    """The first principal components of vectors (n, d), each scaled to unit variance; an even number of them."""
    values = vectors.double()
    n, d = values.shape
    count = max(2, min(COMPONENTS, d, n // QUERIES_PER_COMPONENT) // 2 * 2)
    mean = values.mean(dim=0)
    centred = values - mean
    variance, directions = torch.linalg.eigh(centred.T @ centred / max(1, n - 1))
    variance, directions = variance.flip(0)[:count], directions.flip(1)[:, :count]
    # An eigenvector has no sign of its own: its largest entry is made positive.
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    scale = torch.where(variance > 1e-9 * variance[0].clamp_min(1e-30), variance.clamp_min(1e-30).rsqrt(), 0.0)
    weight = directions * largest.sign() * scale
    return weight.float(), (-mean @ weight).float()


@dataclass(frozen=True)
class ReferenceSample:
    """What is known of queries as they will come, all of the router's own source.

    Attributes:
        queries: that the encoder was not fitted to; the exported graph is asked for their vectors.
        scores: (n,), as if each query were new; None: what the graph says of the queries.
        novelties: (n',), from centroids of other queries.
        novelty_bound: a query beyond it is unfamiliar.
    """

    queries: Sequence[Query]
    scores: Floats | None
    novelties: Floats
    novelty_bound: float | None

    def reference(self, session: Session, manifest: Manifest) -> dict[str, Any] | None:
        """The reference for the manifest; None: too few queries."""
        texts = [manifest.truncation.read(query).text for query in self.queries]
        outputs = session.run(texts)[0]
        strong, weak = manifest.columns
        scores = self.scores
        if scores is None:
            scores = win_rate(outputs["quality"][:, strong], outputs["quality"][:, weak], manifest.link)
        if len(scores) < LEAST_REFERENCE:
            return None
        return Reference.from_samples(scores, self.novelties, outputs["vector"], self.novelty_bound).as_dict()


def some_queries(queries: Sequence[Query], rows: npt.NDArray[np.bool_], seed: int) -> list[Query]:
    """Those that bool (n,) marks, at most `MOST_QUERIES`, drawn by a seed."""
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(rows))[:MOST_QUERIES]
    return [queries[row] for row in np.sort(drawn)]


def blended(before: Moments, after: Moments, share: float) -> Moments:
    """Moments of a mixture of two kinds of queries, of which `share` are of the second."""
    difference = after.mean - before.mean
    return Moments(
        before.n + after.n,
        before.mean + share * difference,
        (1 - share) * before.covariance
        + share * after.covariance
        + share * (1 - share) * np.outer(difference, difference),
    )
