"""Watches the escalation rate of cascades: its state, its jumps, its latency tail; by model and by use case."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from ..routers.checks import OTHER, clean_name
from ..routers.errors import InputError
from .cusum import FALSE_ALARM_EVERY, SHIFT, Cusum
from .status import LEAST_REQUESTS, LIMITS, Alarm, Result, State, Status, state_of
from .window import Observed, Totals, Window, percentiles, wilson

logger = logging.getLogger(__name__)

#: Distinct reasons of degraded answers that are counted apart.
MAX_REASONS = 20

#: Model and use case; None stands for all of them.
Key = tuple[str | None, str | None]


class _Pair:
    """The jump detection of one (model, use case), and the views that its requests count in."""

    def __init__(self, views: tuple[Window, ...], cusum: Cusum | None) -> None:
        self.views = views
        self.cusum = cusum
        self.alarm: Alarm | None = None
        self.learned = self.learned_escalated = 0


class EscalationMonitor:
    """Counts escalations and says once when their rate jumps. Safe to share between threads.

    State by the rate of the window: below 20 % "healthy", to 40 % "watch",
    above "act", above 65 % "resize" the weak model (`limits`).

    Jumps are detected for each (model, use case) by a CUSUM against its
    reference (`monitoring/cusum.py`): one warning in the log and one call of
    `on_alarm`; the alarm then stands until the rate is back or `reset`.
    """

    def __init__(
        self,
        window: int = 1000,
        window_s: float | None = None,
        reference: float | None = None,
        *,
        learn: int = 500,
        max_keys: int = 50,
        limits: tuple[float, float, float] = LIMITS,
        shift: float = SHIFT,
        false_alarm_every: float = FALSE_ALARM_EVERY,
        on_alarm: Callable[[Alarm], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start with nothing observed.

        Args:
            window: the rate is that of the last so many requests, at least 50.
            window_s: and of the last so many seconds; None: of any age.
            reference: the expected escalation rate, in [0, 1]; None: each pair's rate over its first requests.
            learn: how many requests it is learned from. With 500 false alarms stay below 5 % in 5,000 requests.
            max_keys: pairs of model and use case; those that come later are counted under ("other", "other").
            limits: rates where "watch" begins, and above which it is "act" and "resize".
            shift: the smallest jump of the rate to detect.
            false_alarm_every: least mean number of requests between false alarms of a pair.
            on_alarm: called once an alarm, in the thread whose request set it off.
            clock: seconds.

        Raises:
            InputError: an argument is out of its range.
        """
        if window < LEAST_REQUESTS:
            raise InputError(f"window is {window}; expected at least {LEAST_REQUESTS} requests")
        if window_s is not None and not window_s > 0:
            raise InputError(f"window_s is {window_s}; expected seconds above 0, or None")
        if learn < 1 or max_keys < 1:
            raise InputError(f"learn is {learn} and max_keys {max_keys}; expected at least 1 of each")
        if not 0 < limits[0] < limits[1] < limits[2] < 1:
            raise InputError(f"limits are {limits}; expected three rising rates between 0 and 1")
        self._cusum = partial(Cusum, shift=shift, false_alarm_every=false_alarm_every)
        self._cusum(0.0 if reference is None else reference)  # says now what is out of range
        self._window = partial(Window, window, window_s)
        self._reference, self._learn, self._max_keys, self._limits = reference, learn, max_keys, limits
        self._on_alarm, self._clock = on_alarm, clock
        self._lock = threading.Lock()
        self._pairs: dict[tuple[str, str], _Pair] = {}
        # One window for everything, for each model, each use case and each pair.
        self._views: dict[Key, Window] = {(None, None): self._window()}
        self._reasons: set[str] = set()

    def observe(
        self,
        *,
        model: str,
        escalated: bool,
        use_case: str = "",
        latency_s: float | None = None,
        cost_usd: float | None = None,
        degraded: str | None = None,
    ) -> None:
        """Take in one request.

        Nothing that is observed raises: names are cut and bounded, and a
        negative or infinite number is left out and counted as ignored.

        Args:
            model: the weak model, which was asked first.
            escalated: the request went on to the strong model.
            use_case: what the request belongs to.
            latency_s: from the request to the final answer, seconds.
            cost_usd: of all its calls, USD.
            degraded: why the answer is not the one that was wanted (few distinct reasons; not a sentence a request).
        """
        escalated = bool(escalated)
        now = self._clock()
        with self._lock:
            name, pair = self._pair(model, use_case)
            reason = self._reason(degraded) if degraded else None
            request = Observed(now, escalated, latency_s)
            for view in pair.views:
                view.add(request, cost_usd, reason)
            changed = self._judge(pair, escalated)
            alarm = None
            if changed and pair.cusum is not None and pair.cusum.alarmed:
                rate = pair.cusum.escalated / pair.cusum.requests
                alarm = Alarm(*name, pair.cusum.reference, rate, pair.cusum.requests, now)
                for view in pair.views:
                    view.totals.alarms += 1
            if changed:
                pair.alarm = alarm
        # Outside the lock: the callback may ask for the status.
        if alarm is not None:
            self._announce(alarm)
        elif changed:
            logger.info("escalation rate of %r, use case %r, is back at its reference", *name)

    def observe_result(self, result: Result) -> None:
        """Take in what a cascade returned; the model is that of its first call."""
        self.observe(
            model=result.calls[0].model if result.calls else result.model,
            escalated=result.escalated,
            use_case=result.use_case or "",
            latency_s=result.latency_s,
            cost_usd=result.cost_usd,
            degraded=result.degraded,
        )

    def status(self, model: str | None = None, use_case: str | None = None) -> Status:
        """How escalation stands.

        Args:
            model: of this weak model; None: of all together.
            use_case: of this use case; None: of all together.

        Returns:
            The status; one without requests when there were none by that name.
        """
        return self._read(lambda: [_key(model, use_case)])[0]

    def statuses(self) -> list[Status]:
        """The status of each pair of model and use case, all of one moment."""
        return self._read(lambda: list(self._pairs))

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data, ready for JSON: "overall", and lists "models", "use_cases" and "pairs"."""
        lists: dict[str, list[Any]] = {"overall": [], "models": [], "use_cases": [], "pairs": []}
        for status in self._read(lambda: list(self._views)):
            both = "pairs" if status.model is not None else "use_cases"
            one = "models" if status.model is not None else "overall"
            lists[one if status.use_case is None else both].append(status.as_dict())
        return {**lists, "overall": lists["overall"][0]}

    def reset(self, model: str | None = None, use_case: str | None = None, *, relearn: bool = False) -> None:
        """End alarms and start the detection again; the window and the totals stay.

        Args:
            model: of this weak model; None: of all.
            use_case: of this use case; None: of all.
            relearn: learn the reference anew, because the new rate is the right one. A given reference stays.
        """
        with self._lock:
            for pair in self._pairs_of(_key(model, use_case)):
                pair.alarm, pair.learned, pair.learned_escalated = None, 0, 0
                if pair.cusum is not None:
                    forget = relearn and self._reference is None
                    pair.cusum = None if forget else self._cusum(pair.cusum.reference)

    def _pair(self, model: str, use_case: str) -> tuple[tuple[str, str], _Pair]:
        """The pair that a request counts in, made when it is new and there is room."""
        name = (model, use_case)
        if name not in self._pairs:
            name = (clean_name(model), clean_name(use_case))
        if name not in self._pairs and len(self._pairs) >= self._max_keys:
            name = (OTHER, OTHER)
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

    def _announce(self, alarm: Alarm) -> None:
        logger.warning("%s", alarm)
        if self._on_alarm is not None:
            try:
                self._on_alarm(alarm)
            except Exception:
                logger.exception("on_alarm failed; the request goes on")

    def _pairs_of(self, key: Key) -> list[_Pair]:
        model, use_case = key
        return [p for (m, u), p in self._pairs.items() if model in {None, m} and use_case in {None, u}]

    def _read(self, keys: Callable[[], Iterable[Key]]) -> list[Status]:
        """Statuses of one moment; copied under the lock, computed outside it, so that requests do not wait."""
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
        self, key: Key, requests: Sequence[Observed], totals: Totals, reference: float | None, alarm: Alarm | None
    ) -> Status:
        count, escalated = len(requests), sum(request.escalated for request in requests)
        state: State = "unknown"
        if count >= LEAST_REQUESTS:
            state = state_of(escalated / count, self._limits)
        return Status(
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
