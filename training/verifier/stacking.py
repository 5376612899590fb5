"""The last step of a verifier: what utility and features together say, fitted on answers that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...routers.base import Floats
from ..fit.metrics import Array, auroc, expected_calibration_error, log_loss

#: Folds of the held-out answers, for what is measured of this step.
CROSS_FITS = 5


@dataclass(frozen=True)
class Stack:
    """``sigmoid(slope * utility + weights . features + intercept)``: stacking (Wolpert 1992) and Platt scaling in one.

    Attributes:
        slope: of the transformer's utility.
        weights: of the k features.
        intercept: in logits.
    """

    slope: float
    weights: tuple[float, ...]
    intercept: float

    def confidence(self, utilities: Array, features: Floats) -> Array:
        """P(good enough): float64 (n,)."""
        logit = self.slope * utilities + features.astype(np.float64) @ np.asarray(self.weights) + self.intercept
        return np.asarray(1 / (1 + np.exp(-logit)))


def fit_stack(utilities: Array, features: Floats, good: npt.NDArray[np.bool_], weight: Array) -> Stack:
    """Fit weights of the utility and the features by logistic regression, on answers that the network did not see."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    columns = np.column_stack([utilities, features])
    scaler: Any = StandardScaler()
    regression: Any = LogisticRegression(C=1.0, max_iter=1000)
    # Only how the weights compare matters: their size would compete with the penalty.
    regression.fit(scaler.fit_transform(columns), good, sample_weight=weight / weight.mean())
    weights = regression.coef_[0] / scaler.scale_
    intercept = float(regression.intercept_[0] - weights @ scaler.mean_)
    return Stack(float(weights[0]), tuple(map(float, weights[1:])), intercept)


def cross_fitted(
    utilities: Array, features: Floats, good: npt.NDArray[np.bool_], weight: Array, keys: Sequence[str], seed: int
) -> Array:
    """Confidence (n,) of each held-out answer by a stack that was fitted without its query."""
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
    """What the confidence of n answers is worth."""
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
    """(escalation rate, threshold) pairs by rising rate: confidence below the threshold escalates."""
    rates = np.linspace(0, 1, steps + 1)
    # The lower quantile: at most the rate lies below the threshold, but for ties.
    thresholds = np.quantile(confidence, rates, method="lower")
    thresholds[0], thresholds[-1] = 0.0, np.nextafter(1.0, 2.0)
    return [(float(rate), float(value)) for rate, value in zip(rates, thresholds, strict=True)]
