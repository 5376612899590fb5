"""The baselines that a router must beat: kNN, k-means and the best single model, from the same training records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ..data.records import PerformanceRecord, Record
from ..routers.base import Router
from ..routers.decision import Floats, Model
from ..routers.query import Query
from ..training.config import SHIPPED_ENCODER
from ..training.encoders.static import StaticEncoder, static_encoder
from ..training.examples import Examples, examples_of
from ..training.fit.metrics import Array

#: The numbers of neighbours that are tried, by leave-one-out on the training queries.
NEIGHBOURS = (5, 10, 20, 40, 80, 160)
#: Mean number of training queries in a cluster.
_QUERIES_PER_CLUSTER = 50
_MOST_CLUSTERS = 200
#: Most training queries that the leave-one-out error is measured on.
_LEAVE_ONE_OUT = 3000


class _Table:
    """For each training query and model the sum and the number of scores, and for each training query its vector.

    A preference counts as a score of its first model, and as 1 minus that score of its second model.
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
        """Unit vectors (n, d): the vectors that static routers see."""
        from ..training.encoders.static_network import unit_sums

        return unit_sums(queries, self.encoder)

    def average(self, total: Floats, count: Floats) -> Floats:
        """Mean scores, where the model's overall mean counts as one more observation."""
        return np.asarray((total + self.mean) / (count + 1), np.float32)


class RankingRouter(Router):
    """A router that predicts, for every query, each model's mean score on all training queries."""

    def __init__(self, table: _Table, pool: Sequence[Model], strong: str, weak: str) -> None:
        super().__init__(pool, strong, weak)
        self._mean = np.asarray(table.mean, np.float32)

    def quality(self, queries: Sequence[Query]) -> Floats:
        """Predicted quality (n, m) of each model."""
        return np.tile(self._mean, (len(queries), 1))


class NeighbourRouter(Router):
    """kNN: a router that predicts each model's mean score on the k most similar training queries (by cosine).

    The number of neighbours is chosen by the leave-one-out squared error on the training queries.
    """

    def __init__(self, table: _Table, pool: Sequence[Model], strong: str, weak: str) -> None:
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
        """Predicted quality (n, m) of each model."""
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
    """K-means: a router that predicts each model's mean score on the training queries of the same cluster."""

    def __init__(self, table: _Table, pool: Sequence[Model], strong: str, weak: str) -> None:
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
        """Predicted quality (n, m) of each model."""
        if not queries:
            return np.zeros((0, len(self.models)), np.float32)
        return self._quality[self._means.predict(self._table.vectors_of(queries))]


def learned_baselines(
    training: Sequence[Record], models: Sequence[str], strong: str, weak: str, encoder: str = SHIPPED_ENCODER
) -> dict[str, Router]:
    """The baselines "ranking", "kNN" and "k-means" over the training records, by name.

    Args:
        training: the records that the routers were trained on.
        models: the names of the pool; models that no record names are left out.
        strong: the strong model.
        weak: the weak model.
        encoder: the encoder that gives the vectors of the queries.

    Returns:
        The baselines; none when strong or weak is not in the records.
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
    """Choose strong (1) or weak (0) for each of n queries: the model with the better mean score on the query's task.

    Args:
        training: records that tell the mean scores.
        tasks: the task of each query; a task that the records do not know goes to strong.
        strong: the strong model.
        weak: the weak model.

    Returns:
        (n,) choices; None when no record names a task.
    """
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in training:
        if isinstance(record, PerformanceRecord) and record.task is not None and record.model in {strong, weak}:
            scores[record.task][record.model].append(record.score)
    if not scores:
        return None

    def choice(task: str | None) -> float:
        by_model = scores.get(task or "", {})
        if not by_model.get(strong) or not by_model.get(weak):
            return 1.0
        return float(np.mean(by_model[strong]) > np.mean(by_model[weak]))

    return np.asarray([choice(task) for task in tasks])
