"""Policies that are one threshold on the score: by value, by strong share, by guarantee.

Rows that the rules answered in the place of the learned router keep the rules'
own decision under every policy: qualities there are on no calibrated scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..routers.base import Policy, Router, ThresholdPolicy
from ..routers.errors import InputError


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


@dataclass(frozen=True, slots=True)
class GuaranteedThreshold(ThresholdPolicy):
    """The guaranteed threshold of the router's bundle, whatever its default threshold is now.

    The guarantee is for queries exchangeable with those it was calibrated on, and for decisions of the learned router:
    rows that the rules answer are outside of it.

    Attributes:
        max_quality_loss: the largest loss that will do; None: whatever the bundle guarantees.
    """

    max_quality_loss: float | None = None

    def threshold_of(self, router: Router) -> float:
        """See `ThresholdPolicy.threshold_of`.

        Raises:
            InputError: the bundle has no guarantee, one for a larger loss, or one for another pair of models.
        """
        guarantee, learned = router.guarantee, router.learned
        if guarantee is None or learned is None:
            raise InputError(
                "this router has no guaranteed threshold; make one: routelearn calibrate ROUTER --data LABELLED "
                "--max-quality-loss 0.02 --confidence 0.95"
            )
        if (router.strong, router.weak) != (learned.strong, learned.weak):
            raise InputError(
                f"the guarantee is for {learned.strong!r} over {learned.weak!r}, "
                f"not for {router.strong!r} over {router.weak!r}"
            )
        if self.max_quality_loss is not None and guarantee["max_quality_loss"] > self.max_quality_loss:
            raise InputError(
                f"the bundle guarantees a loss of at most {guarantee['max_quality_loss']:g}, "
                f"not {self.max_quality_loss:g}; calibrate it for that"
            )
        return float(guarantee["threshold"])


def policy_of(threshold: float | None, strong_share: float | None, guaranteed: bool = False) -> Policy | None:
    """The policy of a command's or a request's options; None: the router's own threshold.

    Raises:
        InputError: more than one was given, or one is out of range.
    """
    if sum((threshold is not None, strong_share is not None, guaranteed)) > 1:
        raise InputError("give a threshold, a strong share or the guaranteed threshold: one of them")
    if guaranteed:
        return GuaranteedThreshold()
    if threshold is not None:
        return Threshold(threshold)
    return None if strong_share is None else StrongShare(strong_share)
