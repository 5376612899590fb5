"""Calibration: scale utilities so that their sigmoids are probabilities, on queries that the fit did not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from .factorization import Batch

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


def calibrate(utilities: torch.Tensor, batches: list[Batch], seed: int) -> Calibration:
    """Choose and fit a calibration on held-out outcomes.

    Each method is fitted on one half of the queries and measured on the other, both ways. A method with more parameters
    is chosen only where its log loss is clearly lower.

    Args:
        utilities: float64 (n, m), of held-out queries.
        batches: their outcomes.
        seed: of the halves.
    """
    half = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, len(utilities)).astype(bool))
    losses: dict[str, float] = {}
    for method in METHODS:
        total = weight = 0.0
        for held_out in (half, ~half):
            slope, intercept = _fit(utilities, batches, ~held_out, method)
            for batch in batches:
                rows = held_out[batch.query]
                total += float(batch.losses(slope * utilities + intercept)[rows].sum())
                weight += float(batch.weight[rows].sum())
        losses[method] = total / max(weight, 1e-12)
    # One more parameter must gain more than one nat over all outcomes, as in Akaike's criterion: less is noise.
    least_gain = 1 / max(sum(float(batch.weight.sum()) for batch in batches), 1e-12)
    chosen: Method = "none"
    for method in METHODS:
        if losses[method] < losses[chosen] - least_gain:
            chosen = method
    slope, intercept = _fit(utilities, batches, torch.ones_like(half), chosen)
    return Calibration(chosen, slope, intercept, losses)


def _fit(utilities: torch.Tensor, batches: list[Batch], kept: torch.Tensor, method: Method) -> tuple[float, float]:
    if method == "none":
        return 1.0, 0.0
    log_slope = torch.zeros((), dtype=torch.float64, requires_grad=True)
    intercept = torch.zeros((), dtype=torch.float64, requires_grad=True)
    parameters = [log_slope] if method == "temperature" else [log_slope, intercept]
    optimiser = torch.optim.LBFGS(parameters, max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        calibrated = log_slope.exp() * utilities + intercept
        # A weak prior, worth one outcome, keeps the slope finite where a half is separable.
        loss = (log_slope.square() + intercept.square()) / 2
        for batch in batches:
            loss = loss + batch.losses(calibrated)[kept[batch.query]].sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(log_slope.detach().exp()), float(intercept.detach())
