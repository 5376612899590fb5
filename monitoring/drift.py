"""Is traffic still like the reference? Four signals over a sliding window, with a bounded rate of false alarms."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..routers.checks import as_number
from ..routers.errors import InputError
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
from .comparison import PSI_LIMITS, SIGNALS, Comparison, Sums
from .reference import LEAST_REFERENCE, Reference
from .window import wilson

PsiLabel = Literal["unknown", "small", "moderate", "large"]
#: Scores, novelties and vectors of some queries.
Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]

NO_REFERENCE = "the bundle has no reference"


@dataclass(frozen=True, slots=True)
class DriftStatus:
    """How traffic stands against the reference.

    Attributes:
        state: the worst of the signals'.
        signals: of "score", "novelty", "vector" and "unfamiliar".
        psi: population stability index of the scores over the tenths of the reference; None before the window is full.
        psi_label: "small" below 0.1, "moderate" to 0.25, else "large": a custom; alarms come from the signals.
        unfamiliar: share of the window beyond the novelty bound; None: not known.
        unfamiliar_interval: its 95 % interval (Wilson 1927).
        queries: in the window.
    """

    state: SignalState
    signals: dict[str, Reading]
    psi: float | None
    psi_label: PsiLabel
    unfamiliar: float | None
    unfamiliar_interval: tuple[float, float]
    queries: int

    def as_dict(self) -> dict[str, Any]:
        """The status as plain data, ready for JSON."""
        return asdict(self)


class DriftMonitor:
    """Compares the last queries with a reference and says once when they drift. Safe to share between threads.

    | signal | value | alarm beyond |
    |---|---|---|
    | score, novelty | Kolmogorov-Smirnov distance | `ks_limit` |
    | vector | Mahalanobis distance of the means | `mean_limit` (Hotelling's T squared) |
    | unfamiliar | share beyond the novelty bound | `count_limit` (beta-binomial) |

    The window is looked at every `step` queries. Each look at each signal gets an
    equal part of `false_alarms`: by Bonferroni's inequality, stable traffic sets
    off any alarm within `HORIZON` queries with at most that probability, however
    much the windows overlap. An alarm ends when its value is back at what a
    stable window exceeds in 1 % of looks.
    """

    def __init__(
        self,
        reference: Reference | None,
        *,
        window: int = 500,
        step: int = 50,
        learn: int = 0,
        novelty_bound: float | None = None,
        false_alarms: float = 0.01,
        on_alarm: OnAlarm | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start with nothing observed.

        Args:
            reference: what stable traffic looks like; None: every signal is unknown, or see `learn`.
            window: queries, a multiple of `step`; signals are known from 100 queries on.
            step: the window moves by so many queries.
            learn: without a reference, learn one from the first so many queries; 0: do not.
            novelty_bound: of a learned reference; a reference that is given has its own.
            false_alarms: most probable false alarms within 10,000 queries, in (0, 1).
            on_alarm: called once an alarm, in the thread whose query set it off.
            clock: seconds.

        Raises:
            InputError: an argument is out of its range.
        """
        check_window(window, step, false_alarms)
        if learn and learn < LEAST_REFERENCE:
            raise InputError(f"learn is {learn}; expected 0, or at least {LEAST_REFERENCE} queries")
        self._step, self._learn, self._bound = step, learn, novelty_bound
        self._probability = false_alarms * min(1.0, step / HORIZON) / len(SIGNALS)
        self._on_alarm, self._clock = on_alarm, clock
        self._lock = threading.Lock()
        self._blocks: deque[Sums] = deque()
        self._most_blocks = window // step
        self.ignored = 0
        self._restart(reference)

    def _restart(self, reference: Reference | None) -> None:
        self._reference = reference
        self._comparison = None if reference is None else Comparison(reference)
        self._blocks.clear()
        self._total: Sums = np.zeros(0) if self._comparison is None else self._comparison.nothing()
        self._held: list[tuple[Any, Any, Any]] = []
        self._learned: list[Arrays] = []
        why = "no queries yet"
        if reference is None:
            why = f"learning from {self._learn} queries" if self._learn else NO_REFERENCE
        self._signals = {name: Signal(name, why) for name in SIGNALS}

    @property
    def reference(self) -> Reference | None:
        """What is compared with; None: there is none, or it is still being learned."""
        return self._reference

    def reset(self) -> None:
        """Forget the window and end all alarms; a learned reference is learned anew."""
        self.follow(None if self._learn else self._reference)

    def follow(self, reference: Reference | None) -> None:
        """Compare with another reference from now on; None: learn one, where so set, or know nothing."""
        with self._lock:
            self._restart(reference)

    def observe(self, score: float | None = None, novelty: float | None = None, vector: Any = None) -> None:
        """Take in one query. Nothing that is observed raises: what is no number is left out and counted as `ignored`.

        Args:
            score: of the router; None where something else answered.
            novelty: None: not measured.
            vector: (k,), `Assessment.vectors` of it; None: not measured.
        """
        with self._lock:
            self._held.append((score, novelty, vector))
            if len(self._held) < self._step:
                return
            alarms = self._take_in()
        announce(alarms, self._on_alarm)  # outside the lock: the callback may ask for the status

    def status(self) -> DriftStatus:
        """How traffic stands, as of the last look."""
        with self._lock:
            signals = {name: signal.reading for name, signal in self._signals.items()}
            blocks, total, comparison = len(self._blocks), self._total.copy(), self._comparison
        psi, unfamiliar, measured = None, 0, 0
        if comparison is not None:
            unfamiliar, measured = comparison.unfamiliar(total)
            if blocks == self._most_blocks and signals["score"].queries >= LEAST_QUERIES:
                psi = comparison.psi(total)
        if signals["unfamiliar"].state == "unknown":
            measured = 0
        return DriftStatus(
            state=worst(signals.values()),
            signals=signals,
            psi=psi,
            psi_label=psi_label(psi),
            unfamiliar=unfamiliar / measured if measured else None,
            unfamiliar_interval=wilson(unfamiliar, measured),
            queries=blocks * self._step,
        )

    def _take_in(self) -> list[DriftAlarm]:
        """Sum up the queries held, move the window, and look at it: the alarms that begin."""
        scores, novelties, vectors = zip(*self._held, strict=True)
        self._held = []
        arrays = self._numbers(scores), self._numbers(novelties), self._rows(vectors)
        if self._comparison is None:
            if self._learn:
                self._learn_from(arrays)
            return []
        sums = self._comparison.sums(*arrays)
        self._blocks.append(sums)
        self._total += sums
        if len(self._blocks) > self._most_blocks:
            self._total -= self._blocks.popleft()
        alarms, now = [], self._clock()
        for name, compared in self._comparison.compared(self._total).items():
            signal = self._signals[name]
            if isinstance(compared, str):
                signal.unknown(compared)
                continue
            value, n, limit = compared
            if n < LEAST_QUERIES:
                signal.unknown(f"{n} of {LEAST_QUERIES} queries", n)
                continue
            alarms.append(signal.update(value, limit(WATCH_PROBABILITY, n), limit(self._probability, n), n, now))
        return [alarm for alarm in alarms if alarm is not None]

    def _learn_from(self, arrays: Arrays) -> None:
        """Keep what was seen until it makes a reference."""
        self._learned.append(arrays)
        if len(self._learned) * self._step < self._learn:
            return
        width = arrays[2].shape[1]
        scores, novelties, vectors = zip(*self._learned, strict=True)
        self._learned = []
        known = np.concatenate(scores)
        if len(known) < LEAST_REFERENCE:  # nothing but fallbacks came: start over
            return
        rows = np.concatenate([part for part in vectors if part.shape[1] == width])
        self._restart(Reference.from_samples(known, np.concatenate(novelties), rows, self._bound))

    def _numbers(self, values: tuple[Any, ...]) -> npt.NDArray[np.float32]:
        """Those that are finite numbers, without those that are None."""
        given = [as_number(value) for value in values if value is not None]
        with np.errstate(over="ignore"):
            array = np.asarray(given, np.float32)
        fine = array[np.isfinite(array)]
        self.ignored += len(given) - len(fine)
        return fine

    def _rows(self, vectors: tuple[Any, ...]) -> npt.NDArray[np.float32]:
        """Those that are finite, float32 (n, k); none where they are not all of one length."""
        given = [vector for vector in vectors if vector is not None]
        try:
            rows = np.asarray(given, np.float32).reshape(len(given), -1 if given else 0)
        except (TypeError, ValueError, OverflowError):
            rows = np.empty((0, 0), np.float32)
        fine = rows[np.isfinite(rows).all(axis=1)]
        self.ignored += len(given) - len(fine)
        return fine


def psi_label(value: float | None) -> PsiLabel:
    """What a PSI is customarily called."""
    if value is None:
        return "unknown"
    moderate, large = PSI_LIMITS
    return "small" if value < moderate else "moderate" if value <= large else "large"
