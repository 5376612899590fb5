"""What calls used, as callers report it: for the savings, and for the decision log."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence

from ...monitoring.decision_log import KNOWN_IDS, DecisionLog
from ...monitoring.savings import Savings
from ...monitoring.served_call import ServedCall
from ...routers.decision import Decision
from ...routers.forks import new_lock
from .outcome_fields import CallUsage
from .replies import RequestError
from .slot import RouterSlot


class UsageReceiver:
    """Joins calls with the decisions that were drawn, and hands them on. Threads may share one."""

    def __init__(self, savings: Savings, log: DecisionLog | None, slot: RouterSlot) -> None:
        """Set who gets the calls.

        Args:
            savings: counts them.
            log: gets the calls of logged decisions; None: there is no log, and a call with an id is refused.
            slot: names the strong model.
        """
        self.savings = savings
        self._log = log
        self._slot = slot
        self._lock = new_lock()
        # The newest decisions that were drawn at random, by their ids in the log: the model, and its probability.
        self._drawn: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def decided(self, ids: Sequence[str], decisions: Sequence[Decision]) -> None:
        """Keep which decisions were drawn at random; without exploration there are none."""
        for name, decision in zip(ids, decisions, strict=True):
            if decision.propensity < 1:
                with self._lock:
                    self._drawn[name] = decision.model, decision.propensity
                    if len(self._drawn) > KNOWN_IDS:
                        self._drawn.popitem(last=False)

    def check(self, entries: Sequence[CallUsage]) -> None:
        """Refuse calls that cannot be.

        Raises:
            RequestError: one of them has more cached tokens than it read, or an id though there is no log.
        """
        for number, entry in enumerate(entries):
            cached, read = int(entry.get("cached_tokens", 0)), int(entry["input_tokens"])
            if cached > read:
                param = f"usage[{number}].cached_tokens"
                message = f"{param} is {cached}; expected at most input_tokens, which is {read}"
                raise RequestError(422, "invalid_request", message, param)
            if self._log is None and "id" in entry:
                message = "the service has no decision log; expected it to run with --decision-log FILE"
                raise RequestError(422, "invalid_request", message, f"usage[{number}].id")

    def take(self, entries: Sequence[CallUsage]) -> int:
        """Take in calls: how many have an id that this process did not give."""
        unknown, now = 0, time.time()
        for entry in entries:
            name = entry.get("id")
            with self._lock:
                chosen, propensity = self._drawn.pop(name or "", (entry["model"], 1.0))
            call = ServedCall(
                model=entry["model"],
                chosen=chosen,
                strong=self._slot.current.router.strong,
                session=entry.get("session"),
                input_tokens=int(entry["input_tokens"]),
                cached_tokens=int(entry.get("cached_tokens", 0)),
                output_tokens=int(entry["output_tokens"]),
                cost_usd=entry.get("cost_usd"),
                propensity=propensity,
                time=now,
            )
            self.savings.add(call)
            if self._log is not None and name is not None:
                unknown += not self._log.write_usage(name, call)
        return unknown
