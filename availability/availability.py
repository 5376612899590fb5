"""Availability after quality: which of the ranked candidates can be asked now, and why the others cannot."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ..routers.base import Decision
from ..routers.checks import OTHER, clean_name, usable
from ..routers.errors import InputError, require
from .breaker import BreakerState
from .failures import describe, is_failure
from .model_health import BreakerLimits, Change, ModelHealth, ModelStatus

logger = logging.getLogger(__name__)

#: Called with the model, its old and its new state, and why.
OnChange = Callable[[str, BreakerState, BreakerState, str], None]


@dataclass(frozen=True, slots=True)
class Choice:
    """The model to ask now.

    Attributes:
        model: its name, one of the candidates.
        position: its place among the candidates, 0 for the first.
        reason: one readable sentence, with why each candidate before it was skipped.
        probe: this request finds out whether the model is back.
        degraded: no candidate is available; this is the last resort.
        lease: the probe's number, by which its outcome is told from others.
    """

    model: str
    position: int
    reason: str
    probe: bool = False
    degraded: bool = False
    lease: int | None = None


class Availability:
    """Keeps a circuit breaker for each model and picks the first available candidate. Safe to share between threads.

    A breaker opens after some failures in a row, at an error rate, or at a P95
    latency (`BreakerLimits`). After a while it lets a bounded number of probes
    through: one that succeeds closes it and empties the window, one that fails
    opens it again. Nothing here calls a model; any client will do.
    """

    def __init__(
        self,
        models: Sequence[str] = (),
        limits: BreakerLimits | None = None,
        *,
        max_models: int = 50,
        counts_as_failure: Callable[[BaseException], bool] = is_failure,
        on_change: OnChange | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with every breaker closed.

        Args:
            models: names known from the start; others are taken in as their outcomes are recorded.
            limits: of each breaker; None: the defaults.
            max_models: names with a breaker; later ones are always available, and counted under "other".
            counts_as_failure: whether an exception counts against the model that was asked.
            on_change: called after each change of state, in the thread that caused it.
            clock: seconds; what it jumps back is left out.

        Raises:
            InputError: there is no room for the models.
            MissingExtraError: pybreaker is not installed.
        """
        if max_models < max(1, len(models)):
            raise InputError(f"max_models is {max_models}; expected at least 1, and room for the {len(models)} models")
        require("pybreaker", "availability")  # says so now when it is missing
        self._limits = limits or BreakerLimits()
        self._max_models, self._counts_as_failure, self._on_change = max_models, counts_as_failure, on_change
        self.clock = clock
        self._now = _RisingClock(clock)
        self._lock = threading.Lock()
        self._models = {clean_name(model): ModelHealth(clean_name(model), self._limits) for model in models}
        self._other = ModelHealth(OTHER, self._limits, guarded=False)

    def choose(self, candidates: Decision | Sequence[str]) -> Choice:
        """The first available candidate, in ranked order.

        When none is available, the last resort is the one that is being
        probed now, else the one whose next probe is due soonest; the choice
        is `degraded` then, and its reason says so.

        Args:
            candidates: a router's decision, or model names, the best first.

        Raises:
            InputError: there are no candidates.
        """
        names = _names(candidates)
        changes: list[Change] = []
        with self._lock:
            now = self._now()
            available = (position for position, name in enumerate(names) if self._wait_s(name, now) == 0)
            position = next(available, -1)
            degraded = position < 0
            if degraded:
                position = self._order(names, now)[0]
            name, health, wait_s = names[position], self._find(names[position]), self._wait_s(names[position], now)
            skipped = "".join(f"{self._skip(other, now)}; " for other in (names if degraded else names[:position]))
            lease = health.claim(now, changes) if health and not degraded else None
            being_probed = health is not None and health.state == "half-open"
        if degraded:
            soonest = "it is being probed now" if being_probed else f"its probe is due soonest, in {wait_s:.3g} s"
            what = f"no candidate is available: {name} as the last resort, {soonest}"
        else:
            what = f"{name} is probed" if lease is not None else f"{name} is the first available candidate"
        self._announce(changes)
        return Choice(name, position, skipped + what, lease is not None, degraded, lease)

    def fallbacks(self, candidates: Decision | Sequence[str]) -> tuple[str, ...]:
        """The candidates in the order to try: available ones by rank, then the others as `choose` resorts to them.

        Takes no probe; `attempt` with a name does, when one is due.

        Raises:
            InputError: there are no candidates.
        """
        names = _names(candidates)
        with self._lock:
            return tuple(names[position] for position in self._order(names, self._now()))

    def is_available(self, model: str) -> bool:
        """Whether `choose` would take this model now if it stood first; changes nothing."""
        with self._lock:
            return self._wait_s(model, self._now()) == 0

    def record(
        self,
        model: str | Choice,
        *,
        ok: bool,
        latency_s: float | None = None,
        error: BaseException | str | None = None,
    ) -> None:
        """Take in the outcome of one call.

        Pass the `Choice` where there is one: then an outcome settles the probe
        that it belongs to, and no other. By a model's name it settles the probe
        that is under way for longest, or is a probe itself when one is due: a
        call that began before the breaker opened can be taken for it.

        Args:
            model: the choice, or the name of the model that was asked.
            ok: it answered.
            latency_s: seconds that it took; negative or not finite: left out.
            error: what went wrong. An exception that does not count makes the outcome an ignored one: no failure, and
                no sign that the model is well.
        """
        name, lease = (model.model, model.lease) if isinstance(model, Choice) else (model, None)
        by_name = not isinstance(model, Choice)
        ignored = not ok and isinstance(error, BaseException) and not self._counts(error)
        if latency_s is not None and not usable(latency_s):
            latency_s = None
        told = (
            None if ok or error is None else describe(error) if isinstance(error, BaseException) else clean_name(error)
        )
        changes: list[Change] = []
        with self._lock:
            health = self._health(name)
            if ignored:
                health.ignore(lease, by_name)
            else:
                health.record(bool(ok), latency_s, told, lease, by_name, self._now(), changes)
        self._announce(changes)

    def attempt(self, model: str | Choice) -> Attempt:
        """A context for one call, `with` or `async with`, that records its outcome and how long it took."""
        return Attempt(self, model)

    def probe(self, model: str) -> int | None:
        """The lease of a probe of this model, if one is due: for a call that no `choose` went before."""
        changes: list[Change] = []
        with self._lock:
            health = self._find(model)
            lease = health.claim(self._now(), changes) if health else None
        self._announce(changes)
        return lease

    def status(self, model: str) -> ModelStatus:
        """How one model stands; one that was never heard of is closed, without requests."""
        with self._lock:
            health = self._find(model) or ModelHealth(clean_name(model), self._limits, guarded=False)
            return health.status(self._now())

    def statuses(self) -> list[ModelStatus]:
        """The status of each model, all of one moment; "other" last, once there was one."""
        with self._lock:
            now = self._now()
            statuses = [health.status(now) for health in (*self._models.values(), self._other)]
        return statuses if statuses[-1].requests else statuses[:-1]

    def as_dict(self) -> dict[str, Any]:
        """The statuses by model as plain data, ready for JSON."""
        return {status.model: status.as_dict() for status in self.statuses()}

    def _order(self, names: Sequence[str], now: float) -> list[int]:
        """Positions of the candidates in the order to try."""

        def key(position: int) -> tuple[int, float]:
            health, wait_s = self._find(names[position]), self._wait_s(names[position], now)
            if health is None or wait_s == 0:
                return 0, 0.0
            return 1 if health.state == "half-open" else 2, wait_s

        return sorted(range(len(names)), key=key)

    def _wait_s(self, name: str, now: float) -> float:
        """Seconds until a model can be asked; 0: now, as one can that was never heard of."""
        health = self._find(name)
        return health.wait_s(now) if health else 0.0

    def _skip(self, name: str, now: float) -> str:
        return self._health(name).skip(self._wait_s(name, now))

    def _counts(self, error: BaseException) -> bool:
        try:
            return self._counts_as_failure(error)
        except Exception:  # the caller's function: its error must not hide that of the call
            logger.exception("counts_as_failure failed; the error counts")
            return True

    def _announce(self, changes: Sequence[Change]) -> None:
        """Outside the lock: the callback may ask for the status."""
        for change in changes:
            level = logging.WARNING if change.new == "open" else logging.INFO
            logger.log(level, "breaker of %r: %s -> %s, %s", change.model, change.old, change.new, change.why)
            if self._on_change is not None:
                try:
                    self._on_change(change.model, change.old, change.new, change.why)
                except Exception:  # the caller's function
                    logger.exception("on_change failed; the request goes on")

    def _find(self, model: str) -> ModelHealth | None:
        return self._models.get(model) or self._models.get(clean_name(model))

    def _health(self, model: str) -> ModelHealth:
        """What is known of a model, made when it is new and there is room."""
        health = self._find(model)
        if health is None:
            name = clean_name(model)
            if name == OTHER or len(self._models) >= self._max_models:
                return self._other
            health = self._models[name] = ModelHealth(name, self._limits)
        return health


