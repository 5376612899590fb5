"""Fit utilities u = bias + features · Q · Mᵀ to outcomes: the mathematics of the matrix factorization.

The penalty ``l2/2 (|Q|² + |M|²)`` is the variational form of the nuclear norm of QMᵀ (Srebro, Rennie and Jaakkola
2004), so that its strength chooses the rank. A preference follows Bradley-Terry, ``P(a wins) = sigmoid(u[a] - u[b])``,
where a tie counts as one half. A performance is Bernoulli with ``quality = sigmoid(u)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...routers.base import sigmoid
from ...routers.session import cpu_count
from ..examples import Outcomes
from .minimise import Array, minimise

#: Penalties on the deviations of the biases that validation tries. A penalty of 1 weighs as much as one record.
BIAS_PENALTIES = (0.3, 1.0, 3.0, 10.0)
#: One product of matrices is faster than rows gathered for each outcome up to so many cells for each (measured).
_DENSE = 12
#: Rows that are gathered at once: they stay in the cache.
_ROWS = 8192
#: Queries of a block.
_QUERIES = 32768


def logits(outcomes: Outcomes, utilities: Array, offsets: Array | None = None) -> Array:
    """The logit of the expected target of each outcome, (k,), from utilities (n, m) and offsets (sources, m)."""
    picked = utilities[outcomes.query[:, None], outcomes.model]
    if offsets is not None:
        picked = picked + offsets[outcomes.source[:, None], outcomes.model]
    return picked[:, 0] - picked[:, 1] if picked.shape[1] == 2 else picked[:, 0]


def logit_of(quality: npt.NDArray[Any], edge: float) -> Array:
    """The logits of qualities, which are kept so far from 0 and 1 that their logits are finite."""
    within = np.clip(quality.astype(np.float64), edge, 1 - edge)
    return np.asarray(np.log(within / (1 - within)))


def losses(outcomes: Outcomes, utilities: Array, offsets: Array | None = None) -> Array:
    """Weighted log loss (nats) of each outcome: (k,)."""
    logit = logits(outcomes, utilities, offsets)
    return np.asarray(outcomes.weight * (np.logaddexp(0.0, logit) - outcomes.target * logit), np.float64)


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

    Only the queries that outcomes mention are kept, so that a fold costs no more than its share. Many queries are cut
    into blocks, which threads share; their sums are added in the order of the blocks, whatever the number of threads.

    Attributes:
        weight: the summed weight of the outcomes.
    """

    def __init__(self, features: Any, parts: Sequence[Outcomes], models: int, base: Array | None = None) -> None:
        """Keep the outcomes with the features of their queries.

        Args:
            features: float64 (n, f), dense or sparse.
            parts: outcomes over these n queries.
            models: the number m of models.
            base: float64 (n, m), utilities that stay as they are and are added to those that are fitted; None: zero.
        """
        entries = _Entries.of(parts)
        order = np.argsort(entries.query, kind="stable")
        mentioned, starts = np.unique(entries.query[order], return_index=True)
        starts = np.append(starts, len(order))
        self._blocks: list[_Block] = []
        for first in range(0, len(mentioned), _QUERIES):
            rows = mentioned[first : first + _QUERIES]
            part = entries.at(order[starts[first] : starts[first + len(rows)]])
            whole = rows[-1] - rows[0] + 1 == len(rows)
            seen = features[rows[0] : rows[-1] + 1] if whole else features[rows]
            fixed = None if base is None else base[rows]
            self._blocks.append(_Block(seen, replace(part, query=np.searchsorted(rows, part.query)), models, fixed))
        self.weight = float(entries.weight.sum())

    def loss(self, bias: Array, offsets: Array, query_factors: Array | None, model_factors: Array) -> Any:
        """The summed log loss (nats), and its gradient with respect to each argument; None: factors that are zero."""
        return self._sums(lambda block: block.loss(bias, offsets, query_factors, model_factors))

    def mean_loss(self, factors: Factors) -> float:
        """Weighted mean log loss (nats) of the outcomes, without a penalty; 0 where there are no outcomes."""
        if not self._blocks:
            return 0.0
        (total,) = self._sums(lambda block: (block.plain_loss(factors),))
        return float(total) / max(self.weight, 1e-12)

    def at(self, ranking: Factors) -> Array:
        """The gradient (f, m) with respect to the weight, at a global ranking."""
        (gradient,) = self._sums(lambda block: (block.at(ranking),))
        return np.asarray(gradient)

    def _sums(self, of_block: Callable[[_Block], tuple[Any, ...]]) -> list[Any]:
        """What each block gives, added up; None stays None."""
        if len(self._blocks) == 1:
            return list(of_block(self._blocks[0]))
        with ThreadPoolExecutor(cpu_count()) as threads:
            found = list(threads.map(of_block, self._blocks))
        return [None if values[0] is None else sum(values[1:], values[0]) for values in zip(*found, strict=True)]


