"""A watched number: its state, and an alarm once when it goes too far."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ..routers.errors import InputError

logger = logging.getLogger(__name__)

#: From nothing known to the worst.
SignalState = Literal["unknown", "stable", "watch", "drift"]
_ORDER: tuple[SignalState, ...] = get_args(SignalState)
#: A stable signal exceeds its limit somewhere within so many queries with the stated probability of a false alarm.
HORIZON = 10_000
#: A look at a stable signal exceeds the lower limit, from which on the state is "watch", with this probability.
WATCH_PROBABILITY = 0.01
#: With fewer queries in the window a signal is "unknown".
LEAST_QUERIES = 100


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """Traffic, or what became of it, is no longer as the reference says.

    Attributes:
        signal: what was watched: "score", "novelty", "vector", "unfamiliar", "calibration-bias" or
            "calibration-spread".
        value: what was seen.
        limit: what chance would hardly exceed.
        queries: in the window.
        time: seconds of the monitor's clock.
    """

    signal: str
    value: float
    limit: float
    queries: int
    time: float

    def __str__(self) -> str:
        return (
            f"drift of {self.signal}: {self.value:.3g} over {self.queries} queries; expected at most {self.limit:.3g}"
        )


OnAlarm = Callable[[DriftAlarm], None]


@dataclass(frozen=True, slots=True)
class Reading:
    """How one signal stands.

    Attributes:
        signal: its name.
        state: "unknown" (see `why`), "stable", "watch" or "drift".
        value: what was seen in the window; None when unknown.
        watch: from here on "watch"; an alarm ends at or below it.
        limit: beyond it an alarm begins.
        queries: in the window that count.
        alarms: alarms since the start.
        why: why the state is unknown; else empty.
    """

    signal: str
    state: SignalState
    value: float | None
    watch: float | None
    limit: float | None
    queries: int
    alarms: int
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The reading as plain data, ready for JSON."""
        return asdict(self)


class Signal:
    """The state of one watched number. An alarm begins beyond the limit and ends at the lower limit: hysteresis."""

    def __init__(self, name: str, why: str) -> None:
        """Start unknown, for a reason."""
        self.name = name
        self.alarms = 0
        self.reading = Reading(name, "unknown", None, None, None, 0, 0, why)

    def unknown(self, why: str, queries: int = 0) -> None:
        """Nothing can be said now; an alarm that stands goes on standing."""
        if self.reading.state != "drift":
            self.reading = Reading(self.name, "unknown", None, None, None, queries, self.alarms, why)

    def update(self, value: float, watch: float, limit: float, queries: int, now: float) -> DriftAlarm | None:
        """Look at a new value.

        Args:
            value: what was seen.
            watch: the lower limit.
            limit: the upper one; infinite where chance alone could exceed any.
            queries: in the window.
            now: seconds, of the alarm.

        Returns:
            The alarm, when one begins.
        """
        before = self.reading.state
        state: SignalState = "stable"
        if value > limit or (before == "drift" and value > watch):
            state = "drift"
        elif value > watch:
            state = "watch"
        began = state == "drift" and before != "drift"
        self.alarms += began
        finite = (watch if math.isfinite(watch) else None, limit if math.isfinite(limit) else None)
        self.reading = Reading(self.name, state, value, *finite, queries, self.alarms)
        if before == "drift" and state != "drift":
            logger.info("%s is back at its reference", self.name)
        return DriftAlarm(self.name, value, limit, queries, now) if began else None


def announce(alarms: list[DriftAlarm], on_alarm: OnAlarm | None) -> None:
    """Log alarms and hand them on. What the callback raises is logged: the request goes on."""
    for alarm in alarms:
        logger.warning("%s", alarm)
        if on_alarm is not None:
            try:
                on_alarm(alarm)
            except Exception:
                logger.exception("on_alarm failed; the request goes on")


def check_window(window: int, step: int, false_alarms: float) -> None:
    """Refuse settings of a window that cannot work.

    Raises:
        InputError: a value is out of its range.
    """
    if step < 1 or window < LEAST_QUERIES or window % step:
        raise InputError(f"window is {window} and step {step}; expected at least {LEAST_QUERIES}, a multiple of step")
    if not 0 < false_alarms < 1:
        raise InputError(f"false_alarms is {false_alarms}; expected a probability between 0 and 1")


def worst(readings: Iterable[Reading]) -> SignalState:
    """The state of several signals: that of the worst, unknown when all are."""
    states: list[SignalState] = [reading.state for reading in readings]
    return max(states, key=_ORDER.index)
