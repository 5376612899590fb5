"""The penalty path: fit factors with a falling penalty, and stop when the log loss on held-out prompts rises.

The path starts where all factors are zero, at the global ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..examples import Examples, primary_outcomes
from ..log import TrainingLog
from .factorization import Array, Factors, Problem, fit, path_start
from .ranking import Ranking

#: Each penalty is this factor times the one before.
PATH_FACTOR = 0.8
#: The validation log loss (nats) must fall by more than this to count as better.
_LEAST_GAIN = 1e-5
#: On the path a fit stops where an iteration lowers the loss by a smaller share.
_PATH_TOLERANCE = 1e-7


class PenaltyPath:
    """A path of penalties over the folds, and where it stopped.

    Attributes:
        l2: the penalty that validation chose.
        folds: the factors at that penalty, fitted without each fold.
        held_out: float64 (n, m), the utilities that they predict for the queries of their fold.
        bias_l2: penalty of the biases.
    """

    def __init__(self, features: Array, every: Problem, start: Factors, bias_l2: float) -> None:
        self._features = features
        self._every = every
        self._start = start
        self.bias_l2 = bias_l2
        self.l2 = float("inf")
        self.held_out = np.zeros((len(features), len(start.bias)))
        self.folds: list[Factors] = []

    def keep(self, l2: float, factors: list[Factors], folds: list[npt.NDArray[np.bool_]]) -> None:
        """Keep a penalty as the best so far, with the factors that were fitted without each fold."""
        self.l2, self.folds = l2, factors
        for fold, one in zip(folds, factors, strict=True):
            self.held_out[fold] = one.utilities(self._features[fold])

    def fit_all(self) -> Factors:
        """Fit all queries at the penalty that validation chose."""
        return fit(self._every, self._start, l2=self.l2, bias_l2=self.bias_l2, iterations=300)


def follow_path(
    features: Array,
    examples: Examples,
    folds: list[npt.NDArray[np.bool_]],
    ranking: Ranking,
    log: TrainingLog,
    *,
    rank: int,
    l2: float | None,
    steps: int,
    patience: int,
    seed: int,
) -> PenaltyPath:
    """Choose the penalty of the factors by log loss on the held-out queries of the primary source.

    Args:
        features: float64 (n, f).
        examples: outcomes over the n queries.
        folds: bool (n,) each, the queries that each fold holds out.
        ranking: where the path starts.
        log: gets a line for each penalty.
        rank: largest rank of the factors.
        l2: the only penalty; None: penalties along the path.
        steps: most penalties of the path.
        patience: stop after so many penalties without a lower log loss.
        seed: of the start of the factors.
    """
    problems = _FoldProblems(features, examples, folds)
    rank = min(rank, len(examples.models), features.shape[1])
    start = Factors.start(features.shape[1], len(examples.models), rank, len(examples.sources), seed)
    current = [replace(start, bias=one.bias, offsets=one.offsets) for one in ranking.folds]
    overall = replace(start, bias=ranking.overall.bias, offsets=ranking.overall.offsets)
    path = PenaltyPath(features, problems.every, overall, ranking.bias_l2)
    largest = path_start(problems.every, overall)
    penalties = [l2] if l2 is not None else [largest * PATH_FACTOR**step for step in range(1, steps + 1)]
    phase = log.phase("factors", len(penalties))
    best, since = float("inf"), 0
    for penalty in penalties:
        current = [
            fit(problem, _unstick(one, start), l2=penalty, bias_l2=ranking.bias_l2, tolerance=_PATH_TOLERANCE)
            for problem, one in zip(problems.training, current, strict=True)
        ]
        train, loss = problems.training_loss(current), problems.held_out_loss(current)
        log.step(phase="factors", l2=penalty, train_log_loss=train, validation_log_loss=loss)
        log.advance(phase)
        if loss < best - _LEAST_GAIN:
            best, since = loss, 0
            path.keep(penalty, current, folds)
            continue
        since += 1
        if since >= patience:
            break
    log.advance(phase, done=True)
    return path


class _FoldProblems:
    """Outcomes over n queries, cut by validation folds.

    Attributes:
        every: the problem of all queries.
        training: for each fold the problem without its queries.
    """

    def __init__(self, features: Any, examples: Examples, folds: Sequence[npt.NDArray[np.bool_]]) -> None:
        """Cut outcomes by folds, bool (n,) each; features are float64 (n, f)."""
        models = len(examples.models)
        outcomes = [part for part in (examples.preferences, examples.performances) if len(part)]
        self.every = Problem(features, outcomes, models)
        self.training = [Problem(features, [part.of_queries(~fold) for part in outcomes], models) for fold in folds]
        self._validation = [Problem(features, primary_outcomes(examples, fold), models) for fold in folds]

    def training_loss(self, fits: Sequence[Factors]) -> float:
        """Mean log loss (nats) of each fold's fit on its training outcomes."""
        return float(np.mean([problem.mean_loss(one) for problem, one in zip(self.training, fits, strict=True)]))

    def held_out_loss(self, fits: Sequence[Factors]) -> float:
        """Weighted mean log loss (nats) of the held-out outcomes, each by the fit that did not see them."""
        losses = [problem.mean_loss(one) for problem, one in zip(self._validation, fits, strict=True)]
        return float(np.average(losses, weights=[problem.weight + 1e-12 for problem in self._validation]))


def _unstick(current: Factors, start: Factors) -> Factors:
    """The start of the next fit: the last factors, with a little noise, so that directions that are zero can grow."""
    return replace(
        current,
        query_factors=current.query_factors + 0.1 * start.query_factors,
        model_factors=current.model_factors + 0.1 * start.model_factors,
    )