@dataclass(frozen=True)
class _Entries:
    """Outcomes of both kinds: a performance is a preference over a model of utility zero, number -1.

    Attributes:
        query: int64 (k,).
        first: int64 (k,), a model.
        second: int64 (k,), the other model, or -1.
        source: int64 (k,).
        target: float64 (k,).
        weight: float64 (k,).
    """

    query: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    target: Array
    weight: Array

    @classmethod
    def of(cls, parts: Sequence[Outcomes]) -> _Entries:
        return cls(
            np.concatenate([part.query for part in parts]),
            np.concatenate([part.model[:, 0] for part in parts]),
            np.concatenate(
                [part.model[:, 1] if part.model.shape[1] == 2 else np.full(len(part), -1) for part in parts]
            ),
            np.concatenate([part.source for part in parts]),
            np.concatenate([part.target for part in parts]).astype(np.float64),
            np.concatenate([part.weight for part in parts]).astype(np.float64),
        )

    def at(self, rows: npt.NDArray[np.int64]) -> _Entries:
        return _Entries(**{name: values[rows] for name, values in vars(self).items()})


class _Block:
    """A part of the queries of a problem, with their outcomes."""

    def __init__(self, features: Any, entries: _Entries, models: int, base: Array | None) -> None:
        from scipy.sparse import csr_array

        self._features = features
        self._target, self._weight = entries.target, entries.weight
        count, queries = len(entries.query), features.shape[0]
        paired = np.flatnonzero(entries.second >= 0)
        rows = np.concatenate([entries.query, entries.query[paired]])
        columns = np.concatenate([entries.first, entries.second[paired]])
        # Entries of the gradient with respect to the utilities: one for each model of each outcome.
        order = np.lexsort((columns, rows))
        self._outcome = np.concatenate([np.arange(count), paired])[order]
        self._sign = np.concatenate([np.ones(count), -np.ones(len(paired))])[order]
        self._columns = columns[order]
        self._cell = np.concatenate([entries.source, entries.source[paired]])[order] * models + self._columns
        starts = np.searchsorted(rows[order], np.arange(queries + 1))
        self._residuals = csr_array(
            (self._sign.copy(), self._columns.astype(np.int32), starts.astype(np.int32)), (queries, models)
        )
        self._rows = rows[order]
        self._flat = self._rows * models + self._columns
        self._dense = queries * models <= _DENSE * len(self._flat)
        self._base = None if base is None else base.ravel()[self._flat]

    def _logit(self, bias: Array, offsets: Array, seen: Array | None, model_factors: Array) -> Array:
        """The logits (k,) of the outcomes, from what the query factors make of the queries (n, rank)."""
        picked = bias[self._columns] + offsets.ravel()[self._cell]
        if self._base is not None:
            picked += self._base
        if seen is not None and self._dense:
            picked += (seen @ model_factors.T).ravel()[self._flat]
        elif seen is not None:
            for first in range(0, len(picked), _ROWS):
                part = slice(first, first + _ROWS)
                picked[part] += np.einsum("kr,kr->k", seen[self._rows[part]], model_factors[self._columns[part]])
        logit = np.bincount(self._outcome, weights=self._sign * picked, minlength=len(self._target))
        return logit.astype(np.float64)

    def _log_loss(self, logit: Array, small: Array) -> float:
        return float(self._weight @ (np.log1p(small) + np.maximum(logit, 0) - self._target * logit))

    def loss(self, bias: Array, offsets: Array, query_factors: Array | None, model_factors: Array) -> tuple[Any, ...]:
        """As `Problem.loss`."""
        seen = None if query_factors is None else self._features @ query_factors
        logit = self._logit(bias, offsets, seen, model_factors)
        small = np.exp(-np.abs(logit))
        residual = self._weight * (np.where(logit >= 0, 1.0, small) / (1.0 + small) - self._target)
        entries = self._sign * residual[self._outcome]
        by_bias = np.bincount(self._columns, weights=entries, minlength=len(bias))
        by_offset = np.bincount(self._cell, weights=entries, minlength=offsets.size).reshape(offsets.shape)
        if seen is None:
            return self._log_loss(logit, small), by_bias, by_offset, None, None
        self._residuals.data = entries
        by_query = self._features.T @ (self._residuals @ model_factors)
        return self._log_loss(logit, small), by_bias, by_offset, by_query, self._residuals.T @ seen

    def plain_loss(self, factors: Factors) -> float:
        """The summed log loss (nats) of the outcomes."""
        seen = self._features @ factors.query_factors
        logit = self._logit(factors.bias, factors.offsets, seen, factors.model_factors)
        return self._log_loss(logit, np.exp(-np.abs(logit)))

    def at(self, ranking: Factors) -> Array:
        """As `Problem.at`."""
        residual = self._weight * (
            sigmoid(self._logit(ranking.bias, ranking.offsets, None, ranking.model_factors)) - self._target
        )
        self._residuals.data = self._sign * residual[self._outcome]
        return np.asarray((self._residuals.T @ self._features).T)


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
