"""What the label of a prompt is expected to tell, before it is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..routers.base import Router
from ..routers.general import GeneralRouter
from ..routers.loading import load
from ..routers.query import Query
from .sampling import Array

#: The smallest usefulness, beside the largest of 1.
_LEAST = 0.05


def usefulness_of(router: Router, queries: Sequence[Query]) -> Array:
    """How useful the labels of n queries are expected to be, (n,) above 0 and at most 1.

    It is the product of two things. The spread of the gain: where one model is expected to be right and the other one
    wrong, in either direction, the label tells most (Neyman 1934). And the nearness of the score to the router's
    threshold, where a label can change the decision: from 1 far away to 2 at the threshold. The score is taken to
    be as uncertain as the trained and the general router disagree. Nearness alone would leave out most of what APGR
    measures.

    Args:
        router: the router so far.
        queries: n queries.
    """
    quality = np.asarray(router.quality(queries), np.float64)
    strong, weak = quality[:, router.index(router.strong)], quality[:, router.index(router.weak)]
    spread = np.sqrt(strong * (1 - weak) + weak * (1 - strong))
    score = np.asarray(router.score(queries), np.float64)
    width = np.maximum(score.std() + _disagreement(router, queries, score), 1e-6)
    near = np.exp(-np.square((score - router.threshold) / width) / 2)
    found = spread * (1 + near)
    return np.asarray(np.maximum(found / max(float(found.max()), 1e-12), _LEAST))


def _disagreement(router: Router, queries: Sequence[Query], score: Array) -> Array:
    """How far the general router's score is from the router's, (n,), on the scale of the router's scores."""
    if isinstance(router, GeneralRouter):
        return np.zeros(len(score))
    general = load("general", strong=router.strong, weak=router.weak)
    other = np.asarray(general.score(queries), np.float64)
    spread = float(other.std())
    standard = (other - other.mean()) / spread * score.std() if spread > 1e-9 else np.zeros(len(score))
    return np.asarray(np.abs(score - score.mean() - standard))
