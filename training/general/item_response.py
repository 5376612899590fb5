"""The item response model: how hard a query is, and how able a model, from the outcomes of many sources.

The two-parameter logistic model in its form of slope and intercept (Birnbaum 1968; Lord and Novick, chapter 17), with
both parameters of an item predicted from the text of the query, so that a new query has them too:

    quality(q, m) = sigmoid(slope(q) · ability(m) + intercept(q) + level(s)),

    slope(q) = 1 + v · x(q)        how much better models differ from worse ones at this query
    intercept(q) = -(w · x(q))     how easy the query is
    difficulty(q) = -intercept(q) / slope(q)

x(q) are the features of the query, and level(s) is how much easier or harder the source s is than its text tells. A
preference follows Bradley-Terry with the same abilities, ``P(a wins) = sigmoid(scale(s) · slope(q) · (ability(a) -
ability(b)))``, where the scale of a source says how sharply its judge decides. Sources are linked by the models that
they share. (IRT-Router, arXiv 2506.01048, has the same logistic form and learns it from one benchmark.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...routers.base import sigmoid
from ..examples import Outcomes
from ..fit.minimise import Array, minimise

#: Penalty on the logarithm of a judge's scale.
SCALE_L2 = 10.0
#: Penalty on the mean ability: it only has to be finite where a source has no preference and no level.
_MEAN_L2 = 0.05
_ITERATIONS = 300
_TOLERANCE = 1e-8


@dataclass(frozen=True)
class ItemResponse:
    """A fitted item response model.

    Attributes:
        ability: (m,), of the models.
        slope: (f,), the weights of the slope; the slope of a query is 1 + features · weights.
        intercept: (f,), the weights of the intercept.
        level: (sources,), how much easier each source is than its text tells; 0 where it has preferences only.
        scale: (sources,), how sharply the judge of each source decides; 1 where it has performances only.
    """

    ability: Array
    slope: Array
    intercept: Array
    level: Array
    scale: Array

    def items(self, features: Array) -> Array:
        """Slope and intercept (n, 2) of queries, from their features (n, f)."""
        return np.stack([1 + features @ self.slope, features @ self.intercept], axis=1)


@dataclass(frozen=True)
class Penalties:
    """L2 penalties of the fit; see `GeneralConfig`."""

    difficulty: float
    discrimination: float
    level: float
    ability: float


def source_weights(
    parts: Sequence[Outcomes], sources: int, most_queries: int, preference_weight: float
) -> list[npt.NDArray[np.float64]]:
    """Weights of the outcomes of each part: the outcomes of a source weigh as much as its queries, up to a bound.

    Args:
        parts: performances and preferences.
        sources: number of sources.
        most_queries: a source counts as so many queries at most.
        preference_weight: factor of the weights of preferences.

    Returns:
        float64 (k,) for each part, which sum over a source to twice the number of its queries, or to twice the bound.
    """
    total = np.zeros(sources)
    pairs = []
    for part in parts:
        total += np.bincount(part.source, part.weight, sources)
        pairs.append(np.stack([part.source, part.query]))
    distinct = np.unique(np.concatenate(pairs, axis=1), axis=1)
    queries = np.minimum(np.bincount(distinct[0], minlength=sources), most_queries)
    each = 2 * queries / np.maximum(total, 1e-12)
    return [
        each[part.source] * part.weight * (preference_weight if part.model.shape[1] == 2 else 1.0) for part in parts
    ]


def fit_item_response(
    features: Array,
    parts: Sequence[Outcomes],
    weights: Sequence[Array],
    *,
    models: int,
    sources: int,
    penalties: Penalties,
) -> ItemResponse:
    """Fit the model by penalised maximum likelihood, with L-BFGS.

    Args:
        features: float64 (n, f), of the queries.
        parts: performances and preferences over the n queries.
        weights: of the outcomes of each part, as `source_weights` gives them.
        models: the number m of models.
        sources: the number of sources.
        penalties: L2 penalties.
    """
    loss = _Loss(features, list(zip(parts, weights, strict=True)), models, sources)
    shapes = {"ability": models, "mean": 1, "slope": features.shape[1], "intercept": features.shape[1]}
    shapes |= {"level": sources, "log_scale": sources}
    strength = {
        "ability": penalties.ability,
        "mean": _MEAN_L2,
        "slope": penalties.discrimination,
        "intercept": penalties.difficulty,
        "level": penalties.level,
        "log_scale": SCALE_L2,
    }
    cuts = np.cumsum(list(shapes.values()))[:-1]

    def named(flat: Array) -> dict[str, Array]:
        return dict(zip(shapes, np.split(flat, cuts), strict=True))

    def loss_and_gradient(flat: Array) -> tuple[float, Array]:
        point = named(flat)
        total, gradient = loss.at(point)
        for name, value in point.items():
            total += strength[name] / 2 * float(value @ value)
            gradient[name] = gradient[name] + strength[name] * value
        return total, np.concatenate([gradient[name] for name in shapes])

    found = named(minimise(loss_and_gradient, np.zeros(sum(shapes.values())), _ITERATIONS, _TOLERANCE))
    return ItemResponse(
        ability=found["mean"] + found["ability"],
        slope=found["slope"],
        intercept=found["intercept"],
        level=found["level"],
        scale=np.exp(found["log_scale"]),
    )


class _Loss:
    """The weighted log loss (nats) of all outcomes, with its gradient."""

    def __init__(self, features: Array, parts: list[tuple[Outcomes, Array]], models: int, sources: int) -> None:
        self._x = features
        self._parts = parts
        self._models, self._sources = models, sources

    def at(self, point: dict[str, Array]) -> tuple[float, dict[str, Array]]:
        ability = point["mean"] + point["ability"]
        slope, intercept = 1 + self._x @ point["slope"], self._x @ point["intercept"]
        scale = np.exp(point["log_scale"])
        n = len(slope)
        by_slope, by_intercept = np.zeros(n), np.zeros(n)
        gradient = {"ability": np.zeros(self._models)}
        gradient |= {name: np.zeros(self._sources) for name in ("level", "log_scale")}
        total = 0.0
        for part, weight in self._parts:
            query, source, paired = part.query, part.source, part.model.shape[1] == 2
            steepness = slope[query] * (scale[source] if paired else 1.0)
            difference = ability[part.model[:, 0]] - (ability[part.model[:, 1]] if paired else 0.0)
            logit = steepness * difference
            if not paired:
                logit = logit + intercept[query] + point["level"][source]
            small = np.exp(-np.abs(logit))
            total += float(weight @ (np.log1p(small) + np.maximum(logit, 0) - part.target * logit))
            residual = weight * (sigmoid(logit) - part.target)
            by_model = residual * steepness
            gradient["ability"] += np.bincount(part.model[:, 0], by_model, self._models)
            by_slope += np.bincount(query, residual * difference * (scale[source] if paired else 1.0), n)
            if paired:
                gradient["ability"] -= np.bincount(part.model[:, 1], by_model, self._models)
                gradient["log_scale"] += np.bincount(source, residual * logit, self._sources)
            else:
                by_intercept += np.bincount(query, residual, n)
                gradient["level"] += np.bincount(source, residual, self._sources)
        gradient["mean"] = gradient["ability"].sum(keepdims=True)
        gradient["slope"], gradient["intercept"] = self._x.T @ by_slope, self._x.T @ by_intercept
        return total, gradient
