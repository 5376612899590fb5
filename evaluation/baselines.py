"""What a router must beat: neighbours, clusters and the best single model, all from the same training records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ..data.records import PerformanceRecord, Record
from ..routers.base import Floats, Model, Router
from ..routers.bundle import Truncation
from ..routers.query import Query
from ..training.encoders.static import PACKAGED_ENCODER, StaticEncoder, static_encoder
from ..training.examples import Examples, examples_of
from ..training.fit.metrics import Array

#: Tried by leave-one-out on the training queries.
NEIGHBOURS = (5, 10, 20, 40, 80, 160)
#: Queries a cluster, about.
_QUERIES_PER_CLUSTER = 50
_MOST_CLUSTERS = 200
_LEAVE_ONE_OUT = 3000


class _Table:
    """Sums of scores and counts of each model on each training query, and the queries' vectors.

    A preference counts as a score of 1, 1/2 or 0 of both its models.
    """

    def __init__(self, examples: Examples, encoder: StaticEncoder) -> None:
        shape = (len(examples.queries), len(examples.models))
        self.total, self.count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for part in (examples.performances, examples.preferences):
            for column in range(part.model.shape[1]):
                place = (part.query, part.model[:, column])
                np.add.at(self.total, place, part.weight * (part.target if column == 0 else 1 - part.target))
                np.add.at(self.count, place, part.weight)
        self.mean = (self.total.sum(axis=0) + 0.5) / (self.count.sum(axis=0) + 1)
        self.encoder = encoder
        self.vectors = self.vectors_of(examples.queries)

    def vectors_of(self, queries: Sequence[Query]) -> Floats:
        """Unit vectors (n, d), the same as static routers see."""
        from ..training.encoders.static_network import token_sums

        total = token_sums(queries, self.encoder, Truncation(distinct=True)).numpy()
        return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9), np.float32)

    def average(self, total: Floats, count: Floats) -> Floats:
        """Mean scores; the model's overall mean counts as one more observation, and stands alone where none is."""
        return np.asarray((total + self.mean) / (count + 1), np.float32)


class RankingRouter(Router):
    """Every model does as it did, on average, on all training queries: which model is best, whatever the query."""

    def __init__(self, table: _Table, pool: Sequence[Model], strong: str, weak: str) -> None:
        """Take the means."""
        super().__init__(pool, strong, weak)
        self._mean = np.asarray(table.mean, np.float32)

    def quality(self, queries: Sequence[Query]) -> Floats:
        """See `Router.quality`."""
        return np.tile(self._mean, (len(queries), 1))


class NeighbourRouter(Router):
    """kNN: every model does as it did, on average, on the k most similar training queries (cosine)."""

    def __init__(self, table: _Table, pool: Sequence[Model], strong: str, weak: str) -> None:
        """Choose k by leave-one-out squared error on the training queries."""
        super().__init__(pool, strong, weak)
        self._table = table
        rows = np.random.default_rng(0).permutation(len(table.vectors))[:_LEAVE_ONE_OUT]
        nearest = self._nearest(table.vectors[rows], min(max(NEIGHBOURS) + 1, len(table.vectors)))[:, 1:]
        known = table.count[rows] > 0
        actual = table.total[rows] / np.maximum(table.count[rows], 1e-9)

        def error(k: int) -> float:
            return float(np.square(self._mean(nearest[:, :k]) - actual)[known].mean())

        self.k = min((k for k in NEIGHBOURS if k < len(table.vectors)), key=error, default=1)

    def quality(self, queries: Sequence[Query]) -> Floats:
        """See `Router.quality`."""
        if not queries:
            return np.zeros((0, len(self.models)), np.float32)
        return self._mean(self._nearest(self._table.vectors_of(queries), self.k))

    def _nearest(self, vectors: Floats, k: int) -> np.ndarray:
        parts = []
        for chunk in np.array_split(vectors, max(1, len(vectors) // 1000)):
            similarity = chunk @ self._table.vectors.T
            near = np.argpartition(-similarity, min(k, similarity.shape[1] - 1), axis=1)[:, :k]
            order = np.argsort(-np.take_along_axis(similarity, near, axis=1), axis=1, kind="stable")
            parts.append(np.take_along_axis(near, order, axis=1))
        return np.concatenate(parts)

    def _mean(self, nearest: np.ndarray) -> Floats:
        table = self._table
        parts = [
            table.average(table.total[rows].sum(axis=1), table.count[rows].sum(axis=1))
            for rows in np.array_split(nearest, max(1, len(nearest) // 1000))
        ]
        return np.concatenate(parts)


class ClusterRouter(Router):
    """K-means: every model does as it did, on average, on the training queries of the same cluster."""

    def __init__(self, table: _Table, pool: Sequence[Model], strong: str, weak: str) -> None:
        """Cluster the training queries."""
        from sklearn.cluster import KMeans

        super().__init__(pool, strong, weak)
        self._table = table
        clusters = int(np.clip(len(table.vectors) // _QUERIES_PER_CLUSTER, 1, _MOST_CLUSTERS))
        self._means = KMeans(clusters, random_state=0, n_init="auto").fit(table.vectors)
        totals = np.zeros((clusters, len(self.models)), np.float32)
        counts = np.zeros_like(totals)
        cluster = self._means.predict(table.vectors)
        np.add.at(totals, cluster, table.total)
        np.add.at(counts, cluster, table.count)
        self._quality = table.average(totals, counts)

    def quality(self, queries: Sequence[Query]) -> Floats:
        """See `Router.quality`."""
        if not queries:
            return np.zeros((0, len(self.models)), np.float32)
        return self._quality[self._means.predict(self._table.vectors_of(queries))]


def learned_baselines(
    training: Sequence[Record], models: Sequence[str], strong: str, weak: str, encoder: str = PACKAGED_ENCODER
) -> dict[str, Router]:
    """Ranking, kNN and k-means over the training records, by name.

    Args:
        training: records that the routers were trained on, too.
        models: the pool.
        strong: the strong model.
        weak: the weak model.
        encoder: whose vectors they see.
    """
    known = {name for record in training for name in record.models}
    pool = [name for name in models if name in known]
    if len(pool) < 2 or strong not in pool or weak not in pool:
        return {}
    table = _Table(examples_of(training, pool), static_encoder(encoder))
    candidates = [Model(name) for name in pool]
    return {
        "ranking": RankingRouter(table, candidates, strong, weak),
        "kNN": NeighbourRouter(table, candidates, strong, weak),
        "k-means": ClusterRouter(table, candidates, strong, weak),
    }


def best_by_task(training: Sequence[Record], tasks: Sequence[str | None], strong: str, weak: str) -> Array | None:
    """Strong (1) or weak (0) for each of n queries: whichever was better on the training records of its task.

    A task that the training records do not know goes to strong. None when they know no task at all.
    """
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in training:
        if isinstance(record, PerformanceRecord) and record.task is not None and record.model in {strong, weak}:
            scores[record.task][record.model].append(record.score)
    if not scores:
        return None

    def choice(task: str | None) -> float:
        found = scores.get(task or "", {})
        if not found.get(strong) or not found.get(weak):
            return 1.0
        return float(np.mean(found[strong]) > np.mean(found[weak]))

    return np.asarray([choice(task) for task in tasks])