class Attempt:
    """One call of a model: records what happens inside. Use it once, with `with` or `async with`."""

    def __init__(self, availability: Availability, model: str | Choice) -> None:
        """See `Availability.attempt`."""
        self._availability, self._model, self._began = availability, model, 0.0

    def __enter__(self) -> None:
        """Start the time; by a model's name, this call is a probe when one is due."""
        if isinstance(self._model, str):
            lease = self._availability.probe(self._model)
            if lease is not None:
                self._model = Choice(self._model, 0, "a probe is due", probe=True, lease=lease)
        self._began = self._availability.clock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Record: without an exception a success, else by `counts_as_failure`."""
        latency_s = self._availability.clock() - self._began
        self._availability.record(self._model, ok=error is None, latency_s=latency_s, error=error)

    async def __aenter__(self) -> None:
        """See `__enter__`."""
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """See `__exit__`."""
        self.__exit__(kind, error, traceback)


class _RisingClock:
    """Seconds since the start that never fall: what the clock jumps back is left out. Not locked."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._last, self._elapsed = clock, clock(), 0.0

    def __call__(self) -> float:
        now = self._clock()
        self._elapsed += max(0.0, now - self._last)
        self._last = now
        return self._elapsed


def _names(candidates: Decision | Sequence[str]) -> Sequence[str]:
    names = candidates.candidates if isinstance(candidates, Decision) else candidates
    if isinstance(names, str) or not names:
        raise InputError(f"candidates are {names!r}; expected a decision, or at least one model name in a sequence")
    return names
