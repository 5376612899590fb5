"""Has a Bernoulli rate jumped? A CUSUM chart that alarms once and waits until the rate is back."""

from __future__ import annotations

import math

from ..routers.errors import InputError

#: The smallest jump worth an alarm, as a difference: its cost is the same whatever the reference.
SHIFT = 0.15
#: False alarms are at least this many requests apart, on average.
FALSE_ALARM_EVERY = 100_000
#: A lower reference counts as this, or one escalation after a learned 0 would be infinite evidence.
LEAST_REFERENCE = 0.01


class Cusum:
    """Cumulative sum of log-likelihood ratios (Page 1954; for Bernoulli data, Reynolds and Stoumbos 1999).

    Each request adds ``log(P(request | reference + shift) / P(request |
    reference))``; below 0 the sum starts again; at the limit it is an alarm.
    The limit is ``log(false_alarm_every)``, because the mean number of requests
    between false alarms is at least ``exp(limit)`` (Lorden 1971); measured, it
    is some ten times that.

    After an alarm a second sum of the same limit weighs the reference against
    the *middle* of the jump, so that a rate in between neither alarms again and
    again nor counts as back.

    A reference within `shift` of 1 has no room for a jump: it never alarms.

    Attributes:
        reference: the expected rate, in [0, 1].
        alarmed: the rate has jumped and is not back.
        requests: requests since the sum was last 0: the estimated time of the jump.
        escalated: how many of these were escalated.
    """

    def __init__(self, reference: float, *, shift: float = SHIFT, false_alarm_every: float = FALSE_ALARM_EVERY) -> None:
        """Set up the steps of both sums.

        Args:
            reference: the expected rate, in [0, 1].
            shift: the smallest jump to detect, in (0, 1).
            false_alarm_every: least mean number of requests between false alarms, above 1.

        Raises:
            InputError: an argument is out of its range.
        """
        if not 0 <= reference <= 1:
            raise InputError(f"reference is {reference}; expected an escalation rate from 0 to 1, or None to learn it")
        if not 0 < shift < 1:
            raise InputError(f"shift is {shift}; expected a difference of rates between 0 and 1")
        if not 1 < false_alarm_every < math.inf:
            raise InputError(f"false_alarm_every is {false_alarm_every}; expected a number of requests above 1")
        self.reference = reference
        self.alarmed = False
        self.requests = self.escalated = 0
        self._sum = 0.0
        self._limit = math.log(false_alarm_every)
        low = max(reference, LEAST_REFERENCE)
        high, middle = low + shift, low + shift / 2
        # By alarmed, then by escalated.
        self._steps = ((0.0, 0.0), (0.0, 0.0))
        if high < 1:
            self._steps = (_steps(low, high), _steps(middle, low))

    def update(self, escalated: bool) -> bool:
        """Take in one request.

        Returns:
            True when `alarmed` changed: the rate has jumped, or is back.
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
    """Evidence for a rate against another from a request that was not escalated, and from one that was."""
    return math.log((1 - alternative) / (1 - null)), math.log(alternative / null)
