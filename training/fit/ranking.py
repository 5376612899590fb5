"""The global ranking: what the models are worth whatever the query. Every router starts there and must beat it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch

from ...routers.errors import InputError
from ..examples import Examples, Outcomes
from ..log import TrainingLog
from .factorization import BIAS_PENALTIES, Batch, Factors, fit


@dataclass(frozen=True)
class Ranking:
    """Query-independent utilities.

    Attributes:
        overall: fitted on every query.
        folds: fitted without the queries of each fold.
        bias_l2: the penalty, chosen by validation.
        loss: log loss (nats) on the held-out queries of the first source.
    """

    overall: Factors
    folds: list[Factors]
    bias_l2: float
    loss: float


def fit_ranking(examples: Examples, folds: list[npt.NDArray[np.bool_]], log: TrainingLog) -> Ranking:
    """Fit the biases of the models, and of each source, with the penalty that held-out queries choose.

    Raises:
        InputError: the folds hold out no outcome of the first source.
    """
    outcomes = [part for part in (examples.preferences, examples.performances) if len(part)]
    validation = [[Batch.of(first_source(part.of_queries(fold))) for part in outcomes] for fold in folds]
    if not any(len(batch.target) for fold in validation for batch in fold):
        raise InputError("the first source has too few prompts to hold any out; expected more records there")
    weights = np.asarray([sum(float(batch.weight.sum()) for batch in fold) for fold in validation]) + 1e-12
    nothing = torch.zeros(len(examples.queries), 1, dtype=torch.float64)
    start = Factors.start(1, len(examples.models), 1, len(examples.sources), 0)
    phase = log.phase("global ranking", len(BIAS_PENALTIES))
    found: dict[float, tuple[float, list[Factors]]] = {}
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
        found[bias_l2] = (float(np.average(losses, weights=weights)), fitted)
        log.step(phase="ranking", bias_l2=bias_l2, ranking_log_loss=found[bias_l2][0])
        log.advance(phase)
    bias_l2 = min(found, key=lambda penalty: found[penalty][0])
    overall = fit(nothing, [Batch.of(part) for part in outcomes], start, l2=float("inf"), bias_l2=bias_l2)
    return Ranking(overall, found[bias_l2][1], bias_l2, found[bias_l2][0])


def mean_loss(batches: list[Batch], utilities: torch.Tensor, offsets: torch.Tensor | None = None) -> float:
    """Weighted mean log loss (nats)."""
    total = sum(float(batch.losses(utilities, offsets).sum()) for batch in batches)
    return total / max(sum(float(batch.weight.sum()) for batch in batches), 1e-12)


def own_outcomes(examples: Examples, held_out: npt.NDArray[np.bool_]) -> list[Batch]:
    """The first source's outcomes of the queries that bool (n,) marks: what a fit without them is judged by."""
    parts = (examples.preferences, examples.performances)
    return [Batch.of(first_source(part.of_queries(held_out))) for part in parts if len(part)]


def first_source(outcomes: Outcomes) -> Outcomes:
    """The outcomes of the first source, the one that a router is for."""
    kept = outcomes.source == 0
    return Outcomes(**{item.name: getattr(outcomes, item.name)[kept] for item in fields(outcomes)})
