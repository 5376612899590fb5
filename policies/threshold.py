"""Policies that are one threshold on the score: given as a value, as a strong share, or by a guarantee.

A row that the general router or rules answered in the place of a learned router keeps their decision under every
policy, because their scores are on another scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..routers.base import Policy, Router, ThresholdPolicy
from ..routers.checks import check_number
from ..routers.errors import InputError


@dataclass(frozen=True, slots=True)
class Threshold(ThresholdPolicy):
    """A threshold given as a value: 0 sends every query to strong, and a value above 1 sends none.

    Attributes:
        value: the threshold; a score at or above it goes to strong.

    Example:
        >>> import routelearn
        >>> routelearn.load("router/").route("What is 2 + 2?", routelearn.Threshold(0.0)).model
        'sim-max'
    """

    value: float

    def __post_init__(self) -> None:
        """Check the value."""
        check_number("threshold", self.value, "a finite number, such as 0.5")

    def threshold_of(self, router: Router) -> float:
        del router
        return self.value


@dataclass(frozen=True, slots=True)
class StrongShare(ThresholdPolicy):
    """A threshold given as the share of the queries that go to strong.

    The share holds for queries like those of the router's threshold table; `routelearn calibrate` measures the table
    on your queries.

    Attributes:
        share: the share of the queries that go to strong, from 0 to 1.

    Example:
        >>> import routelearn
        >>> router = routelearn.load("router/")
        >>> routelearn.StrongShare(0.3).threshold_of(router) > routelearn.StrongShare(0.6).threshold_of(router)
        True
    """

    share: float

    def __post_init__(self) -> None:
        """Check the share."""
        check_number("strong share", self.share, "a number from 0 to 1")
        if not 0 <= self.share <= 1:
            hint = f": for {self.share:g} %, write {self.share / 100:g}" if 1 < self.share <= 100 else ""
            raise InputError(f"strong share is {self.share}; expected a number from 0 to 1{hint}")

    def threshold_of(self, router: Router) -> float:
        """Interpolate the router's threshold table.

        Raises:
            InputError: the router was never calibrated.
        """
        if not router.threshold_table:
            raise InputError(
                "this router has no threshold table, which a strong share needs; "
                "run `routelearn calibrate`, or give a threshold"
            )
        return self.threshold_in(router.threshold_table)

    def threshold_in(self, table: Sequence[tuple[float, float]]) -> float:
        """Interpolate a threshold table of one row or more."""
        if self.share == 0:
            return math.nextafter(1.0, 2.0)
        if self.share == 1:
            return 0.0
        shares, thresholds = zip(*table, strict=True)
        return float(np.interp(self.share, shares, thresholds))


@dataclass(frozen=True, slots=True)
class GuaranteedThreshold(ThresholdPolicy):
    """The guaranteed threshold that `routelearn calibrate --max-quality-loss` wrote into the bundle.

    The guarantee holds for queries exchangeable with the calibration queries, and for the rows that the learned
    router decides. It says nothing about other rows.

    Attributes:
        max_quality_loss: the largest loss that is acceptable; None: accept the loss that the bundle guarantees.

    Example:
        >>> import routelearn
        >>> from routelearn.policies import GuaranteedThreshold
        >>> routelearn.load("router/").route("What is 2 + 2?", GuaranteedThreshold())
        Traceback (most recent call last):
        ...
        routelearn.routers.errors.InputError: this router has no guaranteed threshold; ...
    """

    max_quality_loss: float | None = None

    def __post_init__(self) -> None:
        """Check the loss."""
        if self.max_quality_loss is not None:
            check_number("max_quality_loss", self.max_quality_loss, "a number such as 0.02, or None")

    def threshold_of(self, router: Router) -> float:
        """Read the threshold from the router's guarantee.

        Raises:
            InputError: the bundle has no guarantee, guarantees a larger loss only, or guarantees it for other models.
        """
        guarantee, learned = router.guarantee, router.learned
        if guarantee is None or learned is None:
            raise InputError(
                "this router has no guaranteed threshold; to make one: routelearn calibrate ROUTER --data LABELLED "
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
                f"and {self.max_quality_loss:g} was asked for; run `routelearn calibrate` with that loss"
            )
        return float(guarantee["threshold"])


def policy_of(threshold: float | None, strong_share: float | None, guaranteed: bool = False) -> Policy | None:
    """Make the policy that the options of a command or a request ask for; None: the router's own threshold decides.

    Raises:
        InputError: more than one option is given, or a value is out of range.
    """
    if sum((threshold is not None, strong_share is not None, guaranteed)) > 1:
        raise InputError("got more than one of threshold, strong share and guaranteed; expected at most one of them")
    if guaranteed:
        return GuaranteedThreshold()
    if threshold is not None:
        return Threshold(threshold)
    return None if strong_share is None else StrongShare(strong_share)
