"""What the calls of a gateway used: joins each call with its decision, for the savings and for the decision log."""

from __future__ import annotations

import secrets
from collections import OrderedDict

from ..monitoring.decision_log import DecisionLog
from ..monitoring.savings import Savings
from ..monitoring.served_call import ServedCall
from ..routers.decision import Decision
from ..routers.forks import new_lock

#: So many decisions wait for whoever asked for them; one that was cancelled is never fetched.
_WAITING = 10_000


class CallLedger:
    """Hands calls to the savings, and to the decision log under the ids of their decisions. Threads may share one.

    Attributes:
        savings: counts the calls; None: nobody does.
        mark: what requests of this process carry in their metadata, so that a client cannot add calls of its own.

    Example:
        >>> from routelearn import Model
        >>> from routelearn.monitoring import Savings, ServedCall
        >>> from routelearn.service import CallLedger
        >>> ledger = CallLedger(Savings([Model("sim-max", 10.0, 30.0)]))
        >>> ledger.served(ServedCall(model="sim-max", strong="sim-max", input_tokens=9, output_tokens=9, time=0.0))
        >>> ledger.savings.report().requests
        1
    """

    def __init__(self, savings: Savings | None = None, log: DecisionLog | None = None) -> None:
        """Set who gets the calls; None: nobody."""
        self.savings = savings
        self.mark = secrets.token_hex(16)
        self._log = log
        self._lock = new_lock()
        # By identity: two requests may have equal decisions. The decision is kept, so that its number is not reused.
        self._ids: OrderedDict[int, tuple[Decision, str]] = OrderedDict()

    @property
    def counts(self) -> bool:
        """Whether anybody gets the calls."""
        return self.savings is not None or self._log is not None

    def decided(self, decision: Decision, log_id: str) -> None:
        """Keep the id that a decision has in the log."""
        with self._lock:
            self._ids[id(decision)] = decision, log_id
            if len(self._ids) > _WAITING:
                self._ids.popitem(last=False)

    def id_of(self, decision: Decision) -> str | None:
        """Fetch the id that a decision has in the log, once; None: it has none."""
        with self._lock:
            _, found = self._ids.pop(id(decision), (None, None))
        return found

    def served(self, call: ServedCall, log_id: str | None = None) -> None:
        """Take in a call.

        Args:
            call: the call.
            log_id: id of its decision in the log; None: it has none.
        """
        if self.savings is not None:
            self.savings.add(call)
        if self._log is not None and log_id is not None:
            self._log.write_usage(log_id, call)
