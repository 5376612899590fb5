"""Compares scores with the outcomes that come in: are the scores still calibrated?"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..routers.checks import as_number
from ..routers.forks import new_lock
from . import alarms
from .limits import normal_limit

#: Number of equal bins of the score, for the calibration error.
BINS = 10
SIGNALS = ("calibration-bias", "calibration-spread")
#: A sum of residuals is judged only when its variance, the sum of p (1 - p), is at least this: then it is near normal.
LEAST_VARIANCE = 10.0
#: The same for Spiegelhalter's sum, whose terms are small when scores are near one half.
LEAST_SPREAD = 0.05
#: Outcomes that share a score are taken for repeats of one query when the scores have so many in the mean, at most.
MOST_REPEATS = 10
#: Scores of one query differ by less, also when it is scored in batches of different sizes.
SAME_SCORE = 1e-6
_NO_OUTCOMES = "no outcomes yet"
_TOO_NARROW = "the scores leave too little room for chance to judge them"


@dataclass(frozen=True, slots=True)
class CalibrationStatus:
    """The state of the scores compared with the outcomes. Numbers are None while the window is empty.

    Attributes:
        state: the more serious state of the two signals.
        signals: the readings of "calibration-bias" (strong wins more or less often than the scores say) and
            "calibration-spread" (the scores are too sure, or not sure enough). Values are absolute z statistics.
        outcomes: number of outcomes in the window.
        residual: mean of outcome minus score, in [-1, 1]. Above 0, strong wins more often than the scores say.
        brier: Brier score: the mean squared residual, in [0, 1].
        brier_expected: the Brier score of calibrated scores when no outcome is a tie.
        ece: expected calibration error over ten equal bins of the score, in [0, 1].
        ece_expected: the error that chance alone produces when the scores are calibrated.

    Example:
        >>> from routelearn.monitoring import CalibrationMonitor
        >>> status = CalibrationMonitor().status()
        >>> status.state, status.outcomes, status.brier
        ('unknown', 0, None)
    """

    state: alarms.SignalState
    signals: dict[str, alarms.Reading]
    outcomes: int
    residual: float | None = None
    brier: float | None = None
    brier_expected: float | None = None
    ece: float | None = None
    ece_expected: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The status as plain data, ready for JSON."""
        return asdict(self)


class _Block(NamedTuple):
    """The sums of some consecutive outcomes."""

    bins: npt.NDArray[np.float64]  # (BINS, 4): number of outcomes, their sum, sum of scores p, sum of p (1 - p)
    brier: float
    spread: float  # sum of (y - p) (1 - 2 p)
    spread_variance: float


