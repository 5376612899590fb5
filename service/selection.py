"""The model that a gateway asks for one request, and the models to ask when it fails."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..routers.decision import Decision


@dataclass(frozen=True, slots=True)
class Selection:
    """The model that a gateway asks for one request.

    Attributes:
        model: the gateway's name of the model to ask.
        fallbacks: the gateway's names of the models to ask when the first one fails, in order.
        reason: why this model is asked: the breaker's reason where a breaker changed the model, else the decision's.
        decision: what the router decided, in the pool's names.
        asked: the pool's name of the model to ask.
        lease: number of the probe that this request is; None: the request is not a probe. See `Choice`.

    Example:
        >>> import asyncio, routelearn
        >>> from routelearn.policies import Threshold
        >>> from routelearn.service import Gateway
        >>> gateway = Gateway(routelearn.load("router/"), policy=Threshold(0.0))  # every score goes to strong
        >>> selection = asyncio.run(gateway.select("Prove that every group of order 15 is cyclic."))
        >>> selection.model, selection.decision.cause
        ('sim-max', 'threshold')
        >>> gateway.close()
    """

    model: str
    fallbacks: tuple[str, ...]
    reason: str
    decision: Decision
    asked: str
    lease: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The selection as plain data, ready for JSON."""
        return asdict(self)
