"""States and alarms: of the escalation rate, and of the signals that watch for drift."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from ..routers.errors import InputError

logger = logging.getLogger("routelearn.monitoring")

#: The states of a signal, from the least to the most serious.
SignalState = Literal["unknown", "stable", "watch", "drift"]
_ORDER: tuple[SignalState, ...] = get_args(SignalState)
#: The probability of a false alarm is stated for this many queries.
HORIZON = 10_000
#: One look at a stable signal exceeds the lower limit with this probability. Beyond that limit the state is "watch".
WATCH_PROBABILITY = 0.01
#: A signal is "unknown" while its window holds fewer queries than this.
LEAST_QUERIES = 100

#: The states of an escalation rate.
EscalationState = Literal["unknown", "healthy", "watch", "act", "resize"]
#: The state is "watch" from the first rate on, "act" above the second, "resize" above the third.
LIMITS = (0.2, 0.4, 0.65)
#: The state of an escalation rate is "unknown" while its window holds fewer requests than this.
LEAST_REQUESTS = 50


def state_of(rate: float, limits: tuple[float, float, float] = LIMITS) -> EscalationState:
    """The state of an escalation rate in [0, 1]."""
    watch, act, resize = limits
    if rate < watch:
        return "healthy"
    if rate <= act:
        return "watch"
    return "act" if rate <= resize else "resize"


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """An alarm: the traffic, or the outcomes, no longer look like the reference.

    Attributes:
        signal: name of the signal: "score", "novelty", "vector", "unfamiliar", "calibration-bias" or
            "calibration-spread".
        value: value of the signal in the window.
        limit: the limit that the value exceeded. Stable traffic hardly ever exceeds it.
        queries: number of queries in the window.
        time: time of the alarm, in seconds of the monitor's clock.

    Example:
        >>> from routelearn.monitoring import DriftAlarm
        >>> print(DriftAlarm("score", value=0.31, limit=0.12, queries=500, time=0.0))
        drift of score: 0.31 over 500 queries; expected at most 0.12
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


@dataclass(frozen=True, slots=True)
class EscalationAlarm:
    """An alarm: the escalation rate of one model in one use case has jumped.

    Attributes:
        model: name of the weak model.
        use_case: name of the use case; empty when the requests named none.
        reference: the expected escalation rate, in [0, 1].
        rate: the escalation rate since the estimated time of the jump, in [0, 1].
        requests: number of requests since that time.
        time: time of the alarm, in seconds of the monitor's clock.

    Example:
        >>> from routelearn.monitoring import EscalationAlarm
        >>> print(EscalationAlarm("sim-small", "chat", reference=0.15, rate=0.52, requests=60, time=0.0))
        escalation rate of 'sim-small', use case 'chat' jumped to 52% over 60 requests; expected 15%
    """

    model: str
    use_case: str
    reference: float
    rate: float
    requests: int
    time: float

    def __str__(self) -> str:
        use_case = f", use case {self.use_case!r}" if self.use_case else ""
        return (
            f"escalation rate of {self.model!r}{use_case} jumped to {self.rate:.0%} over {self.requests} requests; "
            f"expected {self.reference:.0%}"
        )


OnAlarm = Callable[[DriftAlarm], None]
AlarmT = TypeVar("AlarmT", DriftAlarm, EscalationAlarm)


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of one signal, as of the last look at it.

    Attributes:
        signal: name of the signal.
        state: "unknown" (`why` gives the reason), "stable", "watch" or "drift".
        value: value of the signal in the window; None when unknown.
        watch: the lower limit. Above it the state is "watch"; an alarm ends when the value is at or below it.
        limit: the upper limit. An alarm begins when the value exceeds it.
        queries: number of queries in the window that this signal could measure.
        alarms: number of alarms since the monitor started.
        why: why the state is unknown; empty when it is known.

    Example:
        >>> from routelearn.monitoring import DriftMonitor
        >>> reading = DriftMonitor(None).status().signals["score"]
        >>> reading.state, reading.why
        ('unknown', 'the bundle has no reference')
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


