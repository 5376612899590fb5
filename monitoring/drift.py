"""Compares recent queries with the reference by four signals, with a bounded probability of false alarms."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..routers.checks import as_number
from ..routers.errors import InputError
from ..routers.forks import new_lock
from .alarms import LEAST_QUERIES, DriftAlarm, OnAlarm, Reading, SignalSet, SignalState, announce, check_window, worst
from .comparison import PSI_LIMITS, SIGNALS, Comparison, Sums
from .limits import wilson
from .reference import LEAST_REFERENCE, Reference
from .repeats import RecentKeys, numbers_keys

PsiLabel = Literal["unknown", "small", "moderate", "large"]
#: The scores, novelties and vectors of some queries.
Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]
#: Values of some queries as they came in.
Column = tuple[Any, ...]
Columns = tuple[Column, Column, Column]

NO_REFERENCE = "the bundle has no reference"
#: The window starts again when so many repeats for each query of a full window come before a block of new queries: the
#: window then no longer shows what is asked now.
STALE_REPEATS = 100


@dataclass(frozen=True, slots=True)
class DriftStatus:
    """The state of the traffic compared with the reference.

    Attributes:
        state: the most serious state among the signals.
        signals: the readings of "score", "novelty", "vector" and "unfamiliar".
        psi: population stability index of the scores over the tenths of the reference; None until the window is full.
        psi_label: the customary label of the PSI: "small" below 0.1, "moderate" up to 0.25, "large" above. No alarm
            depends on it.
        unfamiliar: share of the window beyond the novelty bound, in [0, 1]; None when it is not known.
        unfamiliar_interval: 95 % interval of that share (Wilson 1927).
        queries: number of queries in the window, which are all different.
        repeats: number of queries since the start that were in the window already, without the newest ones. They count
            for no signal.

    Example:
        >>> from routelearn.monitoring import DriftMonitor
        >>> status = DriftMonitor(None).status()
        >>> status.state, status.queries, status.psi_label
        ('unknown', 0, 'unknown')
    """

    state: SignalState
    signals: dict[str, Reading]
    psi: float | None
    psi_label: PsiLabel
    unfamiliar: float | None
    unfamiliar_interval: tuple[float, float]
    queries: int
    repeats: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The status as plain data, ready for JSON."""
        return asdict(self)


