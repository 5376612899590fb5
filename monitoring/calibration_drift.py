"""Do scores still mean what they say? Running calibration of scores against the outcomes that come in."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..routers.checks import as_number
from .alarms import (
    HORIZON,
    LEAST_QUERIES,
    WATCH_PROBABILITY,
    DriftAlarm,
    OnAlarm,
    Reading,
    Signal,
    SignalState,
    announce,
    check_window,
    worst,
)
from .limits import normal_limit

#: Equal bins of the score, for the calibration error.
BINS = 10
SIGNALS = ("calibration-bias", "calibration-spread")
#: Sum of p (1 - p) below which a sum of residuals is not normal enough to judge.
LEAST_VARIANCE = 10.0
#: The same for Spiegelhalter's sum, whose terms are small where scores are near one half.
LEAST_SPREAD = 0.05
_NO_OUTCOMES = "no outcomes yet"


@dataclass(frozen=True, slots=True)
class CalibrationStatus:
    """How scores stand against outcomes; numbers are None without enough outcomes.

    Attributes:
        state: the worse of the two signals'.
        signals: "calibration-bias" (strong wins more or less often than the scores say) and "calibration-spread"
            (scores too sure, or not sure enough); values are sizes of z statistics.
        outcomes: in the window.
        residual: mean of outcome less score: above 0, strong wins more often than the scores say.
        brier: mean squared residual.
        brier_expected: what it would be if scores were calibrated and outcomes without ties.
        ece: expected calibration error over ten equal bins of the score.
        ece_expected: what chance alone makes of it when scores are calibrated.
    """

    state: SignalState
    signals: dict[str, Reading]
    outcomes: int
    residual: float | None
    brier: float | None
    brier_expected: float | None
    ece: float | None
    ece_expected: float | None

    def as_dict(self) -> dict[str, Any]:
        """The status as plain data, ready for JSON."""
        return asdict(self)


class _Block(NamedTuple):
    """Some consecutive outcomes, summed up."""

    bins: npt.NDArray[np.float64]  # (BINS, 4): outcomes, their sum, sum of scores, sum of p (1 - p)
    brier: float
    spread: float  # sum of (y - p) (1 - 2 p)
    spread_variance: float


class CalibrationMonitor:
    """Compares scores with outcomes over a window and says once when they part. Safe to share between threads.

    Bias is tested by the sum of residuals over its standard deviation under calibration, spread by Spiegelhalter's
    z (Spiegelhalter 1986), which grows when scores are too sure or not sure enough. Alarms are bounded as
    `DriftMonitor` bounds them. Both tests take outcomes as won or lost: ties make them more cautious.
    """

    def __init__(
        self,
        *,
        window: int = 500,
        step: int = 50,
        false_alarms: float = 0.01,
        on_alarm: OnAlarm | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start with nothing observed; see `DriftMonitor`, with outcomes in the place of queries.

        Raises:
            InputError: an argument is out of its range.
        """
        check_window(window, step, false_alarms)
        self._step, self._on_alarm, self._clock = step, on_alarm, clock
        self._limits = tuple(
            normal_limit(probability)
            for probability in (WATCH_PROBABILITY, false_alarms * min(1.0, step / HORIZON) / len(SIGNALS))
        )
        self._lock = threading.Lock()
        self._blocks: deque[_Block] = deque(maxlen=window // step)
        self.ignored = 0
        self.reset()

    def reset(self) -> None:
        """Forget the window and end all alarms."""
        with self._lock:
            self._blocks.clear()
            self._held: list[tuple[float, float]] = []
            self._signals = {name: Signal(name, _NO_OUTCOMES) for name in SIGNALS}

    def observe(self, score: float, strong_won: float) -> None:
        """Take in one outcome. Take all, or a random part: those of one model alone, say, would bias the comparison.

        Args:
            score: what the router said, in [0, 1].
            strong_won: 1 where the strong model's answer was the better one, 0 where the weak one's was, 0.5 for a
                tie. What is no such number is counted as `ignored`.
        """
        score, won = as_number(score), as_number(strong_won)
        with self._lock:
            if not (0 <= score <= 1 and 0 <= won <= 1):
                self.ignored += 1
                return
            self._held.append((score, won))
            if len(self._held) < self._step:
                return
            self._blocks.append(_block(np.asarray(self._held)))
            self._held = []
            alarms = self._look()
        announce(alarms, self._on_alarm)

    def status(self) -> CalibrationStatus:
        """How scores stand, as of the last look."""
        with self._lock:
            blocks = list(self._blocks)
            signals = {name: signal.reading for name, signal in self._signals.items()}
        bins = _bins(blocks)
        n = int(bins[:, 0].sum())
        state = worst(signals.values())
        if not n:
            return CalibrationStatus(state, signals, 0, None, None, None, None, None)
        return CalibrationStatus(
            state=state,
            signals=signals,
            outcomes=n,
            residual=float((bins[:, 1] - bins[:, 2]).sum()) / n,
            brier=sum(block.brier for block in blocks) / n,
            brier_expected=float(bins[:, 3].sum()) / n,
            ece=float(np.abs(bins[:, 1] - bins[:, 2]).sum()) / n,
            # The mean size of a normal number is sqrt(2 / pi) standard deviations.
            ece_expected=float(np.sqrt(bins[:, 3] * 2 / math.pi).sum()) / n,
        )

    def _look(self) -> list[DriftAlarm]:
        blocks = list(self._blocks)
        bins = _bins(blocks)
        residual, variance = float((bins[:, 1] - bins[:, 2]).sum()), float(bins[:, 3].sum())
        spread, spread_variance = (
            sum(block.spread for block in blocks),
            sum(block.spread_variance for block in blocks),
        )
        n, now = int(bins[:, 0].sum()), self._clock()
        watch, limit = self._limits
        alarms = []
        for name, total, known, least in (
            (SIGNALS[0], residual, variance, LEAST_VARIANCE),
            (SIGNALS[1], spread, spread_variance, LEAST_SPREAD),
        ):
            signal = self._signals[name]
            if n < LEAST_QUERIES:
                signal.unknown(f"{n} of {LEAST_QUERIES} outcomes", n)
            elif known < least or variance < LEAST_VARIANCE:
                signal.unknown("the scores leave chance too little room to judge by", n)
            else:
                alarms.append(signal.update(abs(total) / math.sqrt(known), watch, limit, n, now))
        return [alarm for alarm in alarms if alarm is not None]


def _block(pairs: npt.NDArray[np.float64]) -> _Block:
    score, won = pairs[:, 0], pairs[:, 1]
    variance, slope = score * (1 - score), 1 - 2 * score
    place = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    bins = np.zeros((BINS, 4))
    np.add.at(bins, place, np.stack([np.ones_like(score), won, score, variance], axis=1))
    return _Block(
        bins,
        float(np.square(won - score).sum()),
        float(((won - score) * slope).sum()),
        float((slope * slope * variance).sum()),
    )


def _bins(blocks: list[_Block]) -> npt.NDArray[np.float64]:
    return np.sum([block.bins for block in blocks], axis=0) if blocks else np.zeros((BINS, 4))
