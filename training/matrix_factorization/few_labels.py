"""Utilities from few labels: weights under a Gaussian prior that does not depend on the data.

The path of penalties chooses its penalty on held-out queries. With some hundreds of labels that choice is mostly noise.
Here the prior is fixed: the weights of all models share a part, and each model has a part of its own,

    W[:, m] = shared + own[:, m],   shared ~ N(0, 1 / SHARED_L2),   own ~ N(0, 1 / OWN_L2).

Its utilities are averaged with those of the path, and count less the more labels there are. Both penalties and the
share were chosen on sources of the general router (benchmarks/adaptation.py, --development).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..examples import Examples
from ..fit.factorization import Array, Factors, Problem
from ..fit.minimise import minimise

SHARED_L2, OWN_L2 = 3.0, 4.0
#: So many labelled queries make the share of the path one half.
HALF = 500
#: Beyond so many labelled queries the share of the prior is below a tenth, and it is left out.
MOST_QUERIES = 4500
_ITERATIONS = 200


def share_of_path(queries: int) -> float:
    """The weight of the path's utilities beside those of the prior, for a number of labelled queries."""
    return 1.0 if queries > MOST_QUERIES else queries / (queries + HALF)


def fit_weights(features: Array, examples: Examples, kept: npt.NDArray[np.bool_], ranking: Factors) -> Array:
    """Fit weights (f, m) to the outcomes of some queries; utilities are ``features @ weights + bias of the ranking``.

    Args:
        features: float64 (n, f).
        examples: outcomes over the n queries.
        kept: bool (n,), the queries whose outcomes count.
        ranking: the global ranking of the same outcomes, which stays as it is.
    """
    models = len(examples.models)
    parts = [part.of_queries(kept) for part in (examples.preferences, examples.performances)]
    problem = Problem(features, [part for part in parts if len(part)], models)
    shape = (features.shape[1], 1 + models)
    weight_of_part = np.concatenate([np.ones((models, 1)), np.eye(models)], axis=1)
    penalty = np.array([SHARED_L2, *[OWN_L2] * models])

    def loss_and_gradient(point: Array) -> tuple[float, Array]:
        parts = point.reshape(shape)
        loss, _, _, gradient, _ = problem.loss(ranking.bias, ranking.offsets, parts, weight_of_part)
        return float(loss + (penalty * np.square(parts)).sum() / 2), (gradient + penalty * parts).ravel()

    return minimise(loss_and_gradient, np.zeros(shape).ravel(), _ITERATIONS).reshape(shape) @ weight_of_part.T
