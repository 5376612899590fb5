"""Similarity-weighted ranking (RouteLLM, arXiv 2406.18665, section 4.2), exactly and in one graph.

Models are grouped into tiers. For every query, Bradley-Terry is fitted to all battles,
each weighted by ``10 * 10^(cosine / largest cosine)``. RouteLLM refits a logistic regression
over all battles (half a second for 55k); but battles of one pair of tiers and one outcome are
alike, so that their weights add up to a small count matrix, on which a few steps of Newton's
method give the same answer.

Where both models of a battle are of one tier, RouteLLM's design matrix holds one entry
instead of two: such a battle counts as one against a player of rating zero. That draws the
ratings of tiers with many inner battles towards zero, and is kept here, because its scores
depend on it.
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

#: Steps of Newton's method from equal ratings; quadratic, so that the last two change nothing (tested).
NEWTON_STEPS = 12
#: Differences of ratings in the graph come this near those of Newton's method.
TOLERANCE = 1e-4
MOST_STEPS = 80
#: Ridge of the Newton matrix: only a tier without battles feels it.
_RIDGE = 1e-7
_ROWS = 256


def tiers_of(ratings: npt.NDArray[np.float64], count: int = TIERS) -> npt.NDArray[np.int64]:
    """Group models into tiers of like rating: the grouping with the least sum of variances, by dynamic programming.

    Args:
        ratings: (m,).
        count: tiers; no more than models are made.

    Returns:
        (m,), the tier of each model, 0 the best.
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

    Player t is the one of rating zero that battles within a tier are played against; see the module.

    Args:
        preferences: the battles.
        queries: n.
        tier: (m,), the tier of each model.
        tiers: t; None: as many as the models fill.
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
        own: (k,), the row of the index that is each query itself, and is left out; None: none is.
    """
    parts = []
    for start in range(0, len(queries), _ROWS):
        similarity = queries[start : start + _ROWS] @ index.T
        if own is None:
            weights = similarity_weights(similarity)
        else:
            place = torch.arange(len(similarity)), torch.from_numpy(own[start : start + _ROWS])
            similarity[place] = -1.0  # nor may it be the largest cosine
            weights = similarity_weights(similarity)
            weights[place] = 0.0
        parts.append(weights @ counts)
    players = math.isqrt(counts.shape[1])
    return torch.cat(parts).reshape(-1, players, players)


def tier_ratings(counts: torch.Tensor, steps: int = NEWTON_STEPS) -> torch.Tensor:
    """Bradley-Terry ratings (n, t + 1), natural units, from weighted wins (n, t + 1, t + 1); the last is zero."""
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
    # Without a battle against the fixed player nothing sets the level of the ratings: it stays where it starts.
    floating = (games[:, -1].sum(dim=1) == 0).to(counts.dtype).reshape(-1, 1, 1)
    ridge = _RIDGE * torch.eye(tiers, dtype=counts.dtype) + floating / tiers
    return gradient, curvature[:, :tiers, :tiers] + ridge


@dataclass(frozen=True)
class Start:
    """Where the graph's iteration starts, and its fixed inverse Hessian.

    The weights of two queries differ little once they are summed over many battles. So
    the inverse Hessian of the unweighted fit serves all queries (the chord method: Ortega and
    Rheinboldt 1970, section 7.1), which spares the graph a solver that ONNX does not have.

    Attributes:
        rating: (t + 1,), of the unweighted fit.
        inverse: (t + 1, t + 1), zero for the fixed player.
    """

    rating: torch.Tensor
    inverse: torch.Tensor

    @classmethod
    def of(cls, counts: torch.Tensor) -> Start:
        """From the battles (n, (t + 1)^2) of an index."""
        players = math.isqrt(counts.shape[1])
        total = counts.double().sum(dim=0).reshape(1, players, players)
        rating = tier_ratings(total)
        inverse = torch.zeros(players, players)
        curvature = _derivatives(total / total.sum().clamp_min(1e-12), rating.double())[1][0]
        inverse[:-1, :-1] = torch.linalg.inv(curvature).float()
        return cls(rating[0], inverse)

    def ratings(self, counts: torch.Tensor, steps: int) -> torch.Tensor:
        """What `tier_ratings` computes, by the chord method."""
        counts = counts / counts.sum(dim=(1, 2), keepdim=True)
        games = counts + counts.transpose(1, 2)
        rating = self.rating.expand(counts.shape[0], -1)
        for _ in range(steps):
            expected = torch.sigmoid(rating.unsqueeze(2) - rating.unsqueeze(1))
            rating = rating + (counts - games * expected).sum(dim=2) @ self.inverse
        return rating

    def steps_for(self, counts: torch.Tensor) -> int:
        """Steps after which the ratings of these count matrices (n, t + 1, t + 1) are right.

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
            "the similarity-weighted ranking does not converge on so few battles; use the method 'kernel'"
        )


class WeightedRankingNetwork(IndexedNetwork):
    """The exported graph: similarities, weights, count matrix, ratings, one a model."""

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
        """Quality (k, m) of some rows of the index, given its unit vectors (n, d), each without its own battles."""
        return self._quality(tier_ratings(weighted_counts(unit[rows], unit, self.counts, rows)))

    def _quality(self, ratings: torch.Tensor) -> torch.Tensor:
        """Quality (k, m) from ratings (k, t + 1)."""
        utilities = self.slope * ratings[:, self.tier]
        return torch.sigmoid(utilities - utilities.mean(dim=1, keepdim=True))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Outputs:
        """See `StaticNetwork`."""
        unit, similarity = self.similarities(input_ids, attention_mask)
        counts = index_sums(similarity_weights(similarity), self.counts)
        start = Start(self.rating, self.inverse)
        ratings = start.ratings(counts.reshape(-1, self.players, self.players), self.steps)
        return self._quality(ratings), self.novelty(unit), self.sketch(unit)
