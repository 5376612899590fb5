"""Calibration: scale utilities so that their sigmoids are probabilities, on queries that the fit did not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...routers.base import sigmoid
from ..examples import Ints, Outcomes
from .factorization import Array, logits
from .minimise import minimise

Method = Literal["none", "temperature", "platt"]
METHODS: tuple[Method, ...] = ("none", "temperature", "platt")


@dataclass(frozen=True)
class Calibration:
    """A utility u becomes ``slope * u + intercept``; the intercept cancels in a Bradley-Terry win rate.

    Attributes:
        method: "none", "temperature" (a slope: Guo et al. 2017) or "platt" (slope and intercept: Platt 1999).
        slope: above 0.
        intercept: in units of utility (logits).
        log_loss: cross-fitted log loss (nats) of each method that was tried, by its name.
    """

    method: Method
    slope: float
    intercept: float
    log_loss: dict[str, float]


def calibrate(utilities: Array, outcomes: list[Outcomes], seed: int) -> Calibration:
    """Choose and fit a calibration on held-out outcomes.

    Each method is fitted on one half of the queries and measured on the other, both ways. A method with more parameters
    is chosen only where its log loss is clearly lower.

    Args:
        utilities: float64 (n, m), of held-out queries.
        outcomes: their outcomes.
        seed: of the halves.
    """
    half = np.random.default_rng(seed).integers(0, 2, len(utilities)).astype(bool)
    plain = _Uncalibrated.of(utilities, outcomes)
    losses: dict[str, float] = {}
    for method in METHODS:
        total = weight = 0.0
        for held_out in (half, ~half):
            slope, intercept = _fit(plain.of_queries(~held_out), method)
            rest = plain.of_queries(held_out)
            total += float(rest.losses(slope, intercept).sum())
            weight += float(rest.weight.sum())
        losses[method] = total / max(weight, 1e-12)
    # One more parameter must gain more than one nat over all outcomes, as in Akaike's criterion: less is noise.
    least_gain = 1 / max(float(plain.weight.sum()), 1e-12)
    chosen: Method = "none"
    for method in METHODS:
        if losses[method] < losses[chosen] - least_gain:
            chosen = method
    slope, intercept = _fit(plain, chosen)
    return Calibration(chosen, slope, intercept, losses)


@dataclass(frozen=True)
class _Uncalibrated:
    """Outcomes, with their logits before calibration.

    Attributes:
        query: int64 (k,), row of the query.
        logit: float64 (k,); calibrated it is ``slope * logit + intercept * once``.
        once: float64 (k,), 1 for a performance and 0 for a preference, in which the intercept cancels.
        target: float64 (k,) in [0, 1].
        weight: float64 (k,).
    """

    query: Ints
    logit: Array
    once: Array
    target: Array
    weight: Array

    @classmethod
    def of(cls, utilities: Array, outcomes: list[Outcomes]) -> _Uncalibrated:
        return cls(
            np.concatenate([part.query for part in outcomes]),
            np.concatenate([logits(part, utilities) for part in outcomes]),
            np.concatenate([np.full(len(part), float(part.model.shape[1] == 1)) for part in outcomes]),
            np.concatenate([part.target for part in outcomes]).astype(np.float64),
            np.concatenate([part.weight for part in outcomes]).astype(np.float64),
        )

    def of_queries(self, kept: npt.NDArray[np.bool_]) -> _Uncalibrated:
        rows = kept[self.query]
        target, weight = self.target[rows], self.weight[rows]
        return _Uncalibrated(self.query[rows], self.logit[rows], self.once[rows], target, weight)

    def losses(self, slope: float, intercept: float) -> Array:
        """Weighted log loss (nats) of each outcome."""
        logit = slope * self.logit + intercept * self.once
        return np.asarray(self.weight * (np.logaddexp(0.0, logit) - self.target * logit), np.float64)


def calibrated_loss(utilities: Array, outcomes: list[Outcomes], calibration: Calibration) -> float:
    """Weighted mean log loss (nats) of outcomes, from calibrated utilities (n, m)."""
    plain = _Uncalibrated.of(utilities, outcomes)
    losses = plain.losses(calibration.slope, calibration.intercept)
    return float(losses.sum()) / max(float(plain.weight.sum()), 1e-12)


def _fit(plain: _Uncalibrated, method: Method) -> tuple[float, float]:
    if method == "none":
        return 1.0, 0.0
    once, target, weight = plain.once, plain.target, plain.weight

    def loss_and_gradient(point: Array) -> tuple[float, Array]:
        log_slope, intercept = point[0], point[1] if method == "platt" else 0.0
        logit = np.exp(log_slope) * plain.logit + intercept * once
        # A weak prior, worth one outcome, keeps the slope finite where a half is separable.
        loss = (log_slope**2 + intercept**2) / 2 + weight @ (np.logaddexp(0.0, logit) - target * logit)
        residual = weight * (sigmoid(logit) - target)
        gradient = [log_slope + np.exp(log_slope) * (residual @ plain.logit), intercept + residual @ once]
        return float(loss), np.asarray(gradient[: len(point)])

    found = minimise(loss_and_gradient, np.zeros(2 if method == "platt" else 1), 50)
    return float(np.exp(found[0])), float(found[1]) if method == "platt" else 0.0
