"""Chooses the first ranked candidate that can be asked now, and says why the candidates before it cannot."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from ..routers.checks import OTHER, as_number, check_names, check_seconds, check_whole, clean_name, usable
from ..routers.decision import Decision
from ..routers.error_log import log_error
from ..routers.errors import InputError, require
from ..routers.forks import new_lock
from .breaker import BreakerLimits, BreakerState, describe, is_failure
from .choice import Choice, names_of
from .model_health import Change, ModelHealth, ModelStatus
from .rising_clock import RisingClock

logger = logging.getLogger(__name__)

#: A function that is called with the model, its old state, its new state, and the reason.
OnChange = Callable[[str, BreakerState, BreakerState, str], None]


class Availability:
    """Keeps a circuit breaker for each model and picks the first available candidate. Safe to share between threads.

    A breaker opens after a number of failures in a row, at an error rate, or at
    a P95 latency (`BreakerLimits`). After a while it lets a bounded number of
    probes through. A probe that succeeds closes the breaker and empties the
    window; a probe that fails opens the breaker again. This class never calls a
    model, so it works with any client.

    Example:
        >>> from routelearn.availability import Availability
        >>> availability = Availability(["sim-max", "sim-small"])
        >>> for _ in range(5):
        ...     availability.record("sim-max", ok=False, error="HTTP 529")
        >>> availability.choose(["sim-max", "sim-small"]).model
        'sim-small'
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
            models: names of the models that are known from the start. Other models are added when their first outcome
                is recorded.
            limits: limits of each breaker. None: the defaults of `BreakerLimits`.
            max_models: at most this many models get a breaker. Later models are always available, and their outcomes
                are counted under "other".
            counts_as_failure: says whether an exception counts against the model that was asked.
            on_change: called after each change of state, in the thread that caused the change.
            clock: returns the time in seconds. When it jumps back, time stands still here until the jump is over.

        Raises:
            InputError: `max_models` is below 1, or below the number of models.
            MissingExtraError: pybreaker is not installed.
        """
        check_names("models", models)
        check_whole("max_models", max_models, 0)
        if limits is not None and not isinstance(limits, BreakerLimits):
            raise InputError(f"limits is {limits!r:.80}; expected BreakerLimits(failures=...), or None")
        for function in filter(None, (counts_as_failure, on_change)):
            if not callable(function):
                raise InputError(f"counts_as_failure or on_change is {function!r:.80}; expected a function")
        if max_models < max(1, len(models)):
            raise InputError(
                f"max_models is {max_models}; expected {max(1, len(models))} or more ({len(models)} models are given)"
            )
        require("pybreaker", "availability")  # raises now, not at the first request
        self._limits = limits or BreakerLimits()
        self._max_models, self._counts_as_failure = max_models, counts_as_failure
        self._watchers: list[OnChange] = [] if on_change is None else [on_change]
        self.clock = clock
        self._now = RisingClock(clock)
        self._lock = new_lock()
        self._models = {clean_name(model): ModelHealth(clean_name(model), self._limits) for model in models}
        self._other = ModelHealth(OTHER, self._limits, guarded=False)

    def choose(self, candidates: Decision | Sequence[str]) -> Choice:
        """Choose the first available candidate in ranked order.

        When no candidate is available, the choice is the last resort: the
        candidate that is being probed now, or else the candidate whose next
        probe is due soonest. Such a choice is `degraded`, and its reason says so.

        Args:
            candidates: a router's decision, or model names with the best one first.

        Raises:
            InputError: there are no candidates.
        """
        names = names_of(candidates)
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
        """The candidates in the order to try: the available ones by rank, then the others in the order of `choose`.

        This method claims no probe. `attempt` with a model's name claims one when it is due.

        Raises:
            InputError: there are no candidates.
        """
        names = names_of(candidates)
        with self._lock:
            return tuple(names[position] for position in self._order(names, self._now()))

    def is_available(self, model: str) -> bool:
        """Whether `choose` would take this model now if it stood first. Nothing changes."""
        with self._lock:
            return self._wait_s(model, self._now()) == 0

    def wait_s(self, model: str) -> float:
        """Seconds until a request may go to a model; 0: one may go now, possibly as a probe. Nothing changes."""
        with self._lock:
            return self._wait_s(model, self._now())

    def hold(self, model: str, seconds: float, why: str) -> None:
        """Open the breaker of a model for a reason that lies outside, such as what another process found.

        An open breaker stays open for at least as long; a half-open one is left alone, because its probe tells more.

        Args:
            model: name of the model.
            seconds: the first probe may go after so many seconds.
            why: the reason, for logs and for the reasons of choices.

        Raises:
            InputError: `seconds` is not above 0.
        """
        check_seconds("seconds", seconds)
        changes: list[Change] = []
        with self._lock:
            self._health(model).hold(seconds, why, self._now(), changes)
        self._announce(changes)

    def release(self, model: str, why: str) -> None:
        """Close the breaker of a model, because it is known from outside that the model is back.

        Args:
            model: name of the model.
            why: the reason, for logs.
        """
        changes: list[Change] = []
        with self._lock:
            self._health(model).release(why, self._now(), changes)
        self._announce(changes)

    def watch(self, on_change: OnChange) -> None:
        """Have one more function called after each change of state, in the thread that caused the change."""
        self._watchers.append(on_change)

    def record(
        self,
        model: str | Choice,
        *,
        ok: bool,
        latency_s: float | None = None,
        error: BaseException | str | None = None,
    ) -> None:
        """Record the outcome of one call.

        Pass the `Choice` if you have one: the outcome then settles exactly the
        probe that it belongs to. With a model's name, the outcome settles the
        probe that has been running longest; when no probe is running but one is
        due, the call counts as that probe. So an outcome that is recorded by
        name can be that of a call that began before the breaker opened.

        Args:
            model: the choice, or the name of the model that was asked.
            ok: True when the model answered.
            latency_s: duration of the call in seconds. A negative or infinite number is left out.
            error: the exception, or a short description. If `counts_as_failure` says that the exception does not
                count, the outcome is ignored: it is neither a failure nor a sign that the model is well.
        """
        name, lease = (model.model, model.lease) if isinstance(model, Choice) else (model, None)
        by_name = not isinstance(model, Choice)
        ignored = not ok and isinstance(error, BaseException) and not self._counts(error)
        latency_s = as_number(latency_s)
        latency_s = latency_s if usable(latency_s) else None
        description = None
        if not ok and error is not None:
            description = describe(error) if isinstance(error, BaseException) else clean_name(error)
        changes: list[Change] = []
        with self._lock:
            health = self._health(name)
            if ignored:
                interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
                health.ignore(lease, by_name, interrupted, self._now(), changes)
            else:
                health.record(bool(ok), latency_s, description, lease, by_name, self._now(), changes)
        self._announce(changes)

    def attempt(self, model: str | Choice) -> Attempt:
        """A context for one call, for `with` or `async with`, that records the outcome and the latency."""
        return Attempt(self, model)

    def probe(self, model: str) -> int | None:
        """Claim the lease of a probe if one is due: for a call that was made without `choose`."""
        changes: list[Change] = []
        with self._lock:
            health = self._find(model)
            lease = health.claim(self._now(), changes) if health else None
        self._announce(changes)
        return lease

    def status(self, model: str) -> ModelStatus:
        """The status of one model. A model without any outcome is closed, with 0 requests."""
        with self._lock:
            health = self._find(model) or ModelHealth(clean_name(model), self._limits, guarded=False)
            return health.status(self._now())

    def statuses(self) -> list[ModelStatus]:
        """The status of every model at the same moment; "other" comes last, once it has an outcome."""
        with self._lock:
            now = self._now()
            statuses = [health.status(now) for health in (*self._models.values(), self._other)]
        return statuses if statuses[-1].requests else statuses[:-1]

    def as_dict(self) -> dict[str, Any]:
        """The statuses by model name as plain data, ready for JSON."""
        return {status.model: status.as_dict() for status in self.statuses()}

    def _order(self, names: Sequence[str], now: float) -> list[int]:
        """The positions of the candidates, in the order to try."""

        def key(position: int) -> tuple[int, float]:
            health, wait_s = self._find(names[position]), self._wait_s(names[position], now)
            if health is None or wait_s == 0:
                return 0, 0.0
            return 1 if health.state == "half-open" else 2, wait_s

        return sorted(range(len(names)), key=key)

    def _wait_s(self, name: str, now: float) -> float:
        """Seconds until a model can be asked; 0 means now, which is also the answer for an unknown model."""
        health = self._find(name)
        return health.wait_s(now) if health else 0.0

    def _skip(self, name: str, now: float) -> str:
        return self._health(name).skip(self._wait_s(name, now))

    def _counts(self, error: BaseException) -> bool:
        try:
            return self._counts_as_failure(error)
        except Exception as failure:  # noqa: BLE001 - it must not hide the error of the call
            log_error(logger, "counts_as_failure raised; the error of the call counts as a failure", failure)
            return True

    def _announce(self, changes: Sequence[Change]) -> None:
        """Log the changes and call `on_change`. The lock is not held: the callback may ask for the status."""
        for change in changes:
            level = logging.WARNING if change.new == "open" else logging.INFO
            logger.log(level, "breaker of %r: %s -> %s, %s", change.model, change.old, change.new, change.why)
            for on_change in self._watchers:
                try:
                    on_change(change.model, change.old, change.new, change.why)
                except Exception as error:  # noqa: BLE001 - an observer must not fail the request
                    log_error(logger, "on_change raised; the request goes on", error)

    def _find(self, model: str) -> ModelHealth | None:
        return self._models.get(model) or self._models.get(clean_name(model))

    def _health(self, model: str) -> ModelHealth:
        """The health of a model; a new model gets one of its own, unless `max_models` is reached."""
        health = self._find(model)
        if health is None:
            name = clean_name(model)
            if name == OTHER or len(self._models) >= self._max_models:
                return self._other
            health = self._models[name] = ModelHealth(name, self._limits)
        return health


class Attempt:
    """The context of one call, which records the outcome and the latency. `Availability.attempt` makes it; use it once.

    Example:
        >>> from routelearn.availability import Availability
        >>> availability = Availability(["sim-max"])
        >>> with availability.attempt("sim-max"):
        ...     answer = "the answer of your client"
        >>> availability.status("sim-max").requests
        1
    """

    def __init__(self, availability: Availability, model: str | Choice) -> None:
        self._availability, self._model, self._began = availability, model, 0.0

    def __enter__(self) -> None:
        """Start the clock. With a model's name, the call becomes a probe when one is due."""
        if isinstance(self._model, str):
            lease = self._availability.probe(self._model)
            if lease is not None:
                self._model = Choice(self._model, 0, "a probe is due", probe=True, lease=lease)
        self._began = self._availability.clock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Record a success, or the exception that was raised inside."""
        latency_s = self._availability.clock() - self._began
        self._availability.record(self._model, ok=error is None, latency_s=latency_s, error=error)

    async def __aenter__(self) -> None:
        """Do the same as `__enter__`."""
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do the same as `__exit__`."""
        self.__exit__(kind, error, traceback)
