"""Calibration: scale utilities so that their sigmoids are probabilities, on queries that the fit did not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..examples import Outcomes
from .factorization import Array, logits, sigmoid
from .factorization import losses as log_losses
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
    losses: dict[str, float] = {}
    for method in METHODS:
        total = weight = 0.0
        for held_out in (half, ~half):
            slope, intercept = _fit(utilities, outcomes, ~held_out, method)
            for part in outcomes:
                rows = held_out[part.query]
                total += float(log_losses(part, slope * utilities + intercept)[rows].sum())
                weight += float(part.weight[rows].sum())
        losses[method] = total / max(weight, 1e-12)
    # One more parameter must gain more than one nat over all outcomes, as in Akaike's criterion: less is noise.
    least_gain = 1 / max(sum(float(part.weight.sum()) for part in outcomes), 1e-12)
    chosen: Method = "none"
    for method in METHODS:
        if losses[method] < losses[chosen] - least_gain:
            chosen = method
    slope, intercept = _fit(utilities, outcomes, np.ones_like(half), chosen)
    return Calibration(chosen, slope, intercept, losses)


def _fit(
    utilities: Array, outcomes: list[Outcomes], kept: npt.NDArray[np.bool_], method: Method
) -> tuple[float, float]:
    if method == "none":
        return 1.0, 0.0
    parts = [part.of_queries(kept) for part in outcomes]
    # A logit is slope * plain + intercept * once; the intercept cancels in a preference.
    plain = np.concatenate([logits(part, utilities) for part in parts])
    once = np.concatenate([np.full(len(part), float(part.model.shape[1] == 1)) for part in parts])
    target, weight = (
        np.concatenate([getattr(part, name) for part in parts]).astype(np.float64) for name in ("target", "weight")
    )

    def loss_and_gradient(point: Array) -> tuple[float, Array]:
        log_slope, intercept = point[0], point[1] if method == "platt" else 0.0
        logit = np.exp(log_slope) * plain + intercept * once
        # A weak prior, worth one outcome, keeps the slope finite where a half is separable.
        loss = (log_slope**2 + intercept**2) / 2 + weight @ (np.logaddexp(0.0, logit) - target * logit)
        residual = weight * (sigmoid(logit) - target)
        gradient = [log_slope + np.exp(log_slope) * (residual @ plain), intercept + residual @ once]
        return float(loss), np.asarray(gradient[: len(point)])

    found = minimise(loss_and_gradient, np.zeros(2 if method == "platt" else 1), 50)
    return float(np.exp(found[0])), float(found[1]) if method == "platt" else 0.0
