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
import torch

from ...routers.errors import ExportError
from ..encoders.static import StaticEncoder
from ..encoders.static_network import Outputs
from ..examples import Outcomes
from ..fit.calibration import Calibration
from .config import TIERS
from .index import IndexedNetwork, index_sums
from .stored import RankingIndex

#: Steps of Newton's method from equal ratings. It converges quadratically: the last two steps change nothing (tested).
NEWTON_STEPS = 12
#: Largest error of a difference of ratings in the graph, against Newton's method.
TOLERANCE = 1e-4
MOST_STEPS = 80
#: Ridge of the Newton matrix. It matters only for a tier without battles.
_RIDGE = 1e-7
_ROWS = 256


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


def battle_counts(
    preferences: Outcomes, queries: int, tier: npt.NDArray[np.int64], tiers: int | None = None
) -> torch.Tensor:
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
    return torch.from_numpy(counts.reshape(queries, -1))


def similarity_weights(similarity: torch.Tensor) -> torch.Tensor:
    """``10 * 10^(cosine / largest cosine)`` of cosines (n, k)."""
    largest = similarity.amax(dim=1, keepdim=True).clamp_min(1e-6)
    return 10 * torch.exp(math.log(10) * similarity / largest)


def weighted_counts(
    queries: torch.Tensor, index: torch.Tensor, counts: torch.Tensor, own: npt.NDArray[np.int64] | None = None
) -> torch.Tensor:
    """Similarity-weighted wins (k, t + 1, t + 1) for unit vectors (k, d) over an index (n, d) with its battles.

    Args:
        queries: (k, d).
        index: (n, d).
        counts: (n, (t + 1)^2).
        own: int64 (k,), the row of the index that is the query itself and is left out; None: leave no row out.
    """
    parts = []
    for start in range(0, len(queries), _ROWS):
        similarity = queries[start : start + _ROWS] @ index.T
        if own is None:
            weights = similarity_weights(similarity)
        else:
            place = torch.arange(len(similarity)), torch.from_numpy(own[start : start + _ROWS])
            similarity[place] = -1.0  # so that it is not the largest cosine
            weights = similarity_weights(similarity)
            weights[place] = 0.0
        parts.append(weights @ counts)
    players = math.isqrt(counts.shape[1])
    return torch.cat(parts).reshape(-1, players, players)


def tier_ratings(counts: torch.Tensor, steps: int = NEWTON_STEPS) -> torch.Tensor:
    """Bradley-Terry ratings (n, t + 1) in nats, from weighted wins (n, t + 1, t + 1); the last rating is zero."""
    counts = (counts / counts.sum(dim=(1, 2), keepdim=True).clamp_min(1e-12)).double()
    rating = torch.zeros_like(counts[:, :, 0])
    for _ in range(steps):
        gradient, curvature = _derivatives(counts, rating)
        rating = rating.clone()
        rating[:, :-1] += torch.linalg.solve(curvature, gradient[:, :-1])
    return rating.float()


