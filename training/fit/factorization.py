"""Fit utilities u = bias + features · Q · Mᵀ to outcomes: the mathematics of the matrix factorization.

The penalty ``l2/2 (|Q|² + |M|²)`` is the variational form of the nuclear norm of QMᵀ (Srebro, Rennie and Jaakkola
2004), so that its strength chooses the rank. A preference follows Bradley-Terry, ``P(a wins) = sigmoid(u[a] - u[b])``,
where a tie counts as one half. A performance is Bernoulli with ``quality = sigmoid(u)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..examples import Outcomes
from .minimise import minimise

Array = npt.NDArray[np.float64]

#: Penalties on the deviations of the biases that validation tries. A penalty of 1 weighs as much as one record.
BIAS_PENALTIES = (0.3, 1.0, 3.0, 10.0)
#: One product of matrices is faster than rows gathered for each outcome up to so many cells for each (measured).
_DENSE = 12
#: Rows that are gathered at once: they stay in the cache.
_ROWS = 8192


def logits(outcomes: Outcomes, utilities: Array, offsets: Array | None = None) -> Array:
    """The logit of the expected target of each outcome, (k,), from utilities (n, m) and offsets (sources, m)."""
    picked = utilities[outcomes.query[:, None], outcomes.model]
    if offsets is not None:
        picked = picked + offsets[outcomes.source[:, None], outcomes.model]
    return picked[:, 0] - picked[:, 1] if picked.shape[1] == 2 else picked[:, 0]


def losses(outcomes: Outcomes, utilities: Array, offsets: Array | None = None) -> Array:
    """Weighted log loss (nats) of each outcome: (k,)."""
    logit = logits(outcomes, utilities, offsets)
    return np.asarray(outcomes.weight * (np.logaddexp(0.0, logit) - outcomes.target * logit), np.float64)


def sigmoid(logit: npt.NDArray[Any]) -> Array:
    """``1 / (1 + exp(-logit))``, which does not overflow."""
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, small) / (1.0 + small)


@dataclass(frozen=True)
class Factors:
    """A fitted factorization.

    Attributes:
        bias: (m,), the query-independent utility of each model.
        query_factors: (f, rank).
        model_factors: (m, rank).
        offsets: (sources, m), how much each source differs from the primary source; row 0 is zero.
    """

    bias: Array
    query_factors: Array
    model_factors: Array
    offsets: Array

    @property
    def weight(self) -> Array:
        """The weight (f, m): utilities are ``features @ weight + bias``."""
        return self.query_factors @ self.model_factors.T

    def utilities(self, features: Array) -> Array:
        """Utilities (n, m) from features (n, f)."""
        return (features @ self.query_factors) @ self.model_factors.T + self.bias

    @classmethod
    def start(cls, features: int, models: int, rank: int, sources: int, seed: int) -> Factors:
        """A start with zero biases and small random factors."""
        random = np.random.default_rng(seed)
        return cls(
            np.zeros(models),
            0.05 * random.standard_normal((features, rank)),
            0.05 * random.standard_normal((models, rank)),
            np.zeros((sources, models)),
        )


class Problem:
    """The log loss of outcomes over n queries and m models, with its gradient.

    Only the queries that outcomes mention are kept, so that a fold costs no more than its share.
    """

    def __init__(self, features: Any, parts: Sequence[Outcomes], models: int) -> None:
        """Keep features float64 (n, f), dense or sparse, and outcomes over these n queries."""
        from scipy.sparse import csr_array

        mentioned = np.unique(np.concatenate([part.query for part in parts]))
        self.features = features if len(mentioned) == features.shape[0] else features[mentioned]
        query = np.searchsorted(mentioned, np.concatenate([part.query for part in parts]))
        first = np.concatenate([part.model[:, 0] for part in parts])
        # A performance has one model: its second column is a model of utility zero.
        second = np.concatenate(
            [part.model[:, 1] if part.model.shape[1] == 2 else np.full(len(part), -1) for part in parts]
        )
        source = np.concatenate([part.source for part in parts])
        self._target = np.concatenate([part.target for part in parts]).astype(np.float64)
        self._weight = np.concatenate([part.weight for part in parts]).astype(np.float64)
        paired = np.flatnonzero(second >= 0)
        rows, columns = np.concatenate([query, query[paired]]), np.concatenate([first, second[paired]])
        # Entries of the gradient with respect to the utilities: one for each model of each outcome.
        order = np.lexsort((columns, rows))
        self._outcome = np.concatenate([np.arange(len(query)), paired])[order]
        self._sign = np.concatenate([np.ones(len(query)), -np.ones(len(paired))])[order]
        self._columns = columns[order]
        self._cell = np.concatenate([source, source[paired]])[order] * models + self._columns
        starts = np.searchsorted(rows[order], np.arange(len(mentioned) + 1))
        self._residuals = csr_array(
            (self._sign.copy(), self._columns.astype(np.int32), starts.astype(np.int32)), (len(mentioned), models)
        )
        self._rows = rows[order]
        self._flat = self._rows * models + self._columns
        self._dense = len(mentioned) * models <= _DENSE * len(self._flat)

    def loss(self, bias: Array, offsets: Array, query_factors: Array | None, model_factors: Array) -> Any:
        """The summed log loss (nats), and its gradient with respect to each argument; None: factors that are zero."""
        picked = bias[self._columns] + offsets.ravel()[self._cell]
        seen = None
        if query_factors is not None:
            seen = self.features @ query_factors
            if self._dense:
                picked += (seen @ model_factors.T).ravel()[self._flat]
            else:
                for first in range(0, len(picked), _ROWS):
                    part = slice(first, first + _ROWS)
                    picked[part] += np.einsum("kr,kr->k", seen[self._rows[part]], model_factors[self._columns[part]])
        logit = np.bincount(self._outcome, weights=self._sign * picked, minlength=len(self._target))
        small = np.exp(-np.abs(logit))
        loss = self._weight @ (np.log1p(small) + np.maximum(logit, 0) - self._target * logit)
        residual = self._weight * (np.where(logit >= 0, 1.0, small) / (1.0 + small) - self._target)
        entries = self._sign * residual[self._outcome]
        by_bias = np.bincount(self._columns, weights=entries, minlength=len(bias))
        by_offset = np.bincount(self._cell, weights=entries, minlength=offsets.size).reshape(offsets.shape)
        if seen is None:
            return loss, by_bias, by_offset, None, None
        self._residuals.data = entries
        by_query = self.features.T @ (self._residuals @ model_factors)
        return loss, by_bias, by_offset, by_query, self._residuals.T @ seen

    def mean_loss(self, factors: Factors) -> float:
        """Weighted mean log loss (nats) of the outcomes, without a penalty."""
        total = self.loss(factors.bias, factors.offsets, factors.query_factors, factors.model_factors)[0]
        return float(total) / max(float(self._weight.sum()), 1e-12)

    def at(self, ranking: Factors) -> Array:
        """The gradient (f, m) with respect to the weight, at a global ranking."""
        picked = ranking.bias[self._columns] + ranking.offsets.ravel()[self._cell]
        logit = np.bincount(self._outcome, weights=self._sign * picked, minlength=len(self._target))
        residual = self._weight * (sigmoid(logit) - self._target)
        self._residuals.data = self._sign * residual[self._outcome]
        return np.asarray((self._residuals.T @ self.features).T)


def fit(
    problem: Problem, start: Factors, *, l2: float, bias_l2: float, iterations: int = 100, tolerance: float = 1e-9
) -> Factors:
    """Minimise the penalised log loss by L-BFGS, from a start.

    Args:
        problem: the outcomes, and the features of their queries.
        start: where to start.
        l2: penalty of both factors; infinity keeps them at zero, which fits a global ranking.
        bias_l2: penalty of the biases' deviations from their mean, and of the offsets.
        iterations: most iterations of L-BFGS.
        tolerance: stop where an iteration lowers the loss by a smaller share.
    """
    global_only = not np.isfinite(l2)
    models, sources = len(start.bias), len(start.offsets)
    rank = start.model_factors.shape[1]
    shapes = [(models,), (sources - 1, models)]
    values = [start.bias, start.offsets[1:]]
    if not global_only:
        shapes += [start.query_factors.shape, (models, rank)]
        values += [start.query_factors, start.model_factors]
    cuts = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]

    def parts(flat: Array) -> list[Array]:
        return [part.reshape(shape) for part, shape in zip(np.split(flat, cuts), shapes, strict=True)]

    def loss_and_gradient(flat: Array) -> tuple[float, Array]:
        bias, free, *factors = parts(flat)
        offsets = np.concatenate([np.zeros((1, models)), free])
        query_factors, model_factors = factors or (None, start.model_factors)
        loss, by_bias, by_offset, by_query, by_model = problem.loss(bias, offsets, query_factors, model_factors)
        deviation = bias - bias.mean()
        loss += bias_l2 / 2 * (deviation @ deviation + np.square(free).sum())
        gradient = [by_bias + bias_l2 * deviation, by_offset[1:] + bias_l2 * free]
        if query_factors is not None:
            loss += l2 / 2 * (np.square(query_factors).sum() + np.square(model_factors).sum())
            gradient += [by_query + l2 * query_factors, by_model + l2 * model_factors]
        return float(loss), np.concatenate([part.ravel() for part in gradient])

    found = minimise(loss_and_gradient, np.concatenate([value.ravel() for value in values]), iterations, tolerance)
    bias, free, *factors = parts(found)
    query_factors, model_factors = factors or (np.zeros_like(start.query_factors), np.zeros_like(start.model_factors))
    return Factors(bias, query_factors, model_factors, np.concatenate([np.zeros((1, models)), free]))


def path_start(problem: Problem, ranking: Factors) -> float:
    """The smallest penalty at which the factors stay zero: the spectral norm of the gradient at the ranking.

    A regularisation path starts here (Mazumder, Hastie and Tibshirani 2010, for the nuclear norm).
    """
    return float(np.linalg.norm(problem.at(ranking), ord=2))