class DriftMonitor:
    """Compares the last queries with a reference and raises one alarm when they drift. Safe to share between threads.

    | signal | value | an alarm begins above |
    |---|---|---|
    | score, novelty | Kolmogorov-Smirnov distance of the distributions | `ks_limit` |
    | vector | Mahalanobis distance of the means | `mean_limit` (Hotelling's T squared) |
    | unfamiliar | share of queries beyond the novelty bound | `count_limit` (beta-binomial) |

    The monitor looks at the window every `step` queries. Stable traffic raises any alarm within 10,000 queries with
    probability `false_alarms` at most (see `alarms.SignalSet`). An alarm ends when the value falls back to the limit
    that a stable window exceeds in 1 % of the looks.

    A query that is in the window already is a repeat (a retry, a loop of an agent). It says nothing new about the
    traffic, so only different queries count, and all numbers of queries above are numbers of different queries.

    Example:
        >>> import numpy as np
        >>> from routelearn.monitoring import DriftMonitor, Reference
        >>> usual = np.random.default_rng(0).random(1000)
        >>> monitor = DriftMonitor(Reference.from_samples(usual), on_alarm=lambda alarm: print("alarm:", alarm.signal))
        >>> for score in usual[:500]:
        ...     monitor.observe(score)
        >>> monitor.status().signals["score"].state
        'stable'
        >>> for score in np.sqrt(usual[:500]):
        ...     monitor.observe(score)
        alarm: score
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
        """Start with an empty window.

        Args:
            reference: what stable traffic looks like; None: every signal is unknown, unless `learn` is set.
            window: number of different queries that are compared, a multiple of `step`. Signals are known from 100
                queries on.
            step: number of different queries between two looks at the window.
            learn: number of first queries to learn a reference from when none is given; 0: learn none.
            novelty_bound: novelty bound of the learned reference. A given reference has its own.
            false_alarms: largest probability of a false alarm within 10,000 queries, in (0, 1).
            on_alarm: called once for each alarm, in the thread whose query raised it.
            clock: returns the time in seconds.

        Raises:
            InputError: an argument is out of its range.
        """
        if reference is not None and not isinstance(reference, Reference):
            raise InputError(f"reference is {reference!r:.80}; expected Reference.of(scores, ...), a router's, or None")
        check_window(window, step, false_alarms)
        if learn and learn < LEAST_REFERENCE:
            raise InputError(f"learn is {learn}; expected 0, or {LEAST_REFERENCE} queries or more")
        self._step, self._learn, self._bound = step, learn, novelty_bound
        self._signals = SignalSet(SIGNALS, step=step, false_alarms=false_alarms)
        self._on_alarm, self._clock = on_alarm, clock
        self._lock = new_lock()
        self._blocks: deque[Sums] = deque()
        self._most_blocks = window // step
        self._recent = RecentKeys(window + step)
        self._stale = STALE_REPEATS * window
        self.ignored = self.repeats = 0
        self._restart(reference)

    def _restart(self, reference: Reference | None) -> None:
        self._reference = reference
        self._comparison = None if reference is None else Comparison(reference)
        self._blocks.clear()
        self._total: Sums = np.zeros(0) if self._comparison is None else self._comparison.nothing()
        self._arrived: list[tuple[Any, Any, Any, Hashable | None]] = []
        self._held: list[tuple[Any, Any, Any]] = []
        self._awaited = self._step
        self._learned: list[Arrays] = []
        self._recent.clear()
        self._repeats_since_look = 0
        why = "no queries yet"
        if reference is None:
            why = f"learning from {self._learn} queries" if self._learn else NO_REFERENCE
        self._signals.restart(why)

    @property
    def reference(self) -> Reference | None:
        """The reference that the queries are compared with; None: there is none, or it is still being learned."""
        return self._reference

    def reset(self) -> None:
        """Empty the window and end all alarms. A learned reference is learned again."""
        self.follow(None if self._learn else self._reference)

    def follow(self, reference: Reference | None) -> None:
        """Compare with another reference from now on.

        Args:
            reference: the new reference; None: learn one if `learn` was set, otherwise every signal is unknown.
        """
        with self._lock:
            self._restart(reference)

    def observe(
        self,
        score: float | None = None,
        novelty: float | None = None,
        vector: Any = None,
        *,
        key: Hashable | None = None,
    ) -> None:
        """Count one query. Bad values raise nothing: they are left out and counted in `ignored`.

        Args:
            score: the router's score of the query, in [0, 1]; None when something else answered.
            novelty: the query's novelty; None when it was not measured.
            vector: (k,), the query's row of `Assessment.vectors`; None when it was not measured.
            key: equal for queries that are not independent: a hash of the query's text, or the id of a session. None:
                queries with equal numbers are repeats, and queries of which only the score is known are all different.
        """
        with self._lock:
            self._arrived.append((score, novelty, vector, key))
            if len(self._arrived) < self._awaited:
                return
            block = self._different()
            if block is None:
                return
            alarms = self._look(*block)
        announce(alarms, self._on_alarm)  # outside the lock: the callback may ask for the status

    def status(self) -> DriftStatus:
        """The status as of the last look."""
        with self._lock:
            signals = self._signals.readings()
            blocks, total, comparison = len(self._blocks), self._total.copy(), self._comparison
            repeats = self.repeats
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
            repeats=repeats,
        )

    def _different(self) -> Columns | None:
        """The scores, novelties and vectors of the next block of different queries; None: there is no block yet."""
        scores, novelties, vectors, keys = zip(*self._arrived, strict=True)
        self._arrived = []
        if None in keys:
            by_numbers = numbers_keys(scores, novelties, vectors)
            keys = tuple(other if key is None else key for key, other in zip(keys, by_numbers, strict=True))
        try:
            unique = set(keys)
        except TypeError:  # a key that cannot be hashed
            unique = set()
        all_new = len(unique) == len(keys) and None not in unique and self._recent.add_all(unique)
        if all_new and not self._held:
            return scores, novelties, vectors
        rows = zip(scores, novelties, vectors, keys, strict=True)
        new = [row[:3] for row in rows if all_new or row[3] is None or self._recent.add(row[3])]
        self._held += new
        self._count_repeats(len(keys) - len(new))
        if len(self._held) < self._step:
            # Soon, so that a shift is not found later; but not for each query, which takes longer.
            self._awaited = max(self._step - len(self._held), self._step // 10, 1)
            return None
        block, self._held = self._held[: self._step], self._held[self._step :]
        self._awaited = self._step - len(self._held)
        scores, novelties, vectors = zip(*block, strict=True)
        return scores, novelties, vectors

    def _count_repeats(self, repeats: int) -> None:
        self.repeats += repeats
        self._repeats_since_look += repeats
        # An old window must not stay when only few queries repeat for ever.
        if self._repeats_since_look >= self._stale:
            self._repeats_since_look = 0
            self._recent.clear()
            self._held.clear()
            self._awaited = self._step
            self._blocks.clear()
            self._total[:] = 0

    def _look(self, scores: Column, novelties: Column, vectors: Column) -> list[DriftAlarm]:
        """Add a block of queries to the window, move it, and return the alarms that begin."""
        self._repeats_since_look = 0
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
        return self._signals.update(self._comparison.measurements(self._total), self._clock())

    def _learn_from(self, arrays: Arrays) -> None:
        """Keep the queries until there are enough of them for a reference."""
        self._learned.append(arrays)
        if len(self._learned) * self._step < self._learn:
            return
        width = arrays[2].shape[1]
        scores, novelties, vectors = zip(*self._learned, strict=True)
        self._learned = []
        known = np.concatenate(scores)
        if len(known) < LEAST_REFERENCE:  # nearly all queries were answered by a fallback: start over
            return
        rows = np.concatenate([part for part in vectors if part.shape[1] == width])
        self._restart(Reference.from_samples(known, np.concatenate(novelties), rows, self._bound))

    def _numbers(self, values: tuple[Any, ...]) -> npt.NDArray[np.float32]:
        """The values that are finite numbers."""
        given = [value for value in values if value is not None]
        with np.errstate(over="ignore"):
            try:
                array = np.asarray(given, np.float32)
            except (TypeError, ValueError, OverflowError):
                array = np.empty((0, 0), np.float32)
            if array.ndim != 1:  # some are no numbers
                array = np.asarray([as_number(value) for value in given], np.float32)
        finite = array[np.isfinite(array)]
        self.ignored += len(given) - len(finite)
        return finite

    def _rows(self, vectors: tuple[Any, ...]) -> npt.NDArray[np.float32]:
        """The vectors that are finite, float32 (n, k); no rows when the vectors differ in length."""
        given = [vector for vector in vectors if vector is not None]
        try:
            rows = np.asarray(given, np.float32).reshape(len(given), -1 if given else 0)
        except (TypeError, ValueError, OverflowError):
            rows = np.empty((0, 0), np.float32)
        finite = rows[np.isfinite(rows).all(axis=1)]
        self.ignored += len(given) - len(finite)
        return finite


def psi_label(value: float | None) -> PsiLabel:
    """The customary label of a population stability index."""
    if value is None:
        return "unknown"
    moderate, large = PSI_LIMITS
    return "small" if value < moderate else "moderate" if value <= large else "large"