def _derivatives(counts: torch.Tensor, rating: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient (n, t + 1) and, without the fixed player, negative Hessian (n, t, t) of the log likelihood."""
    games = counts + counts.transpose(1, 2)
    expected = torch.sigmoid(rating.unsqueeze(2) - rating.unsqueeze(1))
    gradient = (counts - games * expected).sum(dim=2)
    information = games * expected * (1 - expected)
    curvature = torch.diag_embed(information.sum(dim=2)) - information
    tiers = counts.shape[1] - 1
    # Without battles against the fixed player nothing sets the level of the ratings: the level stays at its start.
    floating = (games[:, -1].sum(dim=1) == 0).to(counts.dtype).reshape(-1, 1, 1)
    ridge = _RIDGE * torch.eye(tiers, dtype=counts.dtype) + floating / tiers
    return gradient, curvature[:, :tiers, :tiers] + ridge


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

    rating: torch.Tensor
    inverse: torch.Tensor

    @classmethod
    def of(cls, counts: torch.Tensor) -> Start:
        """The start for the battles (n, (t + 1)^2) of an index."""
        players = math.isqrt(counts.shape[1])
        total = counts.double().sum(dim=0).reshape(1, players, players)
        rating = tier_ratings(total)
        inverse = torch.zeros(players, players)
        curvature = _derivatives(total / total.sum().clamp_min(1e-12), rating.double())[1][0]
        inverse[:-1, :-1] = torch.linalg.inv(curvature).float()
        return cls(rating[0], inverse)

    def ratings(self, counts: torch.Tensor, steps: int) -> torch.Tensor:
        """Ratings (n, t + 1) as `tier_ratings` computes them, but by the chord method."""
        counts = counts / counts.sum(dim=(1, 2), keepdim=True)
        games = counts + counts.transpose(1, 2)
        rating = self.rating.expand(counts.shape[0], -1)
        for _ in range(steps):
            expected = torch.sigmoid(rating.unsqueeze(2) - rating.unsqueeze(1))
            rating = rating + (counts - games * expected).sum(dim=2) @ self.inverse
        return rating

    def steps_for(self, counts: torch.Tensor) -> int:
        """The number of steps after which the ratings of count matrices (n, t + 1, t + 1) are right.

        Raises:
            ExportError: they do not come within `TOLERANCE` of Newton's method in `MOST_STEPS`.
        """
        exact = tier_ratings(counts)
        for steps in range(2, MOST_STEPS, 2):
            # Differences between tiers alone make scores; their common level is known to fewer digits.
            error = (self.ratings(counts, steps) - exact)[:, :-1]
            if float((error - error[:, :1]).abs().max()) < TOLERANCE / 10:
                return min(steps + 4, MOST_STEPS)
        raise ExportError(
            f"the similarity-weighted ranking does not converge in {MOST_STEPS} steps on so few battles; "
            "use the method 'kernel'"
        )


class WeightedRankingNetwork(IndexedNetwork):
    """The exported network: similarities, weights, a count matrix, ratings, and a quality for each model."""

    counts: torch.Tensor
    rating: torch.Tensor
    inverse: torch.Tensor
    tier: torch.Tensor
    slope: torch.Tensor

    def __init__(
        self,
        encoder: StaticEncoder,
        unit: torch.Tensor,
        counts: torch.Tensor,
        index: RankingIndex,
        calibration: Calibration,
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
        self.register_buffer("counts", counts.half().float())
        start = Start.of(self.counts)
        self.register_buffer("rating", start.rating)
        self.register_buffer("inverse", start.inverse)
        self.steps = index.steps
        self.register_buffer("tier", torch.tensor(index.tiers, dtype=torch.int64))
        self.register_buffer("slope", torch.tensor(calibration.slope, dtype=torch.float32))
        self.players = math.isqrt(counts.shape[1])

    def left_out(self, unit: torch.Tensor, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """Quality (k, m) of some rows of the index, each without its own battles, given the index's vectors (n, d)."""
        return self._quality(tier_ratings(weighted_counts(unit[rows], unit, self.counts, rows)))

    def _quality(self, ratings: torch.Tensor) -> torch.Tensor:
        """Quality (k, m) from ratings (k, t + 1)."""
        utilities = self.slope * ratings[:, self.tier]
        return torch.sigmoid(utilities - utilities.mean(dim=1, keepdim=True))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Outputs:
        """Quality (n, m), novelty (n,) and vector (n, k) of token ids and their mask, (n, length) each."""
        unit, similarity = self.similarities(input_ids, attention_mask)
        counts = index_sums(similarity_weights(similarity), self.counts)
        start = Start(self.rating, self.inverse)
        ratings = start.ratings(counts.reshape(-1, self.players, self.players), self.steps)
        return self._quality(ratings), self.novelty(unit), self.sketch(unit)