class CalibrationMonitor:
    """Compares scores with outcomes over a window and raises one alarm when they part. Safe to share between threads.

    The bias is tested by the sum of the residuals, divided by its standard deviation under calibration. The spread is
    tested by Spiegelhalter's z (Spiegelhalter 1986), which grows when the scores are too sure or not sure enough.
    False alarms are bounded as in `DriftMonitor`. Both tests take outcomes as won or lost; ties make the tests more
    cautious. Outcomes of one query are not independent; the same query has the same score. Where few outcomes share a
    score, the variances are therefore at least those of sums over equal scores (cluster-robust; Liang and Zeger 1986).

    Example:
        >>> from routelearn.monitoring import CalibrationMonitor
        >>> monitor = CalibrationMonitor(on_alarm=lambda alarm: print("alarm:", alarm.signal))
        >>> for _ in range(100):
        ...     monitor.observe(score=0.5, strong_won=1)
        alarm: calibration-bias
        >>> round(monitor.status().residual, 2)
        0.5
    """

    def __init__(
        self,
        *,
        window: int = 500,
        step: int = 50,
        false_alarms: float = 0.01,
        on_alarm: alarms.OnAlarm | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start with an empty window.

        Args:
            window: number of outcomes that are compared, a multiple of `step`. Signals are known from 100 outcomes on.
            step: number of outcomes between two looks at the window.
            false_alarms: largest probability of a false alarm within 10,000 outcomes, in (0, 1).
            on_alarm: called once for each alarm, in the thread whose outcome raised it.
            clock: returns the time in seconds.

        Raises:
            InputError: an argument is out of its range.
        """
        alarms.check_window(window, step, false_alarms)
        self._step, self._on_alarm, self._clock = step, on_alarm, clock
        self._signals = alarms.SignalSet(SIGNALS, step=step, false_alarms=false_alarms, unit="outcomes")
        self._lock = new_lock()
        self._blocks: deque[_Block] = deque(maxlen=window // step)
        self._pairs: deque[npt.NDArray[np.float64]] = deque(maxlen=window // step)
        self.ignored = 0
        self.reset()

    def reset(self) -> None:
        """Empty the window and end all alarms."""
        with self._lock:
            self._blocks.clear()
            self._pairs.clear()
            self._held: list[tuple[float, float]] = []
            self._signals.restart(_NO_OUTCOMES)

    def observe(self, score: float, strong_won: float) -> None:
        """Count one outcome.

        Pass all outcomes, or a random part of them: the outcomes of one model alone, for example, would bias the
        comparison. Values that are no numbers in [0, 1] raise nothing; they are counted in `ignored`.

        Args:
            score: the router's score of the query, in [0, 1].
            strong_won: 1 when the strong model's answer was better, 0 when the weak model's was, 0.5 for a tie.
        """
        score, won = as_number(score), as_number(strong_won)
        with self._lock:
            if not (0 <= score <= 1 and 0 <= won <= 1):
                self.ignored += 1
                return
            self._held.append((score, won))
            if len(self._held) < self._step:
                return
            self._pairs.append(np.asarray(self._held))
            self._blocks.append(_block(self._pairs[-1]))
            self._held = []
            begun = self._signals.update(self._measurements(), self._clock())
        alarms.announce(begun, self._on_alarm)

    def status(self) -> CalibrationStatus:
        """The status as of the last look."""
        with self._lock:
            blocks = list(self._blocks)
            signals = self._signals.readings()
        bins = _bins(blocks)
        n = int(bins[:, 0].sum())
        state = alarms.worst(signals.values())
        if not n:
            return CalibrationStatus(state, signals, 0)
        return CalibrationStatus(
            state=state,
            signals=signals,
            outcomes=n,
            residual=float((bins[:, 1] - bins[:, 2]).sum()) / n,
            brier=sum(block.brier for block in blocks) / n,
            brier_expected=float(bins[:, 3].sum()) / n,
            ece=float(np.abs(bins[:, 1] - bins[:, 2]).sum()) / n,
            # The mean absolute value of a normal number is sqrt(2 / pi) standard deviations.
            ece_expected=float(np.sqrt(bins[:, 3] * 2 / math.pi).sum()) / n,
        )

    def _measurements(self) -> dict[str, alarms.Measurement | alarms.Unmeasured]:
        blocks = list(self._blocks)
        bins = _bins(blocks)
        n, variance = int(bins[:, 0].sum()), float(bins[:, 3].sum())
        measurements: dict[str, alarms.Measurement | alarms.Unmeasured] = {}
        of_repeats = _repeated_variance(np.concatenate(self._pairs))
        for name, total, total_variance, least, clustered in (
            (SIGNALS[0], float((bins[:, 1] - bins[:, 2]).sum()), variance, LEAST_VARIANCE, of_repeats[0]),
            (
                SIGNALS[1],
                sum(block.spread for block in blocks),
                sum(block.spread_variance for block in blocks),
                LEAST_SPREAD,
                of_repeats[1],
            ),
        ):
            if n >= alarms.LEAST_QUERIES and (total_variance < least or variance < LEAST_VARIANCE):
                measurements[name] = alarms.Unmeasured(_TOO_NARROW, n)
            else:
                z = abs(total) / math.sqrt(max(total_variance, least, clustered))
                measurements[name] = alarms.Measurement(z, n, normal_limit)
        return measurements


def _block(pairs: npt.NDArray[np.float64]) -> _Block:
    score, won = pairs[:, 0], pairs[:, 1]
    variance, slope = score * (1 - score), 1 - 2 * score
    place = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    columns = [np.bincount(place, weights, BINS) for weights in (np.ones_like(score), won, score, variance)]
    bins = np.stack(columns, axis=1).astype(np.float64)
    return _Block(
        bins,
        float(np.square(won - score).sum()),
        float(((won - score) * slope).sum()),
        float((slope * slope * variance).sum()),
    )


def _repeated_variance(pairs: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Variances of the sums of both tests, from the sums over the outcomes with equal scores, less their common mean.

    They are 0 when more than `MOST_REPEATS` outcomes share a score in the mean: such scores are levels, not queries.
    """
    ordered = np.sort(pairs[:, 0])
    if not (ordered[1:] - ordered[:-1] < SAME_SCORE).any():
        return 0.0, 0.0
    scores, places = np.unique(np.round(pairs[:, 0], 6), return_inverse=True)
    if len(scores) * MOST_REPEATS < len(pairs):
        return 0.0, 0.0
    residuals = pairs[:, 1] - pairs[:, 0]
    bias, spread = (
        float(np.square(np.bincount(places.ravel(), terms - terms.mean(), len(scores))).sum())
        for terms in (residuals, residuals * (1 - 2 * pairs[:, 0]))
    )
    return bias, spread


def _bins(blocks: list[_Block]) -> npt.NDArray[np.float64]:
    return np.sum([block.bins for block in blocks], axis=0) if blocks else np.zeros((BINS, 4))
