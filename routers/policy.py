"""Policies: how an assessment becomes decisions, mostly by a threshold on the score."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from .errors import InputError

if TYPE_CHECKING:
    from .base import Assessment, Context, Decision, Router


class Calibrated(Protocol):
    """What a policy reads of a router."""

    @property
    def threshold_table(self) -> Sequence[tuple[float, float]]:
        """(strong share, threshold) pairs, by rising share."""
        ...


class Policy(Protocol):
    """Chooses a model for each query of a batch from what a router knows of them."""

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """One decision a row of the assessment; the contexts are those of the requests, in the same order."""
        ...


class ThresholdPolicy(ABC):
    """A policy that is one threshold on the score."""

    @abstractmethod
    def threshold_of(self, router: Calibrated) -> float:
        """The threshold: score at or above it goes to strong."""

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """See `Policy.decide`."""
        del contexts
        return router.decide(assessment, self.threshold_of(router))


@dataclass(frozen=True, slots=True)
class Threshold(ThresholdPolicy):
    """A threshold by value: 0 sends everything to strong, above 1 nothing."""

    value: float

    def __post_init__(self) -> None:
        """Refuse what cannot be compared with a score."""
        if not math.isfinite(self.value):
            raise InputError(f"threshold is {self.value}; expected a finite number")

    def threshold_of(self, router: Calibrated) -> float:
        """The value, whatever the router."""
        del router
        return self.value


@dataclass(frozen=True, slots=True)
class StrongShare(ThresholdPolicy):
    """A threshold by the share of queries that should go to strong, in [0, 1].

    The share holds for queries like those the router was calibrated on; on
    yours, compute the threshold with `threshold_table` from your own scores.
    """

    share: float

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if not 0 <= self.share <= 1:
            raise InputError(f"strong share is {self.share}; expected a number from 0 to 1")

    def threshold_of(self, router: Calibrated) -> float:
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
    shares = np.linspace(0, 1, steps + 1)
    # The upper quantile: at most the share of the scores is at or above the threshold, but for ties.
    thresholds = np.quantile(np.asarray(scores, np.float64), 1 - shares, method="higher")
    thresholds[0] = np.nextafter(max(1.0, thresholds[0]), 2.0)
    thresholds[-1] = 0.0
    return [(float(share), float(value)) for share, value in zip(shares, thresholds, strict=True)]
