"""Two stages: a fast router decides, a better one only where the fast one's score is close to the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..policies.threshold import Policy, ThresholdPolicy, decide_by
from .base import THRESHOLD, Assessment, Context, Decision, Floats, Router, win_rate
from .errors import InputError
from .query import Query

#: `Decision.cause` of the queries that the second router was asked about.
SECOND = "second-stage"


def check_same_decision(first: Router, second: Router) -> None:
    """Refuse two routers whose scores mean different things.

    Raises:
        InputError: they are of different models or links.
    """
    for name in ("strong", "weak", "link"):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs:
            raise InputError(f"{name} is {ours!r} in one router and {theirs!r} in another")
    if set(first.models) != set(second.models):
        raise InputError(f"one router has the pool {list(first.models)}, another {list(second.models)}")


class TwoStageRouter(Router):
    """Asks `second` only about queries whose score by `first` lies in a band around the threshold.

    Far from the threshold both routers agree mostly, and a better score would
    not change the decision. The band holds a given share of queries like those
    that `first` was calibrated on (its threshold table): with 0.2 the second
    router runs for one query in five. Its scores are compared with the same
    threshold: both are calibrated win rates of the same two models.

    `score` and `quality` use the band around the default threshold; so does a
    `FallbackRouter` around this router, whatever the policy.

    Attributes:
        first: the fast router.
        second: the better one.
        share: the share of queries that the second is asked about.
    """

    def __init__(self, first: Router, second: Router, *, share: float = 0.2, threshold: float | None = None) -> None:
        """Check that the two speak of the same decision.

        Args:
            first: the fast router, with a threshold table.
            second: the better router, of the same strong and weak model and the same link.
            share: the share of queries that go to the second, in (0, 1).
            threshold: the default threshold; None: the first's.

        Raises:
            InputError: they are of different models or links, the first was never calibrated, or share is out of range.
        """
        if not 0 < share < 1:
            raise InputError(f"share is {share}; expected a share of the queries between 0 and 1")
        check_same_decision(first, second)
        if not first.threshold_table:
            raise InputError("the first router has no threshold table, which says how wide the band must be")
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
        self.novelty_bound: float | None = getattr(first, "novelty_bound", None)

    def band(self, threshold: float) -> float:
        """Half the width of the band: `share` of the calibration scores lie within it of the threshold."""
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
        """See `Router.quality`."""
        return self.assess(queries).quality

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        """See `Router.assess`; with the band around the default threshold."""
        return self._assess(queries, contexts, self.threshold)

    def route_batch(
        self,
        queries: Sequence[Query],
        policy: Policy | None = None,
        contexts: Sequence[Context] | None = None,
    ) -> list[Decision]:
        """See `Router.route_batch`; with the band around the policy's threshold, where it is one."""
        threshold = policy.threshold_of(self) if isinstance(policy, ThresholdPolicy) else self.threshold
        assessment = self._assess(queries, contexts, threshold)
        return decide_by(policy, self, assessment, contexts)

    def _assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None, threshold: float) -> Assessment:
        found = self.first.assess(queries, contexts)
        scores = self.scores_of(found)
        rows = self._close(found, scores, threshold)
        if not len(rows):
            return found
        some = [contexts[row] for row in rows] if contexts else None
        again = self.second.assess([queries[row] for row in rows], some)
        better = again.quality[:, self._columns]
        quality, truncated = found.quality.copy(), found.truncated.copy()
        quality[rows], truncated[rows] = better, again.truncated
        strong, weak = self.index(self.strong), self.index(self.weak)
        rescored = win_rate(better[:, strong], better[:, weak], self.link)
        reasons = list(found.reasons or [""] * len(queries))
        causes = list(found.causes or [THRESHOLD] * len(queries))
        for row, score in zip(rows.tolist(), rescored.tolist(), strict=True):
            side = "at or above" if score >= threshold else "below"
            reasons[row] = (
                f"score {score:.4f} by the second router is {side} threshold {threshold:.4f}; the first, "
                f"{scores[row]:.4f}, was close to it"
            )
            causes[row] = SECOND
        return replace(found, quality=quality, truncated=truncated, reasons=reasons, causes=causes)

    def _close(self, found: Assessment, scores: Floats, threshold: float) -> npt.NDArray[np.int64]:
        """The rows in the band; those that have a threshold of their own (rules decided) stay as they are."""
        inside = np.abs(scores - threshold) <= self.band(threshold)
        if found.thresholds is not None:
            inside &= np.isnan(found.thresholds)
        return np.flatnonzero(inside)
