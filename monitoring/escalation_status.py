"""The state of escalation at one moment."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .alarms import EscalationAlarm, EscalationState
from .window import Latency, Totals


@dataclass(frozen=True, slots=True)
class EscalationStatus:
    """The state of escalation for a model, a use case, both, or all requests.

    Attributes:
        model: name of the weak model; None: all models together.
        use_case: name of the use case; None: all use cases together.
        count: number of requests in the window.
        rate: escalated requests / requests in the window, in [0, 1]; None when the window is empty.
        interval: 95 % interval of the rate (Wilson 1927).
        state: the state of the rate: "unknown" (few requests), "healthy", "watch", "act" or "resize".
        reference: the expected rate; None when it is not learned yet, or for several models or use cases together.
        alarm: the newest alarm whose rate is not back; None when there is none.
        latency_escalated: latency of the escalated requests in the window; None when it is not known.
        latency_not_escalated: latency of the other requests in the window; None when it is not known.
        totals: totals since the start.

    Example:
        >>> from routelearn.monitoring import EscalationMonitor
        >>> status = EscalationMonitor().status("sim-small")
        >>> status.model, status.count, status.state, status.interval
        ('sim-small', 0, 'unknown', (0.0, 1.0))
    """

    model: str | None
    use_case: str | None
    count: int
    rate: float | None
    interval: tuple[float, float]
    state: EscalationState
    reference: float | None
    alarm: EscalationAlarm | None
    latency_escalated: Latency | None
    latency_not_escalated: Latency | None
    totals: Totals

    def as_dict(self) -> dict[str, Any]:
        """The status as plain data, ready for JSON."""
        return asdict(self)
