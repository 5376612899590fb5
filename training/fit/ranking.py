"""The global ranking: one utility of each model for all queries. Every router starts from it and must beat it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...routers.errors import InputError
from ..examples import Examples, Outcomes
from ..log import TrainingLog
from .factorization import BIAS_PENALTIES, Array, Factors, fit, losses
from .fold_problems import FoldProblems


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
    nothing = np.zeros((len(examples.queries), 1))
    problems = FoldProblems(nothing, examples, folds)
    start = Factors.start(1, len(examples.models), 1, len(examples.sources), 0)
    phase = log.phase("global ranking", len(BIAS_PENALTIES))
    fits: dict[float, tuple[float, list[Factors]]] = {}
    for bias_l2 in BIAS_PENALTIES:
        fitted = [fit(problem, start, l2=float("inf"), bias_l2=bias_l2) for problem in problems.training]
        fits[bias_l2] = problems.held_out_loss(fitted), fitted
        log.step(phase="ranking", bias_l2=bias_l2, ranking_log_loss=fits[bias_l2][0])
        log.advance(phase)
    bias_l2 = min(fits, key=lambda penalty: fits[penalty][0])
    overall = fit(problems.every, start, l2=float("inf"), bias_l2=bias_l2)
    return Ranking(overall, fits[bias_l2][1], bias_l2, fits[bias_l2][0])


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
