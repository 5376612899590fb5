"""Fit utilities u = bias + features · Q · Mᵀ to outcomes: the mathematics of the matrix factorization.

The penalty ``l2/2 (|Q|² + |M|²)`` is the variational form of the nuclear norm of QMᵀ (Srebro, Rennie and Jaakkola
2004), so that its strength chooses the rank. A preference follows Bradley-Terry, ``P(a wins) = sigmoid(u[a] - u[b])``,
where a tie counts as one half. A performance is Bernoulli with ``quality = sigmoid(u)``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from ..examples import Outcomes

Tensor = torch.Tensor

#: Penalties on the deviations of the biases that validation tries. A penalty of 1 weighs as much as one record.
BIAS_PENALTIES = (0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Batch:
    """Outcomes as tensors, with the fields of `Outcomes`."""

    query: Tensor
    model: Tensor
    target: Tensor
    weight: Tensor
    source: Tensor

    @classmethod
    def of(cls, outcomes: Outcomes) -> Batch:
        """The outcomes as tensors; targets and weights are float64."""
        return cls(
            torch.from_numpy(outcomes.query),
            torch.from_numpy(outcomes.model),
            torch.from_numpy(outcomes.target).double(),
            torch.from_numpy(outcomes.weight).double(),
            torch.from_numpy(outcomes.source),
        )

    def logits(self, utilities: Tensor, offsets: Tensor | None = None) -> Tensor:
        """The logit of the expected target of each outcome, (k,), from utilities (n, m) and offsets (sources, m)."""
        picked = utilities[self.query.unsqueeze(1), self.model]
        if offsets is not None:
            picked = picked + offsets[self.source.unsqueeze(1), self.model]
        return picked[:, 0] - picked[:, 1] if picked.shape[1] == 2 else picked[:, 0]

    def losses(self, utilities: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Weighted log loss (nats) of each outcome: (k,)."""
        logits = self.logits(utilities, offsets)
        return self.weight * binary_cross_entropy_with_logits(logits, self.target, reduction="none")


@dataclass(frozen=True)
class Factors:
    """A fitted factorization.

    Attributes:
        bias: (m,), the query-independent utility of each model.
        query_factors: (f, rank).
        model_factors: (m, rank).
        offsets: (sources, m), how much each source differs from the primary source; row 0 is zero.
    """

    bias: Tensor
    query_factors: Tensor
    model_factors: Tensor
    offsets: Tensor

    @property
    def weight(self) -> Tensor:
        """The weight (f, m): utilities are ``features @ weight + bias``."""
        return self.query_factors @ self.model_factors.T

    def utilities(self, features: Tensor) -> Tensor:
        """Utilities (n, m) from features (n, f)."""
        return features @ self.weight + self.bias

    @classmethod
    def start(cls, features: int, models: int, rank: int, sources: int, seed: int) -> Factors:
        """A start with zero biases and small random factors."""
        generator = torch.Generator().manual_seed(seed)
        return cls(
            torch.zeros(models, dtype=torch.float64),
            0.05 * torch.randn(features, rank, generator=generator, dtype=torch.float64),
            0.05 * torch.randn(models, rank, generator=generator, dtype=torch.float64),
            torch.zeros(sources, models, dtype=torch.float64),
        )


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Make torch add in a fixed order, so that a seed gives the same bytes twice."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def fit(
    features: Tensor,
    batches: list[Batch],
    start: Factors,
    *,
    l2: float,
    bias_l2: float,
    iterations: int = 100,
) -> Factors:
    """Minimise the penalised log loss by L-BFGS, from a start.

    Args:
        features: float64 (n, f).
        batches: outcomes over these n queries.
        start: where to start.
        l2: penalty of both factors; infinity keeps them at zero, which fits a global ranking.
        bias_l2: penalty of the biases' deviations from their mean, and of the offsets.
        iterations: most iterations of L-BFGS.
    """
    global_only = not np.isfinite(l2)
    bias = start.bias.clone().requires_grad_()
    offsets = start.offsets.clone()
    free_offsets = offsets[1:].clone().requires_grad_()
    query_factors = start.query_factors.clone()
    model_factors = start.model_factors.clone()
    if global_only:
        query_factors.zero_()
        model_factors.zero_()
    parameters = [bias, *([free_offsets] if len(free_offsets) else [])]
    if not global_only:
        parameters += [query_factors.requires_grad_(), model_factors.requires_grad_()]
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=iterations, history_size=20, line_search_fn="strong_wolfe", tolerance_change=1e-9
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        if global_only:
            utilities = bias.expand(len(features), -1)
            penalty = torch.zeros((), dtype=torch.float64)
        else:
            utilities = (features @ query_factors) @ model_factors.T + bias
            penalty = l2 / 2 * (query_factors.square().sum() + model_factors.square().sum())
        shift = torch.cat([offsets[:1], free_offsets])
        penalty = penalty + bias_l2 / 2 * ((bias - bias.mean()).square().sum() + free_offsets.square().sum())
        loss = penalty + sum(batch.losses(utilities, shift).sum() for batch in batches)
        loss.backward()
        return loss

    with deterministic():
        optimiser.step(closure)
    return Factors(
        bias.detach(),
        query_factors.detach(),
        model_factors.detach(),
        torch.cat([offsets[:1], free_offsets.detach()]),
    )


def path_start(features: Tensor, batches: list[Batch], ranking: Factors) -> float:
    """The smallest penalty at which the factors stay zero: the spectral norm of the gradient at the ranking.

    A regularisation path starts here (Mazumder, Hastie and Tibshirani 2010, for the nuclear norm).
    """
    weight = torch.zeros(features.shape[1], len(ranking.bias), dtype=torch.float64, requires_grad=True)
    utilities = features @ weight + ranking.bias
    with deterministic():
        torch.stack([batch.losses(utilities, ranking.offsets).sum() for batch in batches]).sum().backward()
    assert weight.grad is not None
    return float(torch.linalg.matrix_norm(weight.grad, ord=2))
