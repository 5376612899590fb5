"""The last step of a verifier: it combines utility and features, and is fitted on answers not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...routers.decision import Floats
from ..fit.metrics import Array, auroc, expected_calibration_error, log_loss

#: Folds of the held-out answers over which this step is cross-fitted, for its metrics.
CROSS_FITS = 5


@dataclass(frozen=True)
class Stack:
    """Weights of ``sigmoid(slope * utility + weights . features + intercept)``.

    This is stacking (Wolpert 1992) and Platt scaling in one step.

    Attributes:
        slope: weight of the transformer's utility.
        weights: weights of the k features.
        intercept: intercept, in logits.
    """

    slope: float
    weights: tuple[float, ...]
    intercept: float

    def confidence(self, utilities: Array, features: Floats) -> Array:
        """P(good enough): float64 (n,)."""
        logit = self.slope * utilities + features.astype(np.float64) @ np.asarray(self.weights) + self.intercept
        return np.asarray(1 / (1 + np.exp(-logit)))


def fit_stack(utilities: Array, features: Floats, good: npt.NDArray[np.bool_], weight: Array) -> Stack:
    """Fit a stack by logistic regression.

    Args:
        utilities: the transformer's utilities (n,) of answers that it was not trained on.
        features: features of the answers (n, k).
        good: whether each answer is good enough, bool (n,).
        weight: weights of the answers (n,). Only their ratios matter.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    columns = np.column_stack([utilities, features])
    scaler: Any = StandardScaler()
    regression: Any = LogisticRegression(C=1.0, max_iter=1000)
    # The weights are brought to a mean of 1, because larger weights would weaken the penalty.
    regression.fit(scaler.fit_transform(columns), good, sample_weight=weight / weight.mean())
    weights = regression.coef_[0] / scaler.scale_
    intercept = float(regression.intercept_[0] - weights @ scaler.mean_)
    return Stack(float(weights[0]), tuple(map(float, weights[1:])), intercept)


def cross_fitted(
    utilities: Array, features: Floats, good: npt.NDArray[np.bool_], weight: Array, keys: Sequence[str], seed: int
) -> Array:
    """Compute the confidence of each held-out answer by a stack that was fitted without answers to the same query.

    Args:
        utilities: the transformer's utilities (n,).
        features: features of the answers (n, k).
        good: whether each answer is good enough, bool (n,).
        weight: weights of the answers (n,).
        keys: key of each answer's query.
        seed: seed of the folds.

    Returns:
        Confidence, float64 (n,) in [0, 1].
    """
    distinct = sorted(set(keys))
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold_of = {distinct[i]: place % CROSS_FITS for place, i in enumerate(order.tolist())}
    fold = np.asarray([fold_of[key] for key in keys])
    confidence = np.zeros(len(keys))
    for number in range(CROSS_FITS):
        inside, outside = fold == number, fold != number
        if not inside.any():
            continue
        if good[outside].all() or not good[outside].any():
            confidence[inside] = good[outside].mean()
            continue
        stack = fit_stack(utilities[outside], features[outside], good[outside], weight[outside])
        confidence[inside] = stack.confidence(utilities[inside], features[inside])
    return confidence


def measured(confidence: Array, good: npt.NDArray[np.bool_], models: Sequence[str]) -> dict[str, Any]:
    """Metrics of the confidence of n answers, by name."""
    labels = good.astype(np.float64)
    base = np.full(len(good), labels.mean())
    metrics: dict[str, Any] = {
        "held-out answers": len(good),
        "good enough": float(labels.mean()),
        "AUROC": auroc(confidence, good),
        "ECE": expected_calibration_error(confidence, labels),
        "Brier score": float(np.mean((confidence - labels) ** 2)),
        "log loss": float(log_loss(confidence, labels).mean()),
        "log loss of the base rate": float(log_loss(base, labels).mean()),
    }
    names = np.asarray(models)
    for name in sorted(set(models)) if len(set(models)) > 1 else []:
        value = auroc(confidence[names == name], good[names == name])
        if not np.isnan(value):
            metrics[f"AUROC, {name}"] = value
    return metrics


def escalation_table(confidence: Array, steps: int = 20) -> list[tuple[float, float]]:
    """Pairs (escalation rate, threshold) by rising rate: a confidence below the threshold is escalated."""
    rates = np.linspace(0, 1, steps + 1)
    # The lower quantile: the share below the threshold is at most the rate.
    thresholds = np.quantile(confidence, rates, method="lower")
    thresholds[0], thresholds[-1] = 0.0, np.nextafter(1.0, 2.0)
    return [(float(rate), float(value)) for rate, value in zip(rates, thresholds, strict=True)]
