"""The global ranking: one utility of each model for all queries. Every router starts from it and must beat it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ...routers.errors import InputError
from ..examples import Examples
from ..log import TrainingLog
from .factorization import BIAS_PENALTIES, Batch, Factors, fit


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
    outcomes = [part for part in (examples.preferences, examples.performances) if len(part)]
    validation = [primary_outcomes(examples, fold) for fold in folds]
    weights = np.asarray([sum(float(batch.weight.sum()) for batch in fold) for fold in validation]) + 1e-12
    nothing = torch.zeros(len(examples.queries), 1, dtype=torch.float64)
    start = Factors.start(1, len(examples.models), 1, len(examples.sources), 0)
    phase = log.phase("global ranking", len(BIAS_PENALTIES))
    fits: dict[float, tuple[float, list[Factors]]] = {}
    for bias_l2 in BIAS_PENALTIES:
        fitted = [
            fit(
                nothing,
                [Batch.of(part.of_queries(~fold)) for part in outcomes],
                start,
                l2=float("inf"),
                bias_l2=bias_l2,
            )
            for fold in folds
        ]
        losses = [mean_loss(held, one.utilities(nothing)) for held, one in zip(validation, fitted, strict=True)]
        fits[bias_l2] = (float(np.average(losses, weights=weights)), fitted)
        log.step(phase="ranking", bias_l2=bias_l2, ranking_log_loss=fits[bias_l2][0])
        log.advance(phase)
    bias_l2 = min(fits, key=lambda penalty: fits[penalty][0])
    overall = fit(nothing, [Batch.of(part) for part in outcomes], start, l2=float("inf"), bias_l2=bias_l2)
    return Ranking(overall, fits[bias_l2][1], bias_l2, fits[bias_l2][0])


def mean_loss(batches: list[Batch], utilities: torch.Tensor, offsets: torch.Tensor | None = None) -> float:
    """Weighted mean log loss (nats) of outcomes, from utilities (n, m) and offsets (sources, m)."""
    total = sum(float(batch.losses(utilities, offsets).sum()) for batch in batches)
    return total / max(sum(float(batch.weight.sum()) for batch in batches), 1e-12)


def primary_outcomes(examples: Examples, held_out: npt.NDArray[np.bool_]) -> list[Batch]:
    """The primary source's outcomes of the queries that bool (n,) marks: they judge a fit that did not see them."""
    parts = (examples.preferences, examples.performances)
    return [Batch.of(part.of_queries(held_out).primary()) for part in parts if len(part)]


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
