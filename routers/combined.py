"""Routers that combine other routers: two stages (fast first, better near the threshold), and the average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .assessment import Assessment
from .base import Policy, Router, ThresholdPolicy, check_router, decide_by, learned_rows
from .call_checks import check_contexts, check_policy
from .checks import check_number
from .decision import Context, Decision, Floats
from .errors import InputError
from .query import Query, query_list
from .threshold_table import threshold_table

#: The `Decision.cause` of queries that the second router scored.
SECOND = "second-stage"


def check_routers(routers: object) -> None:
    """Refuse what is no list of routers.

    Raises:
        InputError: it is none; the message says what to write.
    """
    if isinstance(routers, (Router, str)) or not isinstance(routers, Sequence):
        raise InputError(f"routers is {routers!r:.80}; expected a list of routers")
    for router in routers:
        check_router(router, "a router")


def check_same_decision(first: Router, second: Router) -> None:
    """Refuse two routers whose scores do not mean the same.

    Raises:
        InputError: the routers differ in strong, weak, link or pool.
    """
    for name in ("strong", "weak", "link"):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs:
            raise InputError(f"{name} is {ours!r} in one router and {theirs!r} in another; expected the same in both")
    if set(first.models) != set(second.models):
        raise InputError(f"one router has the pool {list(first.models)}, another {list(second.models)}")


class TwoStageRouter(Router):
    """Scores all queries with a fast router, and those near the threshold again with a better router.

    Far from the threshold, a better score would rarely change the decision. The band around the threshold holds a
    given share of the queries: with 0.2, the second router scores one query in five. (The share holds for queries
    like those of the first router's threshold table.) Both scores are calibrated win rates of the same two models,
    so both are compared with the same threshold.

    `score` and `quality` use the band around the default threshold. So does a `FallbackRouter` around this router,
    whatever its policy.

    Attributes:
        first: the fast router.
        second: the better router.
        share: the share of queries that the second router scores.

    Example:
        >>> import routelearn
        >>> from routelearn.routers import TwoStageRouter
        >>> fast = better = routelearn.load("router/")  # in real use, `better` is a bert or frozen router
        >>> TwoStageRouter(fast, better, share=0.2).route("What is 2 + 2?").source
        'learned'
    """

    def __init__(self, first: Router, second: Router, *, share: float = 0.2, threshold: float | None = None) -> None:
        """Check that both routers score the same decision.

        Args:
            first: the fast router; it needs a threshold table.
            second: the better router, with the same strong model, weak model and link.
            share: the share of queries that the second router scores, above 0 and below 1.
            threshold: the default threshold; None: the first router's.

        Raises:
            InputError: the routers score different decisions, the first was never calibrated, or share is out of range.
        """
        check_routers([first, second])
        check_number("share", share, "a number above 0 and below 1")
        if not 0 < share < 1:
            raise InputError(f"share is {share}; expected a number above 0 and below 1")
        check_same_decision(first, second)
        if not first.threshold_table:
            raise InputError(
                "the first router has no threshold table; expected a calibrated router, whose table gives the band"
            )
        super().__init__(
            first.pool,
            first.strong,
            first.weak,
            link=first.link,
            threshold=first.threshold if threshold is None else threshold,
            threshold_table=first.threshold_table,
        )
        self.first = first
        self.second = second
        self.share = share
        self._columns = [second.index(name) for name in first.models]
        self.novelty_bound = first.novelty_bound

    def band(self, threshold: float) -> float:
        """Compute half the width of the band that holds `share` of the calibration scores around the threshold."""
        shares, values = (np.asarray(column) for column in zip(*self.threshold_table, strict=True))
        rising = np.clip(values[::-1], 0, 1)  # scores at or above values[i] have the share shares[i]

        def above(score: float) -> float:
            return float(np.interp(score, rising, shares[::-1]))

        low, high = 0.0, 1.0
        for _ in range(40):  # the share inside grows with the width
            middle = (low + high) / 2
            inside = above(threshold - middle) - above(threshold + middle)
            low, high = (middle, high) if inside < self.share else (low, middle)
        return high

    def quality(self, queries: Sequence[Query]) -> Floats:
        return self.assess(queries).quality

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        return self._assess(queries, contexts, self.threshold)

    def route_batch(
        self,
        queries: Sequence[Query],
        policy: Policy | None = None,
        contexts: Sequence[Context] | None = None,
    ) -> list[Decision]:
        queries = query_list(queries)
        check_policy(policy)
        if contexts is not None:
            check_contexts(contexts, len(queries))
        # The band lies around the policy's threshold, if the policy is one.
        threshold = policy.threshold_of(self) if isinstance(policy, ThresholdPolicy) else self.threshold
        assessment = self._assess(queries, contexts, threshold)
        return decide_by(policy, self, assessment, contexts)

    def _assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None, threshold: float) -> Assessment:
        queries = query_list(queries)
        assessment = self.first.assess(queries, contexts)
        scores = self.scores_of(assessment)
        near = self._close(assessment, scores, threshold)
        if not len(near):
            return assessment
        some = [contexts[row] for row in near] if contexts else None
        second = self.second.assess([queries[row] for row in near], some)
        second = replace(second, quality=second.quality[:, self._columns])
        # Where something else answered for the second router, the first one's score stands.
        answered = learned_rows(second)
        second, rows = second.rows(answered), near[answered].tolist()
        rescored = self.scores_of(second).tolist()
        second.causes = [SECOND] * len(rows)
        second.reasons = [
            f"score {score:.4f} by the second router is {'at or above' if score >= threshold else 'below'} threshold "
            f"{threshold:.4f}; the first, {scores[row]:.4f}, was close to it"
            for row, score in zip(rows, rescored, strict=True)
        ]
        return assessment.replaced(rows, second)

    def _close(self, assessment: Assessment, scores: Floats, threshold: float) -> npt.NDArray[np.int64]:
        """List the rows in the band. Rows with a threshold of their own (another router's) stay as they are."""
        inside = np.abs(scores - threshold) <= self.band(threshold)
        if assessment.thresholds is not None:
            inside &= np.isnan(assessment.thresholds)
        return np.flatnonzero(inside)


class AverageRouter(Router):
    """Averages the qualities that several routers predict.

    The errors of routers that learned in different ways (a matrix factorization and a transformer, or two encoders)
    partly cancel (Dietterich 2000, "Ensemble methods in machine learning").

    Attributes:
        routers: the k routers.
        weights: float32 (k,), the weight of each router; they sum to 1.

    Example:
        >>> import routelearn
        >>> from routelearn.routers import AverageRouter
        >>> members = [routelearn.load("router/"), routelearn.load("router/")]  # in real use: different routers
        >>> AverageRouter(members, weights=[3, 1]).weights.tolist()
        [0.75, 0.25]
    """

    def __init__(
        self,
        routers: Sequence[Router],
        *,
        weights: Sequence[float] | None = None,
        queries: Sequence[Query] = (),
        threshold: float | None = None,
    ) -> None:
        """Check that all routers score the same decision.

        Args:
            routers: k routers with the same pool, strong model, weak model and link. The first measures novelty.
            weights: k numbers above 0; None: all routers count alike.
            queries: unlabelled queries like those to come, which the routers were not trained on. The threshold table
                is made from their scores. Without queries there is no table, because averages spread less than the
                scores of one router.
            threshold: the default threshold; None: the weighted average of the routers' thresholds.

        Raises:
            InputError: there is no router, the weights do not fit, or the routers score different decisions.
        """
        check_routers(routers)
        queries = query_list(queries)
        if not routers:
            raise InputError("no routers were given; expected one or more")
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
        self.novelty_bound = first.novelty_bound
        self._columns = [[router.index(name) for name in self.models] for router in routers]
        if len(queries):
            self.threshold_table = tuple(threshold_table(self.score(queries)))

    def quality(self, queries: Sequence[Query]) -> Floats:
        return self.assess(queries).quality

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        """See `Router.assess`.

        A query is truncated where one of the routers does not read all of it. A row that something else answers in the
        place of one of them is that router's row: such qualities are on another scale, so they are not averaged.
        """
        queries = query_list(queries)
        parts = [
            replace(part, quality=part.quality[:, columns])
            for part, columns in zip(
                [router.assess(queries, contexts) for router in self.routers], self._columns, strict=True
            )
        ]
        average = self._weighted_sum([part.quality for part in parts])
        truncated = np.logical_or.reduce([part.truncated for part in parts])
        result = replace(parts[0], quality=average, truncated=truncated)
        for part in parts:
            own = set(learned_rows(part))
            others = [row for row in range(len(queries)) if row not in own]
            if others:
                result = result.replaced(others, part.rows(others))
        return result

    def _weighted_sum(self, qualities: Sequence[Floats]) -> Floats:
        total: Floats = np.sum([weight * part for weight, part in zip(self.weights, qualities, strict=True)], axis=0)
        return np.clip(total, 0, 1)  # rounding may bring the sum above 1
