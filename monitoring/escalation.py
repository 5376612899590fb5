"""Watches the escalation rate of cascades: its state, its jumps and its latency, by model and by use case."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..routers.checks import OTHER, clean_name
from ..routers.errors import InputError
from ..routers.forks import new_lock
from .alarms import LEAST_REQUESTS, LIMITS, EscalationAlarm, EscalationState, announce, state_of
from .cusum import FALSE_ALARM_EVERY, SHIFT, Cusum
from .escalation_status import EscalationStatus
from .limits import wilson
from .repeats import RecentKeys
from .window import Request, Totals, Window, percentiles

if TYPE_CHECKING:
    from ..cascade.tiers import CascadeResult

logger = logging.getLogger("routelearn.monitoring")

#: Number of distinct reasons of degraded answers that have counts of their own.
MAX_REASONS = 20

#: Repeats are recognised among so many of the newest different keys.
MAX_REPEAT_KEYS = 10_000

#: A model and a use case; None stands for all of them.
Key = tuple[str | None, str | None]


class _Pair:
    """The jump detection of one pair of model and use case, and the windows that count its requests."""

    def __init__(self, views: tuple[Window, ...], cusum: Cusum | None) -> None:
        self.views = views
        self.cusum = cusum
        self.alarm: EscalationAlarm | None = None
        self.learned = self.learned_escalated = 0


class EscalationMonitor:
    """Counts escalations and raises one alarm when their rate jumps. Safe to share between threads.

    The escalation rate of the window decides the state: below 20 % "healthy", up to 40 % "watch", above 40 % "act",
    above 65 % "resize" (find a better weak model). `limits` changes these rates.

    A CUSUM chart detects jumps of the rate for each pair of model and use case (`monitoring/cusum.py`). A jump is
    logged once as a warning, and `on_alarm` is called once. The alarm then stays active until the rate is back or
    `reset` is called.

    Example:
        >>> from routelearn.monitoring import EscalationMonitor
        >>> monitor = EscalationMonitor()
        >>> for request in range(100):
        ...     monitor.observe(model="sim-small", escalated=request % 4 == 0, use_case="chat")
        >>> status = monitor.status()
        >>> status.rate, status.state
        (0.25, 'watch')
    """

    def __init__(
        self,
        window: int = 1000,
        window_s: float | None = None,
        reference: float | None = None,
        *,
        learn: int = 500,
        max_keys: int = 50,
        known: Collection[str] = (),
        limits: tuple[float, float, float] = LIMITS,
        shift: float = SHIFT,
        false_alarm_every: float = FALSE_ALARM_EVERY,
        on_alarm: Callable[[EscalationAlarm], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start with an empty window.

        Args:
            window: number of last requests that the rate is computed from, at least 50.
            window_s: largest age of these requests, in seconds; None: any age.
            reference: the expected escalation rate, in [0, 1]; None: learn it for each pair from its first requests.
            learn: number of first requests that the reference is learned from. With 500 requests, the probability of
                a false alarm within 5,000 requests stays below 5 %.
            max_keys: number of pairs of model and use case that have counts of their own. In later pairs, a name that
                is not `known` is counted as "other".
            known: names of models and use cases that always have counts of their own, however many names callers
                invent.
            limits: three rates in (0, 1): "watch" begins at the first, "act" above the second, "resize" above the
                third.
            shift: the smallest jump of the rate to detect, in (0, 1).
            false_alarm_every: smallest mean number of requests between false alarms of a pair, above 1.
            on_alarm: called once for each alarm, in the thread whose request raised it.
            clock: returns the time in seconds.

        Raises:
            InputError: an argument is out of its range.
        """
        if window < LEAST_REQUESTS:
            raise InputError(f"window is {window}; expected {LEAST_REQUESTS} requests or more")
        if window_s is not None and not window_s > 0:
            raise InputError(f"window_s is {window_s}; expected seconds above 0, or None")
        if learn < 1 or max_keys < 1:
            raise InputError(f"learn is {learn} and max_keys is {max_keys}; expected whole numbers of 1 or more")
        if not 0 < limits[0] < limits[1] < limits[2] < 1:
            raise InputError(f"limits are {limits}; expected three rates that rise, above 0 and below 1")
        self._cusum = partial(Cusum, shift=shift, false_alarm_every=false_alarm_every)
        self._cusum(
            0.0 if reference is None else reference
        )  # refuses a setting that is out of range now, not at the first request
        self._window = partial(Window, window, window_s)
        self._reference, self._learn, self._max_keys, self._limits = reference, learn, max_keys, limits
        self._known = frozenset(("", *known))
        self._on_alarm, self._clock = on_alarm, clock
        self._lock = new_lock()
        self._pairs: dict[tuple[str, str], _Pair] = {}
        # One window for all requests, one for each model, each use case and each pair.
        self._views: dict[Key, Window] = {(None, None): self._window()}
        self._reasons: set[str] = set()
        self._repeat_keys = RecentKeys(MAX_REPEAT_KEYS)

    def observe(
        self,
        *,
        model: str,
        escalated: bool,
        use_case: str = "",
        latency_s: float | None = None,
        cost_usd: float | None = None,
        degraded: str | None = None,
        key: Hashable | None = None,
    ) -> None:
        """Count one request.

        Bad values raise nothing: long names are cut, and a negative or infinite number is left out and counted in
        `Totals.ignored`.

        Args:
            model: name of the weak model, which was asked first.
            escalated: whether the request went on to the strong model.
            use_case: name of the use case that the request belongs to.
            latency_s: time from the request to the final answer, in seconds; None when it is not known.
            cost_usd: cost of all calls of the request, in USD; None when it is not known.
            degraded: the reason for a degraded answer, one of few words such as "timeout"; None: it is not degraded.
            key: equal for requests that are not independent, such as retries and the turns of a session. All of them
                are counted, and the first one tells whether the rate jumps. None: the request is independent.
        """
        escalated = bool(escalated)
        now = self._clock()
        with self._lock:
            name, pair = self._pair(model, use_case)
            reason = self._reason(degraded) if degraded else None
            request = Request(now, escalated, latency_s)
            for view in pair.views:
                view.add(request, cost_usd, reason)
            repeats = key is not None and not self._repeat_keys.add((name, key))
            changed = not repeats and self._judge(pair, escalated)
            alarm = None
            if changed and pair.cusum is not None and pair.cusum.alarmed:
                rate = pair.cusum.escalated / pair.cusum.requests
                alarm = EscalationAlarm(
                    model=name[0],
                    use_case=name[1],
                    reference=pair.cusum.reference,
                    rate=rate,
                    requests=pair.cusum.requests,
                    time=now,
                )
                for view in pair.views:
                    view.totals.alarms += 1
            if changed:
                pair.alarm = alarm
        # Outside the lock: the callback may ask for the status.
        if alarm is not None:
            announce([alarm], self._on_alarm)
        elif changed:
            logger.info("escalation rate of %r, use case %r, is back at its reference", *name)

    def observe_result(self, result: CascadeResult, *, key: Hashable | None = None) -> None:
        """Count the result of a cascade. The weak model is the model of its first call; `key` as in `observe`."""
        self.observe(
            model=result.calls[0].model if result.calls else result.model,
            escalated=result.escalated,
            use_case=result.use_case or "",
            latency_s=result.latency_s,
            cost_usd=result.cost_usd,
            degraded=result.degraded,
            key=key,
        )

    def status(self, model: str | None = None, use_case: str | None = None) -> EscalationStatus:
        """The status of escalation.

        Args:
            model: name of a weak model; None: all models together.
            use_case: name of a use case; None: all use cases together.

        Returns:
            The status. Its count is 0 when no request had that name.
        """
        return self._read(lambda: [_key(model, use_case)])[0]

    def statuses(self) -> list[EscalationStatus]:
        """The statuses of all pairs of model and use case at one moment."""
        return self._read(lambda: list(self._pairs))

    def as_dict(self) -> dict[str, Any]:
        """All statuses as plain data, ready for JSON: "overall" and the lists "models", "use_cases" and "pairs"."""
        lists: dict[str, list[Any]] = {"overall": [], "models": [], "use_cases": [], "pairs": []}
        for status in self._read(lambda: list(self._views)):
            both = "pairs" if status.model is not None else "use_cases"
            one = "models" if status.model is not None else "overall"
            lists[one if status.use_case is None else both].append(status.as_dict())
        return {**lists, "overall": lists["overall"][0]}

    def reset(self, model: str | None = None, use_case: str | None = None, *, relearn: bool = False) -> None:
        """End alarms and start the detection of jumps again. The window and the totals stay.

        Args:
            model: name of a weak model; None: all models.
            use_case: name of a use case; None: all use cases.
            relearn: learn the reference again, because the new rate is the right one. A given reference stays.
        """
        with self._lock:
            for pair in self._pairs_of(_key(model, use_case)):
                pair.alarm, pair.learned, pair.learned_escalated = None, 0, 0
                if pair.cusum is not None:
                    forget = relearn and self._reference is None
                    pair.cusum = None if forget else self._cusum(pair.cusum.reference)

    def _pair(self, model: str, use_case: str) -> tuple[tuple[str, str], _Pair]:
        """The pair that counts a request; a new pair is made while there are fewer than `max_keys`."""
        name = (model, use_case)
        if name not in self._pairs:
            name = (clean_name(model), clean_name(use_case))
        if name not in self._pairs and len(self._pairs) >= self._max_keys:
            known = self._known
            name = (
                name[0] if name[0] and name[0] in known else OTHER,
                name[1] if name[0] in known and name[1] in known else OTHER,
            )
        if name not in self._pairs:
            keys = ((None, None), (name[0], None), (None, name[1]), name)
            views = tuple(self._views.setdefault(key, self._window()) for key in keys)
            self._pairs[name] = _Pair(views, None if self._reference is None else self._cusum(self._reference))
        return name, self._pairs[name]

    def _reason(self, degraded: str) -> str:
        reason = clean_name(degraded)
        if reason not in self._reasons and len(self._reasons) >= MAX_REASONS:
            return OTHER
        self._reasons.add(reason)
        return reason

    def _judge(self, pair: _Pair, escalated: bool) -> bool:
        """Whether the alarm of a pair begins or ends with this request."""
        if pair.cusum is not None:
            return pair.cusum.update(escalated)
        pair.learned += 1
        pair.learned_escalated += escalated
        if pair.learned >= self._learn:
            pair.cusum = self._cusum(pair.learned_escalated / pair.learned)
        return False

    def _pairs_of(self, key: Key) -> list[_Pair]:
        model, use_case = key
        return [p for (m, u), p in self._pairs.items() if model in {None, m} and use_case in {None, u}]

    def _read(self, keys: Callable[[], Iterable[Key]]) -> list[EscalationStatus]:
        """The statuses at one moment, copied under the lock and computed outside it, so that requests do not wait."""
        now = self._clock()
        with self._lock:
            copies = []
            for key in keys():
                view = self._views.get(key) or self._window()
                pairs = self._pairs_of(key)
                alarms = [pair.alarm for pair in pairs if pair.alarm is not None]
                reference = self._reference
                if reference is None and len(pairs) == 1 and pairs[0].cusum is not None:
                    reference = pairs[0].cusum.reference
                newest = max(alarms, key=lambda alarm: alarm.time, default=None)
                copies.append((key, view.newest(now), view.totals.copy(), reference, newest))
        return [self._status(*copy) for copy in copies]

    def _status(
        self,
        key: Key,
        requests: Sequence[Request],
        totals: Totals,
        reference: float | None,
        alarm: EscalationAlarm | None,
    ) -> EscalationStatus:
        count, escalated = len(requests), sum(request.escalated for request in requests)
        state: EscalationState = "unknown"
        if count >= LEAST_REQUESTS:
            state = state_of(escalated / count, self._limits)
        return EscalationStatus(
            model=key[0],
            use_case=key[1],
            count=count,
            rate=escalated / count if count else None,
            interval=wilson(escalated, count),
            state=state,
            reference=reference,
            alarm=alarm,
            latency_escalated=percentiles(requests, True),
            latency_not_escalated=percentiles(requests, False),
            totals=totals,
        )


def _key(model: str | None, use_case: str | None) -> Key:
    return None if model is None else clean_name(model), None if use_case is None else clean_name(use_case)
