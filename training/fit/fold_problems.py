"""The fits of a cross-validation: one problem without the queries of each fold, and what the fold says of its fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..examples import Examples, primary_outcomes
from .factorization import Factors, Problem


class FoldProblems:
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
