"""The average of several routers: a better score, at the cost of asking all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..policies.threshold import threshold_table
from .base import Assessment, Context, Floats, Router
from .combined import check_same_decision
from .errors import InputError
from .query import Query


class AverageRouter(Router):
    """Averages the qualities that several routers expect of every model.

    The errors of routers that learned in different ways (a matrix factorization and a transformer, two encoders) partly
    cancel (Dietterich 2000, "Ensemble methods in machine learning").

    Attributes:
        routers: those that are averaged.
        weights: float32 (k,), of each; they sum to 1.
    """

    def __init__(
        self,
        routers: Sequence[Router],
        *,
        weights: Sequence[float] | None = None,
        queries: Sequence[Query] = (),
        threshold: float | None = None,
    ) -> None:
        """Check that all speak of the same decision.

        Args:
            routers: k routers, of the same pool, strong and weak model and link. Novelty is measured by the first.
            weights: one above 0 for each; None: all alike.
            queries: unlabelled ones like those to come, which the routers were not trained on. From their scores the
                threshold table is taken; without them there is none, since averages spread less than what they are of.
            threshold: the default threshold; None: the weighted average of the routers' own.

        Raises:
            InputError: no routers, weights that do not fit, or routers of different decisions.
        """
        if not routers:
            raise InputError("an average needs one router at least")
        raw = np.ones(len(routers)) if weights is None else np.asarray(weights, np.float64)
        if raw.shape != (len(routers),) or not (np.isfinite(raw).all() and (raw > 0).all()):
            raise InputError(f"weights are {weights}; expected {len(routers)} numbers above 0, one for each router")
        first = routers[0]
        for other in routers[1:]:
            check_same_decision(first, other)
        shares = raw / raw.sum()
        if threshold is None:
            threshold = float(shares @ [router.threshold for router in routers])
        super().__init__(first.pool, first.strong, first.weak, link=first.link, threshold=threshold)
        self.routers = tuple(routers)
        self.weights: Floats = shares.astype(np.float32)
        self.novelty_bound: float | None = getattr(first, "novelty_bound", None)
        self._columns = [[router.index(name) for name in self.models] for router in routers]
        if len(queries):
            self.threshold_table = tuple(threshold_table(self.score(queries)))

    def quality(self, queries: Sequence[Query]) -> Floats:
        """See `Router.quality`."""
        return self._average([router.quality(queries) for router in self.routers])

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        """See `Router.assess`; a query is truncated where one of the routers does not read all of it."""
        found = [router.assess(queries, contexts) for router in self.routers]
        truncated = np.logical_or.reduce([one.truncated for one in found])
        return Assessment(self._average([one.quality for one in found]), truncated, found[0].novelty)

    def _average(self, qualities: Sequence[Floats]) -> Floats:
        parts = zip(self.weights, qualities, self._columns, strict=True)
        total: Floats = np.sum([weight * quality[:, columns] for weight, quality, columns in parts], axis=0)
        return np.clip(total, 0, 1)  # a sum of rounded weights may end beyond
