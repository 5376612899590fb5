"""RouteLLM's similarity-weighted ranking (arXiv 2406.18665, section 4.2), computed exactly in one graph.

Models are grouped into tiers. For every query, Bradley-Terry is fitted to all battles; the weight of a battle is ``10 *
10^(cosine / largest cosine)``. RouteLLM fits a logistic regression over all battles again for each query, which takes
half a second for 55k battles. Here the weights of all battles between the same two tiers with the same outcome are
added up. This gives a small count matrix, on which a few steps of Newton's method find the same ratings.

Where both models of a battle are in one tier, RouteLLM's design matrix holds one entry instead of two. Such a battle
counts as one against a player of rating zero, and draws the tier's rating towards zero. This is kept here, because
RouteLLM's scores depend on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...routers.base import sigmoid
from ...routers.decision import Floats
from ...routers.errors import ExportError
from ..encoders.static import StaticEncoder
from ..encoders.static_network import PooledNodes
from ..examples import Outcomes
from ..export.graph_builder import GraphBuilder
from ..fit.calibration import Calibration
from ..fit.factorization import Array
from .config import TIERS
from .index import IndexedNetwork, add_calibrated, blocks
from .stored import RankingIndex

#: Steps of Newton's method from equal ratings. It converges quadratically: the last two steps change nothing (tested).
NEWTON_STEPS = 12
#: Largest error of a difference of ratings in the graph, against Newton's method.
TOLERANCE = 1e-4
MOST_STEPS = 80
#: Ridge of the Newton matrix. It matters only for a tier without battles.
_RIDGE = 1e-7
#: The largest cosine of a query counts as at least this.
LEAST_COSINE = 1e-6


def tiers_of(ratings: npt.NDArray[np.float64], count: int = TIERS) -> npt.NDArray[np.int64]:
    """Group models with similar ratings into tiers, so that the sum of the tiers' variances is least.

    Args:
        ratings: float64 (m,).
        count: number of tiers; with fewer models, there is one tier for each model.

    Returns:
        int64 (m,), the tier of each model, 0 the best.
    """
    order = np.argsort(-ratings, kind="stable")
    ranked = ratings[order]
    models, count = len(ranked), min(count, len(ranked))
    spread = np.array([[np.var(ranked[i : j + 1]) if j > i else 0.0 for j in range(models)] for i in range(models)])
    cost, split = spread[0].copy(), np.zeros((count, models), np.int64)
    for tier in range(1, count):
        before = cost
        cost = np.full(models, np.inf)
        cost[0] = 0.0
        for last in range(1, models):
            options = before[:last] + spread[1 : last + 1, last]
            split[tier, last] = int(np.argmin(options))
            cost[last] = options[split[tier, last]]
    tier_of = np.empty(models, np.int64)
    last = models - 1
    for tier in range(count - 1, -1, -1):
        first = int(split[tier, last]) + 1 if tier and last > 0 else 0
        tier_of[order[first : last + 1]] = tier
        last = first - 1
        if last < 0:
            break
    return tier_of - tier_of.min()


def battle_counts(preferences: Outcomes, queries: int, tier: npt.NDArray[np.int64], tiers: int | None = None) -> Floats:
    """Weighted wins on each query: float32 (n, (t + 1)^2), entry [i, j] of each matrix the wins of i over j.

    Player t has the rating zero; battles within a tier count as battles against it (see the module).

    Args:
        preferences: the battles.
        queries: n.
        tier: (m,), the tier of each model.
        tiers: t; None: as many tiers as the models fill.
    """
    size = (int(tier.max()) + 1 if tiers is None else tiers) + 1
    counts = np.zeros((queries, size, size), np.float32)
    a, b = tier[preferences.model[:, 0]], tier[preferences.model[:, 1]]
    first = np.where(a == b, size - 1, a)
    won = preferences.weight * preferences.target
    np.add.at(counts, (preferences.query, first, b), won)
    np.add.at(counts, (preferences.query, b, first), preferences.weight - won)
    return counts.reshape(queries, -1)


def similarity_weights(similarity: Floats) -> Floats:
    """``10 * 10^(cosine / largest cosine)`` of cosines (n, k)."""
    largest = np.maximum(similarity.max(axis=1, keepdims=True), np.float32(LEAST_COSINE))
    return np.asarray(10 * np.exp(np.float32(math.log(10)) * similarity / largest))


def weighted_counts(queries: Floats, index: Floats, counts: Floats, own: npt.NDArray[np.int64] | None = None) -> Floats:
    """Similarity-weighted wins (k, t + 1, t + 1) for unit vectors (k, d) over an index (n, d) with its battles.

    Args:
        queries: (k, d).
        index: (n, d).
        counts: (n, (t + 1)^2).
        own: int64 (k,), the row of the index that is the query itself and is left out; None: leave no row out.
    """
    parts = []
    for rows in blocks(len(queries), len(index)):
        similarity = queries[rows] @ index.T
        if own is None:
            weights = similarity_weights(similarity)
        else:
            place = np.arange(len(similarity)), own[rows]
            similarity[place] = -1.0  # so that it is not the largest cosine
            weights = similarity_weights(similarity)
            weights[place] = 0.0
        parts.append(weights @ counts)
    players = math.isqrt(counts.shape[1])
    return np.concatenate(parts).reshape(-1, players, players)


def tier_ratings(counts: npt.NDArray[np.floating], steps: int = NEWTON_STEPS) -> Floats:
    """Bradley-Terry ratings (n, t + 1) in nats, from weighted wins (n, t + 1, t + 1); the last rating is zero."""
    wide = counts.astype(np.float64)
    wide /= np.maximum(wide.sum(axis=(1, 2), keepdims=True), 1e-12)
    rating = np.zeros(wide.shape[:2])
    for _ in range(steps):
        gradient, curvature = _derivatives(wide, rating)
        rating[:, :-1] += np.linalg.solve(curvature, gradient[:, :-1, None])[:, :, 0]
    return rating.astype(np.float32)


def _derivatives(counts: Array, rating: Array) -> tuple[Array, Array]:
    """Gradient (n, t + 1) and, without the fixed player, negative Hessian (n, t, t) of the log likelihood."""
    games = counts + counts.transpose(0, 2, 1)
    expected = sigmoid(rating[:, :, None] - rating[:, None, :])
    gradient = (counts - games * expected).sum(axis=2)
    information = games * expected * (1 - expected)
    players = counts.shape[1]
    curvature = information.sum(axis=2)[:, :, None] * np.eye(players) - information
    tiers = players - 1
    # Without battles against the fixed player nothing sets the level of the ratings: the level stays at its start.
    floating = (games[:, -1].sum(axis=1) == 0).astype(np.float64).reshape(-1, 1, 1)
    return gradient, curvature[:, :tiers, :tiers] + _RIDGE * np.eye(tiers) + floating / tiers


@dataclass(frozen=True)
class Start:
    """Where the graph's iteration starts, and its fixed inverse Hessian.

    Summed over many battles, the weights of two queries differ little. So the inverse Hessian of the unweighted fit
    serves all queries (the chord method: Ortega and Rheinboldt 1970, section 7.1). ONNX has no linear solver, and this
    method needs none.

    Attributes:
        rating: float32 (t + 1,), ratings of the unweighted fit.
        inverse: float32 (t + 1, t + 1), its inverse Hessian, zero for the fixed player.
    """

    rating: Floats
    inverse: Floats

    @classmethod
    def of(cls, counts: Floats) -> Start:
        """The start for the battles (n, (t + 1)^2) of an index."""
        players = math.isqrt(counts.shape[1])
        total = counts.sum(axis=0, dtype=np.float64).reshape(1, players, players)
        rating = tier_ratings(total)
        inverse = np.zeros((players, players), np.float32)
        curvature = _derivatives(total / max(float(total.sum()), 1e-12), rating.astype(np.float64))[1][0]
        inverse[:-1, :-1] = np.linalg.inv(curvature)
        return cls(rating[0], inverse)

    def ratings(self, counts: npt.NDArray[np.floating], steps: int) -> Floats:
        """Ratings (n, t + 1) as `tier_ratings` computes them, but by the chord method."""
        counts = counts / counts.sum(axis=(1, 2), keepdims=True)
        games = counts + counts.transpose(0, 2, 1)
        rating = np.repeat(self.rating[None, :], len(counts), axis=0)
        for _ in range(steps):
            expected = sigmoid(rating[:, :, None] - rating[:, None, :])
            rating = rating + (counts - games * expected).sum(axis=2) @ self.inverse
        return rating.astype(np.float32)

    def add_ratings(self, graph: GraphBuilder, counts: str, steps: int) -> str:
        """Add the nodes of `ratings` for counts (n, (t + 1)^2); return the name of the result."""
        players = len(self.rating)
        square = graph.constant("square", np.asarray([-1, players, players], np.int64))
        total = graph.node("ReduceSum", counts, graph.axes(1), keepdims=1)
        share = graph.node("Reshape", graph.node("Div", counts, total), square)
        games = graph.node("Add", share, graph.node("Transpose", share, perm=[0, 2, 1]))
        inverse = graph.constant("inverse_hessian", self.inverse)
        rating = graph.constant("rating", self.rating[None, :])
        for _ in range(steps):
            rows, columns = (graph.node("Unsqueeze", rating, graph.axes(axis)) for axis in (2, 1))
            expected = graph.node("Sigmoid", graph.node("Sub", rows, columns))
            surprise = graph.node("Sub", share, graph.node("Mul", games, expected))
            change = graph.node("MatMul", graph.node("ReduceSum", surprise, graph.axes(2), keepdims=0), inverse)
            rating = graph.node("Add", rating, change)
        return rating

    def steps_for(self, counts: Floats) -> int:
        """The number of steps after which the ratings of count matrices (n, t + 1, t + 1) are right.

        Raises:
            ExportError: they do not come within `TOLERANCE` of Newton's method in `MOST_STEPS`.
        """
        exact = tier_ratings(counts)
        for steps in range(2, MOST_STEPS, 2):
            # Differences between tiers alone make scores; their common level is known to fewer digits.
            error = (self.ratings(counts, steps) - exact)[:, :-1]
            if float(np.abs(error - error[:, :1]).max()) < TOLERANCE / 10:
                return min(steps + 4, MOST_STEPS)
        raise ExportError(
            f"the similarity-weighted ranking does not converge in {MOST_STEPS} steps on so few battles; "
            "use the method 'kernel'"
        )


class WeightedRankingNetwork(IndexedNetwork):
    """The exported network: similarities, weights, a count matrix, ratings, and a quality for each model.

    Attributes:
        counts: float32 (n, (t + 1)^2), the battles of the queries in the index, rounded to float16, as they are stored.
        start: where the iteration starts.
    """

    def __init__(
        self, encoder: StaticEncoder, unit: Floats, counts: Floats, index: RankingIndex, calibration: Calibration
    ) -> None:
        """Make a network over an index.

        Args:
            encoder: the token table.
            unit: float32 (n, d), unit vectors of the queries in the index.
            counts: float32 (n, (t + 1)^2), the battles of these queries, as `battle_counts` gives them.
            index: tiers of the m exported models, and steps of the iteration.
            calibration: slope of the ratings; an intercept would cancel.
        """
        super().__init__(encoder, index.epsilon, unit)
        self.counts: Floats = counts.astype(np.float16).astype(np.float32)
        self.start = Start.of(self.counts)
        self.index = index
        self.calibration = calibration

    def own_left_out(self, unit: Floats, rows: npt.NDArray[np.int64]) -> Floats:
        """Quality (k, m) by the ratings alone of some rows of the index, each computed without its own battles."""
        return self._quality(tier_ratings(weighted_counts(unit[rows], unit, self.counts, rows)))

    def quality(self, total: Floats) -> Floats:
        """Quality (n, m) of queries, from the sums of their token vectors (n, d)."""
        players = len(self.start.rating)
        counts = similarity_weights(self.similarities(total)).astype(np.float64) @ self.counts
        return self._quality(self.start.ratings(counts.reshape(-1, players, players), self.index.steps))

    def _quality(self, ratings: Floats) -> Floats:
        """Quality (k, m) from ratings (k, t + 1)."""
        utilities = self.calibration.slope * ratings[:, self.index.tiers]
        return sigmoid(utilities - utilities.mean(axis=1, keepdims=True)).astype(np.float32)

    def add_quality(self, graph: GraphBuilder, pooled: PooledNodes, output: str) -> int:
        """Add the nodes that compute the quality, under that name; return the number of models."""
        similarity = self.add_similarities(graph, pooled)
        largest = graph.node("ReduceMax", similarity, graph.axes(1), keepdims=1)
        bounded = graph.node("Max", largest, graph.scalar("least_cosine", LEAST_COSINE))
        grown = graph.node("Mul", similarity, graph.scalar("log_10", math.log(10)))
        # The factor 10 of the weights cancels where the counts are brought to a sum of 1.
        weight = graph.node("Exp", graph.node("Div", grown, bounded))
        if self.finds_nearest:
            with self.add_nearest(graph, weight) as log:
                graph.node("Mul", graph.node("Div", log, "log_10"), bounded, output="nearest_similarity_found")
        counts = graph.node("MatMul", weight, graph.constant("counts", self.counts, half=True))
        ratings = self.start.add_ratings(graph, counts, self.index.steps)
        tier = graph.constant("tier", np.asarray(self.index.tiers, np.int64))
        add_calibrated(graph, graph.node("Gather", ratings, tier, axis=1), self.calibration, True, output)
        return len(self.index.tiers)
