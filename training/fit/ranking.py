"""The global ranking: one utility of each model for all queries. Every router starts from it and must beat it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...routers.errors import InputError
from ..examples import Examples, Outcomes
from ..log import TrainingLog
from .factorization import BIAS_PENALTIES, Array, Factors, Problem, fit, losses

#: A fit stops where an iteration lowers the loss by a smaller share. These fits are small: they go on to the end.
_TOLERANCE = 1e-14
#: Nats over all held-out outcomes: a smaller gain is within chance.
LEAST_GAIN = 2.0


@dataclass(frozen=True)
class Ranking:
    """Utilities of the models that do not depend on the query.

    Attributes:
        overall: fitted on every query.
        folds: fitted without the queries of each fold.
        bias_l2: the penalty, chosen by validation.
        loss: log loss (nats) on the held-out queries of the primary source.
    """

    overall: Factors
    folds: list[Factors]
    bias_l2: float
    loss: float


def fit_ranking(examples: Examples, folds: list[npt.NDArray[np.bool_]], log: TrainingLog) -> Ranking:
    """Fit the biases of the models, and of each source, with the penalty that held-out queries choose.

    Raises:
        InputError: the folds hold out no outcome of the primary source.
    """
    check_held_out(examples, folds)
    models = len(examples.models)
    outcomes = [_Summed.of(part, models) for part in (examples.preferences, examples.performances) if len(part)]
    validation = [[part.where(fold, primary=True) for part in outcomes] for fold in folds]
    weights = np.asarray([sum(float(part.weight.sum()) for part in fold) for fold in validation]) + 1e-12
    nothing = np.zeros((1, 1))
    training = [Problem(nothing, [part.where(~fold) for part in outcomes], models) for fold in folds]
    start = Factors.start(1, models, 1, len(examples.sources), 0)
    phase = log.phase("global ranking", len(BIAS_PENALTIES))
    fits: dict[float, tuple[float, list[Factors]]] = {}
    for bias_l2 in BIAS_PENALTIES:
        fitted = [fit(problem, start, l2=float("inf"), bias_l2=bias_l2, tolerance=_TOLERANCE) for problem in training]
        held_out = [mean_loss(held, one.utilities(nothing)) for held, one in zip(validation, fitted, strict=True)]
        fits[bias_l2] = (float(np.average(held_out, weights=weights)), fitted)
        log.step(phase="ranking", bias_l2=bias_l2, ranking_log_loss=fits[bias_l2][0])
        log.advance(phase)
    bias_l2 = min(fits, key=lambda penalty: fits[penalty][0])
    every = np.ones(len(examples.queries), np.bool_)
    whole = Problem(nothing, [part.where(every) for part in outcomes], models)
    overall = fit(whole, start, l2=float("inf"), bias_l2=bias_l2, tolerance=_TOLERANCE)
    return Ranking(overall, fits[bias_l2][1], bias_l2, fits[bias_l2][0])


@dataclass(frozen=True)
class _Summed:
    """Outcomes whose loss is needed for utilities that are the same for every query.

    Outcomes of the same source and models then count by their sums alone, which are few.

    Attributes:
        outcomes: k outcomes.
        first: int64 (c,), one outcome of each kind, that is of each source and models.
        kind: int64 (k,), the kind of each outcome.
    """

    outcomes: Outcomes
    first: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int64]

    @classmethod
    def of(cls, outcomes: Outcomes, models: int) -> _Summed:
        number = outcomes.source
        for column in outcomes.model.T:
            number = number * models + column
        _, first, kind = np.unique(number, return_index=True, return_inverse=True)
        return cls(outcomes, first, kind)

    def where(self, kept: npt.NDArray[np.bool_], *, primary: bool = False) -> Outcomes:
        """One outcome of each kind, for the queries that bool (n,) keeps; all stand at one query.

        Args:
            kept: bool (n,).
            primary: leave out other sources than the primary one.
        """
        one = self.outcomes
        weight = one.weight * kept[one.query].astype(np.float64)
        weights = np.bincount(self.kind, weight, len(self.first)).astype(np.float64)
        wins = np.bincount(self.kind, weight * one.target, len(self.first)).astype(np.float64)
        there = (weights > 0) & ((one.source[self.first] == 0) | (not primary))
        rows = self.first[there]
        return Outcomes(
            query=np.zeros(len(rows), np.int64),
            model=one.model[rows],
            target=wins[there] / weights[there],
            weight=weights[there],
            source=one.source[rows],
        )


def mean_loss(outcomes: list[Outcomes], utilities: Array) -> float:
    """Weighted mean log loss (nats) of outcomes, from utilities (n, m)."""
    total = sum(float(losses(part, utilities).sum()) for part in outcomes)
    return total / max(sum(float(part.weight.sum()) for part in outcomes), 1e-12)


def check_held_out(examples: Examples, folds: list[npt.NDArray[np.bool_]]) -> None:
    """Refuse folds that hold out no outcome of the primary source.

    Raises:
        InputError: no fold holds one out.
    """
    parts = (examples.preferences, examples.performances)
    if not any(len(part.of_queries(fold).primary()) for fold in folds for part in parts):
        raise InputError(
            f"the primary source, {examples.sources[0]!r}, has too few prompts to hold any out; "
            "expected more records of it"
        )
