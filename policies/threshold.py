"""Policies: how an assessment becomes decisions, mostly by a threshold on the score.

Rows that the rules answered in the place of the learned router keep the rules'
own decision under every policy: qualities there are on no calibrated scale.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ..routers.errors import InputError

if TYPE_CHECKING:
    from ..routers.base import Assessment, Context, Decision, Router


class Policy(Protocol):
    """Chooses a model for each query of a batch from what a router knows of them."""

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """One decision a row of the assessment; the contexts are those of the requests, in the same order."""
        ...


def decide_by(
    policy: Policy | None, router: Router, assessment: Assessment, contexts: Sequence[Context] | None
) -> list[Decision]:
    """The decisions of a policy, or those at the router's own threshold where there is none."""
    if policy is None:
        return router.decide(assessment, router.threshold)
    return policy.decide(router, assessment, contexts)


def learned_rows(assessment: Assessment) -> list[int]:
    """The rows that the learned router answered itself, rising."""
    if assessment.sources is None:
        return list(range(len(assessment.quality)))
    return [row for row, source in enumerate(assessment.sources) if source == "learned"]


class ThresholdPolicy(ABC):
    """A policy that is one threshold on the score."""

    @abstractmethod
    def threshold_of(self, router: Router) -> float:
        """The threshold: score at or above it goes to strong."""

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """See `Policy.decide`."""
        del contexts
        if getattr(router, "learned", router) is None:
            # A FallbackRouter without a bundle: every row has the rules' threshold, and there is none to look up.
            return router.decide(assessment, router.threshold)
        return router.decide(assessment, self.threshold_of(router))


@dataclass(frozen=True, slots=True)
class Threshold(ThresholdPolicy):
    """A threshold by value: 0 sends everything to strong, above 1 nothing."""

    value: float

    def __post_init__(self) -> None:
        """Refuse what cannot be compared with a score."""
        if not math.isfinite(self.value):
            raise InputError(f"threshold is {self.value}; expected a finite number")

    def threshold_of(self, router: Router) -> float:
        """The value, whatever the router."""
        del router
        return self.value


@dataclass(frozen=True, slots=True)
class StrongShare(ThresholdPolicy):
    """A threshold by the share of queries that should go to strong, in [0, 1].

    The share holds for queries like those the router was calibrated on;
    `routelearn calibrate` measures the table on yours.
    """

    share: float

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if not 0 <= self.share <= 1:
            raise InputError(f"strong share is {self.share}; expected a number from 0 to 1")

    def threshold_of(self, router: Router) -> float:
        """Interpolate the router's threshold table.

        Raises:
            InputError: the router was never calibrated.
        """
        if not router.threshold_table:
            raise InputError("this router has no threshold table; give a threshold by value")
        return self.threshold_in(router.threshold_table)

    def threshold_in(self, table: Sequence[tuple[float, float]]) -> float:
        """Interpolate a threshold table, which has at least one row."""
        if self.share == 0:
            return math.nextafter(1.0, 2.0)
        if self.share == 1:
            return 0.0
        shares, thresholds = zip(*table, strict=True)
        return float(np.interp(self.share, shares, thresholds))


def share_threshold(scores: npt.NDArray[np.floating], share: float) -> float:
    """The threshold that this share of the scores (n,) is at or above, to within one score and but for ties."""
    if share <= 0:
        return math.nextafter(1.0, 2.0)
    if share >= 1:
        return 0.0
    return float(np.quantile(np.asarray(scores, np.float64), 1 - share, method="higher"))


def threshold_table(scores: npt.NDArray[np.floating], steps: int = 20) -> list[tuple[float, float]]:
    """Measure the threshold of every strong share on a set of scores.

    Args:
        scores: (n,) scores of validation queries, n >= 1.
        steps: the shares are 0, 1/steps, ..., 1.

    Returns:
        (strong share, threshold) pairs by rising share; thresholds fall or stay.

    Raises:
        InputError: no scores.
    """
    if len(scores) == 0:
        raise InputError("a threshold table needs at least one score")
    shares = np.linspace(0, 1, steps + 1).tolist()
    return [(share, share_threshold(scores, share)) for share in shares]
