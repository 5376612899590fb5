"""Calibration: make utilities mean probabilities, on queries that the fit did not see."""

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
    """u becomes ``slope * u + intercept``; an intercept cancels in a Bradley-Terry win rate.

    Attributes:
        method: "none"; "temperature" (Guo et al. 2017): a slope; "platt" (Platt 1999): both.
        slope: > 0.
        intercept: in utility units (logits).
        log_loss: cross-fitted log loss (nats) of each method tried, by its name.
    """

    method: Method
    slope: float
    intercept: float
    log_loss: dict[str, float]


def calibrate(utilities: torch.Tensor, batches: list[Batch], seed: int) -> Calibration:
    """Choose and fit a calibration on held-out outcomes.

    The method is chosen by log loss cross-fitted over two halves of the queries,
    simplest first, so that two parameters win only where they generalise.

    Args:
        utilities: (n, m) of held-out queries.
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
    # One more parameter must gain more than one nat over all outcomes, as in Akaike's criterion:
    # less is noise, and an intercept that cancels gains nothing.
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
        # A weak prior (one pseudo-outcome) keeps separable halves from an infinite slope.
        loss = (log_slope.square() + intercept.square()) / 2
        for batch in batches:
            loss = loss + batch.losses(calibrated)[kept[batch.query]].sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(log_slope.detach().exp()), float(intercept.detach())
