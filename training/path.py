"""The regularisation path: from the global ranking to ever freer factors, stopped early on held-out prompts."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import numpy.typing as npt
import torch

from ..routers.errors import InputError
from .examples import Examples, Outcomes
from .factorization import BIAS_PENALTIES, Batch, Factors, fit, path_start
from .log import TrainingLog

#: The penalty falls by this factor a step.
PATH_FACTOR = 0.8
#: The validation log loss (nats) must fall by more than this to count as better.
_LEAST_GAIN = 1e-5


class Path:
    """A path of penalties over the folds, and where it stopped."""

    def __init__(self, features: torch.Tensor, batches: list[Batch], start: Factors, bias_l2: float) -> None:
        self._features = features
        self._batches = batches
        self._start = start
        self.bias_l2 = bias_l2
        self.l2 = float("inf")
        self.held_out = torch.zeros(len(features), len(start.bias), dtype=torch.float64)
        self.ranking_loss = float("inf")

    def fit_all(self) -> Factors:
        """Fit all queries at the penalty that validation chose."""
        return fit(self._features, self._batches, self._start, l2=self.l2, bias_l2=self.bias_l2, iterations=300)


def follow_path(
    features: torch.Tensor,
    examples: Examples,
    folds: list[npt.NDArray[np.bool_]],
    log: TrainingLog,
    *,
    rank: int,
    l2: float | None,
    steps: int,
    patience: int,
    seed: int,
) -> Path:
    """Choose the penalties by log loss on the held-out queries of the first source."""
    outcomes = [batch for batch in (examples.preferences, examples.performances) if len(batch)]
    every = [Batch.of(batch) for batch in outcomes]
    training = [[Batch.of(batch.of_queries(~fold)) for batch in outcomes] for fold in folds]
    validation = [[Batch.of(first_source(batch.of_queries(fold))) for batch in outcomes] for fold in folds]
    if not any(len(batch.target) for fold in validation for batch in fold):
        raise InputError("the first source has too few prompts to hold any out; expected more records there")
    rank = min(rank, len(examples.models), features.shape[1])
    start = Factors.start(features.shape[1], len(examples.models), rank, len(examples.sources), seed)

    def losses(fitted: list[Factors]) -> tuple[float, float]:
        train = [mean_loss(training[i], f.utilities(features), f.offsets) for i, f in enumerate(fitted)]
        weights = [sum(float(batch.weight.sum()) for batch in fold) for fold in validation]
        held_out = [mean_loss(validation[i], f.utilities(features)) for i, f in enumerate(fitted)]
        return float(np.mean(train)), float(np.average(held_out, weights=np.asarray(weights) + 1e-12))

    phase = log.phase("global ranking", len(BIAS_PENALTIES))
    rankings: dict[float, tuple[float, list[Factors]]] = {}
    for bias_l2 in BIAS_PENALTIES:
        fitted = [fit(features, batches, start, l2=float("inf"), bias_l2=bias_l2) for batches in training]
        train_loss, loss = losses(fitted)
        rankings[bias_l2] = (loss, fitted)
        log.step(phase="ranking", bias_l2=bias_l2, train_log_loss=train_loss, ranking_log_loss=loss)
        log.advance(phase)
    bias_l2 = min(rankings, key=lambda penalty: rankings[penalty][0])
    ranking_loss, fitted = rankings[bias_l2]
    # The fits start at the global ranking, so that it is right before the first step.
    current = [replace(start, bias=one.bias, offsets=one.offsets) for one in fitted]
    overall = fit(features, every, start, l2=float("inf"), bias_l2=bias_l2)
    path = Path(features, every, replace(start, bias=overall.bias, offsets=overall.offsets), bias_l2)
    path.ranking_loss = ranking_loss
    largest = path_start(features, every, overall)
    penalties = [l2] if l2 is not None else [largest * PATH_FACTOR**step for step in range(1, steps + 1)]
    phase = log.phase("factors", len(penalties))
    best, since = float("inf"), 0
    for penalty in penalties:
        current = [
            fit(features, batches, _unstick(one, start), l2=penalty, bias_l2=bias_l2)
            for batches, one in zip(training, current, strict=True)
        ]
        train_loss, loss = losses(current)
        log.step(phase="factors", l2=penalty, train_log_loss=train_loss, validation_log_loss=loss)
        log.advance(phase)
        if loss < best - _LEAST_GAIN:
            best, since, path.l2 = loss, 0, penalty
            for fold, one in zip(folds, current, strict=True):
                rows = torch.from_numpy(fold)
                path.held_out[rows] = one.utilities(features[rows])
        else:
            since += 1
            if since >= patience:
                break
    log.advance(phase, done=True)
    return path


def _unstick(current: Factors, start: Factors) -> Factors:
    """Continue from the last penalty; directions that are zero there get a small random start to grow from."""
    return replace(
        current,
        query_factors=current.query_factors + 0.1 * start.query_factors,
        model_factors=current.model_factors + 0.1 * start.model_factors,
    )


def mean_loss(batches: list[Batch], utilities: torch.Tensor, offsets: torch.Tensor | None = None) -> float:
    """Weighted mean log loss (nats)."""
    total = sum(float(batch.losses(utilities, offsets).sum()) for batch in batches)
    return total / max(sum(float(batch.weight.sum()) for batch in batches), 1e-12)


def first_source(outcomes: Outcomes) -> Outcomes:
    """The outcomes of the first source, the one that a router is for."""
    kept = outcomes.source == 0
    return Outcomes(**{item.name: getattr(outcomes, item.name)[kept] for item in fields(outcomes)})
