"""Detects a jump of a Bernoulli rate by a CUSUM chart, which alarms once and then waits until the rate is back."""

from __future__ import annotations

import math

from ..routers.errors import InputError

#: The smallest jump worth an alarm, as a difference of rates. Such a jump costs the same at every reference.
SHIFT = 0.15
#: Mean number of requests between two false alarms, at least.
FALSE_ALARM_EVERY = 100_000
#: A lower reference counts as this one. Otherwise one escalation after a learned rate of 0 would be infinite evidence.
LEAST_REFERENCE = 0.01


class Cusum:
    """Cumulative sum of log-likelihood ratios (Page 1954; for Bernoulli data, Reynolds and Stoumbos 1999).

    Each request adds ``log(P(request | reference + shift) / P(request | reference))`` to the sum. Below 0 the sum
    starts again at 0; an alarm begins when the sum reaches the limit. The limit is ``log(false_alarm_every)``, because
    the mean number of requests between false alarms is at least ``exp(limit)`` (Lorden 1971). The measured number is
    about ten times as large.

    After an alarm, a second sum with the same limit compares the reference with the *middle* of the jump. A rate that
    stays in between therefore neither alarms again and again nor counts as back.

    A reference above ``1 - shift`` leaves no room for a jump: the chart never alarms.

    Attributes:
        reference: the expected rate, in [0, 1].
        alarmed: whether the rate has jumped and is not back.
        requests: number of requests since the sum was last 0, which estimates the time of the jump.
        escalated: how many of these requests were escalated.

    Example:
        >>> from routelearn.monitoring import Cusum
        >>> chart = Cusum(reference=0.1)
        >>> changes = [chart.update(escalated=True) for _ in range(20)]
        >>> changes.index(True), chart.alarmed
        (12, True)
    """

    def __init__(self, reference: float, *, shift: float = SHIFT, false_alarm_every: float = FALSE_ALARM_EVERY) -> None:
        """Compute the steps of both sums.

        Args:
            reference: the expected rate, in [0, 1].
            shift: the smallest jump to detect, in (0, 1).
            false_alarm_every: smallest mean number of requests between false alarms, above 1.

        Raises:
            InputError: an argument is out of its range.
        """
        if not 0 <= reference <= 1:
            raise InputError(
                f"reference is {reference}; expected an escalation rate from 0 to 1, or None to learn the rate"
            )
        if not 0 < shift < 1:
            raise InputError(f"shift is {shift}; expected a difference of rates above 0 and below 1")
        if not 1 < false_alarm_every < math.inf:
            raise InputError(f"false_alarm_every is {false_alarm_every}; expected a number of requests above 1")
        self.reference = reference
        self.alarmed = False
        self.requests = self.escalated = 0
        self._sum = 0.0
        self._limit = math.log(false_alarm_every)
        low = max(reference, LEAST_REFERENCE)
        high, middle = low + shift, low + shift / 2
        # The step of the sum: first index `alarmed`, second index `escalated`.
        self._steps = ((0.0, 0.0), (0.0, 0.0))
        if high < 1:
            self._steps = (_steps(low, high), _steps(middle, low))

    def update(self, escalated: bool) -> bool:
        """Count one request.

        Returns:
            True when `alarmed` changed: the rate has jumped, or it is back.
        """
        if self._sum == 0:
            self.requests = self.escalated = 0
        self.requests += 1
        self.escalated += escalated
        self._sum = max(0.0, self._sum + self._steps[self.alarmed][escalated])
        if self._sum < self._limit:
            return False
        self._sum = 0.0
        self.alarmed = not self.alarmed
        return True


def _steps(null: float, alternative: float) -> tuple[float, float]:
    """Log-likelihood ratios of two rates: for a request that was not escalated, and for one that was."""
    return math.log((1 - alternative) / (1 - null)), math.log(alternative / null)
