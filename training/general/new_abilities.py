"""New models join the general part of a trained router, from what the router stores: no general router is read.

The utility of a model in the general part is linear in its ability, so the stored columns of the known models, at their
stored abilities, tell the column of any other ability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..encoders.general_part import GeneralPart
from ..examples import Outcomes
from ..fit.factorization import losses
from ..fit.minimise import Array, minimise
from .prior import ability_gradient

#: Standard deviation of the ability of a new model around the mean of the pool.
_DEVIATION = 1.0
#: With abilities that are closer, which are stored with four decimals, nothing tells how utilities rise with ability.
_LEAST_RANGE = 0.01


def with_new_models(
    part: GeneralPart,
    ability: Array,
    features: npt.NDArray[np.floating],
    outcomes: Sequence[Outcomes],
    models: int,
    *,
    centre: bool,
) -> tuple[GeneralPart, Array]:
    """Place new models by their outcomes (maximum a posteriori), and give each a column of the part.

    Args:
        part: the general part of the known models.
        ability: (known,), their abilities. If all are the same, a new model gets the same, too.
        features: (k, d + 1), of the queries of the outcomes.
        outcomes: over all models, the known ones first.
        models: the number of all models.
        centre: the utilities of a query have the mean 0 over the models.

    Returns:
        The part of all models, and their abilities.
    """
    columns = np.vstack([part.weight, part.bias]).astype(np.float64)
    new = models - len(ability)
    if not new:
        return part, ability
    middle, step = _line(columns, ability)
    extended = np.column_stack([features, np.ones(len(features))])
    known, usual, slope = extended @ columns, extended @ middle, extended @ step

    def utilities(point: Array) -> Array:
        return np.concatenate([known, usual[:, None] + slope[:, None] * point], axis=1)

    def loss_and_gradient(point: Array) -> tuple[float, Array]:
        expected = utilities(point)
        loss, gradient = float(np.square(point / _DEVIATION).sum()) / 2, point / _DEVIATION**2
        for one in outcomes:
            loss += float(losses(one, expected).sum())
            gradient = gradient + ability_gradient(one, expected, slope, np.zeros(models))[-1 - new : -1]
        return loss, gradient

    moved = minimise(loss_and_gradient, np.zeros(new), 100)
    columns = np.concatenate([columns, middle[:, None] + step[:, None] * moved], axis=1)
    if centre:
        columns -= columns.mean(axis=1, keepdims=True)
    weight, bias = columns[:-1].astype(np.float32), columns[-1].astype(np.float32)
    return replace(part, weight=weight, bias=bias), np.concatenate([ability, ability.mean() + moved])


def _line(columns: Array, ability: Array) -> tuple[Array, Array]:
    """The column of the mean ability, and what a column gains with each unit of ability, both (d + 2,)."""
    middle, distance = columns.mean(axis=1), ability - ability.mean()
    if np.ptp(ability) < _LEAST_RANGE:
        return middle, np.zeros(len(columns))
    return middle, columns @ distance / (distance @ distance)