class Measurement(NamedTuple):
    """The value of one signal in a window of n queries.

    `limit(p)` is the value that stable traffic exceeds with probability p.
    """

    value: float
    n: int
    limit: Callable[[float], float]


class Unmeasured(NamedTuple):
    """Why a signal cannot be measured, and the number of queries that the window holds for it."""

    why: str
    n: int = 0


class _Signal:
    """The state of one signal. An alarm begins above the upper limit and ends at the lower one (hysteresis)."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self.alarms = 0
        self.reading = Reading(name, "unknown", None, None, None, 0, 0, why)

    def unknown(self, why: str, queries: int) -> None:
        """Set the state to unknown, unless an alarm is active: an active alarm stays active."""
        if self.reading.state != "drift":
            self.reading = Reading(self.name, "unknown", None, None, None, queries, self.alarms, why)

    def update(self, value: float, watch: float, limit: float, queries: int, now: float) -> DriftAlarm | None:
        """Set the state from a new value; returns an alarm when one begins."""
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


class SignalSet:
    """The signals of one monitor, which share one bound on the probability of false alarms.

    Each look at each signal gets an equal part of `false_alarms`. By Bonferroni's inequality, stable traffic then
    raises any alarm within `HORIZON` queries with at most that probability, however much the windows overlap.
    """

    def __init__(self, names: Sequence[str], *, step: int, false_alarms: float, unit: str = "queries") -> None:
        """Start with every signal unknown.

        Args:
            names: names of the signals.
            step: number of queries between two looks.
            false_alarms: largest probability of a false alarm within `HORIZON` queries, in (0, 1).
            unit: what the window counts, for messages: "queries" or "outcomes".
        """
        self._names, self._unit = tuple(names), unit
        self._probability = false_alarms * min(1.0, step / HORIZON) / len(names)
        self._signals: dict[str, _Signal] = {}

    def restart(self, why: str) -> None:
        """End all alarms and set every signal to unknown for this reason."""
        self._signals = {name: _Signal(name, why) for name in self._names}

    def readings(self) -> dict[str, Reading]:
        """The reading of each signal, by name."""
        return {name: signal.reading for name, signal in self._signals.items()}

    def update(self, measured: Mapping[str, Measurement | Unmeasured], now: float) -> list[DriftAlarm]:
        """Take in one look at the signals.

        Args:
            measured: by name of the signal: its measurement, or why it cannot be measured.
            now: time of the look, in seconds of the monitor's clock.

        Returns:
            The alarms that begin.
        """
        alarms = []
        for name, measurement in measured.items():
            signal = self._signals[name]
            if isinstance(measurement, Unmeasured):
                signal.unknown(measurement.why, measurement.n)
                continue
            value, n, limit = measurement
            if n < LEAST_QUERIES:
                signal.unknown(f"{n} of {LEAST_QUERIES} {self._unit}", n)
                continue
            alarms.append(signal.update(value, limit(WATCH_PROBABILITY), limit(self._probability), n, now))
        return [alarm for alarm in alarms if alarm is not None]


def announce(alarms: Iterable[AlarmT], on_alarm: Callable[[AlarmT], None] | None) -> None:
    """Log each alarm as a warning and pass it to the callback.

    An exception of the callback is logged and goes no further, so that the request goes on.
    """
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
        raise InputError(
            f"window is {window} and step is {step}; expected a step of 1 or more, "
            f"and as window a multiple of step, {LEAST_QUERIES} or more"
        )
    if not 0 < false_alarms < 1:
        raise InputError(f"false_alarms is {false_alarms}; expected a probability above 0 and below 1")


def worst(readings: Iterable[Reading]) -> SignalState:
    """The most serious state among some signals; "unknown" only when all are unknown."""
    states: list[SignalState] = [reading.state for reading in readings]
    return max(states, key=_ORDER.index)
