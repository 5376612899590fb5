"""What the monitor reads and tells: a cascade's result; the state that a rate asks for, alarms, the status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from .window import Latency, Totals

State = Literal["unknown", "healthy", "watch", "act", "resize"]
#: From the first limit on "watch", above the second "act", above the third "resize" (the middle of 60-70 %).
LIMITS = (0.2, 0.4, 0.65)
#: With fewer requests in the window the state is "unknown".
LEAST_REQUESTS = 50


class Call(Protocol):
    """What the monitor reads of one call of a model."""

    @property
    def model(self) -> str:
        """The model that was asked."""
        ...


class Result(Protocol):
    """What the monitor reads of a cascade's result; see `EscalationMonitor.observe` for the meanings."""

    @property
    def model(self) -> str:
        """The model that answered."""
        ...

    @property
    def calls(self) -> Sequence[Call]:
        """The calls in their order: the first is to the weak model."""
        ...

    @property
    def escalated(self) -> bool:
        """The request went on to the strong model."""
        ...

    @property
    def use_case(self) -> str | None:
        """The use case, if any."""
        ...

    @property
    def latency_s(self) -> float | None:
        """Seconds."""
        ...

    @property
    def cost_usd(self) -> float | None:
        """USD."""
        ...

    @property
    def degraded(self) -> str | None:
        """Why the answer is a degraded one, if it is."""
        ...


@dataclass(frozen=True, slots=True)
class Alarm:
    """The escalation rate of a model in a use case has jumped.

    Attributes:
        model: the weak model.
        use_case: the use case ("": none).
        reference: the rate that was expected.
        rate: the rate since the estimated time of the jump.
        requests: requests since that time.
        time: seconds of the monitor's clock.
    """

    model: str
    use_case: str
    reference: float
    rate: float
    requests: int
    time: float

    def __str__(self) -> str:
        use_case = f", use case {self.use_case!r}" if self.use_case else ""
        return (
            f"escalation rate of {self.model!r}{use_case} jumped to {self.rate:.0%} over {self.requests} requests; "
            f"expected {self.reference:.0%}"
        )


@dataclass(frozen=True, slots=True)
class Status:
    """How escalation stands.

    Attributes:
        model: the weak model; None: all of them together.
        use_case: the use case; None: all of them together.
        count: requests in the window.
        rate: escalated requests / requests in the window; None when it is empty.
        interval: 95 % interval of the rate (Wilson 1927).
        state: what the rate asks for; "unknown" with few requests.
        reference: the expected rate; None: not learned yet, or several models or use cases together.
        alarm: the newest alarm whose rate is not back.
        latency_escalated: of escalated requests in the window; None: not known.
        latency_not_escalated: of the others.
        totals: sums since the start.
    """

    model: str | None
    use_case: str | None
    count: int
    rate: float | None
    interval: tuple[float, float]
    state: State
    reference: float | None
    alarm: Alarm | None
    latency_escalated: Latency | None
    latency_not_escalated: Latency | None
    totals: Totals

    def as_dict(self) -> dict[str, Any]:
        """The status as plain data, ready for JSON."""
        return asdict(self)


def state_of(rate: float, limits: tuple[float, float, float] = LIMITS) -> State:
    """What an escalation rate asks for."""
    watch, act, resize = limits
    if rate < watch:
        return "healthy"
    if rate <= act:
        return "watch"
    return "act" if rate <= resize else "resize"
