"""Novelty: how much a query differs from the training queries, as its distance to the nearest of some centroids."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

#: Share of familiar queries that the bound calls unfamiliar by mistake.
FALSE_ALARMS = 0.005
_MAX_CENTROIDS = 32
#: A bound is at most this: a query at right angles to all training queries, as one without a known token is, is never
#: familiar.
_LARGEST = 0.99
_QUERIES_PER_CENTROID = 20


def centroids_of(vectors: Vectors, seed: int) -> Vectors:
    """Unit centroids (k, d) of unit vectors (n, d), by k-means; k grows with n, up to 32."""
    from sklearn.cluster import MiniBatchKMeans

    count = int(np.clip(len(vectors) // _QUERIES_PER_CENTROID, 1, _MAX_CENTROIDS))
    means = MiniBatchKMeans(count, random_state=seed, n_init="auto", batch_size=4096).fit(vectors).cluster_centers_
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.maximum(lengths, 1e-12), np.float32)


def novelty(vectors: Vectors, centroids: Vectors) -> Vectors:
    """The novelty of vectors (n, d), 1 - cosine to the nearest centroid: (n,) in [0, 2]; 1 without a known token."""
    return np.asarray(1 - (vectors @ centroids.T).max(axis=1), np.float32)


def held_out_novelty(vectors: Vectors, fold: npt.NDArray[np.bool_], seed: int) -> Vectors:
    """The novelty of held-out queries.

    Args:
        vectors: (n, d) unit vectors of the training queries.
        fold: bool (n,), the held-out queries; the centroids come from the others.
        seed: of the clustering.

    Returns:
        float32 (n',), in the order of the held-out queries.
    """
    return novelty(vectors[fold], centroids_of(vectors[~fold], seed))


def novelty_bound(held_out: Vectors) -> float:
    """The novelty that a share of `FALSE_ALARMS` of new familiar queries exceeds, from held-out novelties (n',).

    It is a quantile of these. Of fewer than 1 / `FALSE_ALARMS` queries the largest is too small a bound: with 20
    labelled queries it called every fifth familiar query unfamiliar. The bound is then that of a normal prediction
    interval (Student's t) where that is larger.
    """
    from scipy.stats import t

    count, quantile = len(held_out), float(np.quantile(held_out, 1 - FALSE_ALARMS, method="higher"))
    if count * FALSE_ALARMS >= 1:
        return quantile
    if count < 2:
        return _LARGEST
    spread = float(held_out.std(ddof=1, dtype=np.float64)) * np.sqrt(1 + 1 / count)
    return min(_LARGEST, max(quantile, float(held_out.mean() + t.ppf(1 - FALSE_ALARMS, count - 1) * spread)))
