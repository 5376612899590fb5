"""One router behind a gateway: batches, breakers, monitoring, and the gateway's names of the models."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..availability.availability import Availability, Choice
from ..routers.base import Context, Decision, Policy, Router
from ..routers.errors import InputError
from ..routers.query import Query
from .batcher import Batcher, safe_decision

if TYPE_CHECKING:
    from ..monitoring.decision_log import DecisionLog
    from ..monitoring.routing import RouteMonitor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which model a gateway asks.

    Attributes:
        model: the gateway's name of the model to ask.
        fallbacks: the gateway's names of the models to ask when it fails, in order.
        reason: why the model is not the decision's, where a breaker says so; else the decision's reason.
        decision: what the router decided, in the pool's names.
        asked: the pool's name of the model to ask.
        lease: of the probe that this request is; see `Choice`.
    """

    model: str
    fallbacks: tuple[str, ...]
    reason: str
    decision: Decision
    asked: str
    lease: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """As plain data, ready for JSON."""
        return asdict(self)


class Gateway:
    """Chooses models for the requests of a gateway and learns from what became of them. Never raises on a request.

    Attributes:
        router: the router.
        batcher: scores the requests.
        availability: breakers, or None: every model is taken to answer.
    """

    def __init__(
        self,
        router: Router,
        *,
        models: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        availability: Availability | None = None,
        monitor: RouteMonitor | None = None,
        log: DecisionLog | None = None,
        max_batch: int = 32,
        max_waiting: int = 1000,
        timeout_s: float = 1.0,
    ) -> None:
        """Check that the names fit together.

        Args:
            router: mostly a `FallbackRouter`.
            models: from the pool's names to the gateway's, of those that the gateway has; None: all, by their names.
            policy: None: the router's own threshold.
            availability: circuit breakers.
            monitor: counts the decisions.
            log: keeps the decisions.
            max_batch: see `Batcher`.
            max_waiting: see `Batcher`.
            timeout_s: see `Batcher`.

        Raises:
            InputError: a name that is not in the pool, strong or weak left out, or two models with one name at the
                gateway.
        """
        self._names = dict(models) if models is not None else {name: name for name in router.models}
        unknown = set(self._names) - set(router.models)
        if unknown:
            raise InputError(f"models names {sorted(unknown)}, not in the pool; there are {list(router.models)}")
        if not {router.strong, router.weak} <= set(self._names):
            raise InputError(
                f"models are {list(self._names)}; expected {router.strong!r} and {router.weak!r} among them"
            )
        gateway_names = {gateway: name for name, gateway in self._names.items()}
        self._pool = {**{name: name for name in self._names}, **gateway_names}
        if len(gateway_names) != len(self._names):
            raise InputError(f"two models have one name at the gateway: {self._names}")
        self.router = router
        self.availability = availability
        self._monitor = monitor
        self._log = log
        self.batcher = Batcher(
            router,
            policy,
            max_batch=max_batch,
            max_waiting=max_waiting,
            timeout_s=timeout_s,
            on_decision=self._on_decision,
        )

    def name(self, model: str) -> str:
        """The gateway's name of a model of the pool."""
        return self._names[model]

    def pool_name(self, *names: str | None) -> str | None:
        """The model of the pool that the first known of these names stands for, or None.

        Known are the gateway's names and the pool's, and both behind a provider: "openai/x" is x.
        """
        for name in names:
            for form in (name or "", (name or "").split("/", 1)[-1]):
                if form in self._pool:
                    return self._pool[form]
        return None

    async def decide(self, query: Query, context: Context | None = None, policy: Policy | None = None) -> Decision:
        """The router's decision; for a query that is none, the safe answer."""
        try:
            return await self.batcher.route(query, context, policy)
        except InputError as error:
            logger.info("a request cannot be scored, %s answers: %s", self.router.strong, error)
            decision = safe_decision(self.router, "error", str(error))
            self._on_decision(query, decision, novelty=None, vector=None, latency_s=None)
            return decision

    async def select(self, query: Query, context: Context | None = None, policy: Policy | None = None) -> Selection:
        """The model to ask, and those to ask when it fails."""
        decision = await self.decide(query, context, policy)
        offered = tuple(model for model in decision.candidates if model in self._names)
        if self.availability is None:
            rest = tuple(self._names[model] for model in offered[1:])
            return Selection(self._names[offered[0]], rest, decision.reason, decision, offered[0])
        choice = self.availability.choose(offered)
        rest = tuple(self._names[model] for model in self.availability.fallbacks(offered) if model != choice.model)
        reason = decision.reason if choice.model == decision.model else choice.reason
        return Selection(self._names[choice.model], rest, reason, decision, choice.model, choice.lease)

    def strong_answers(self) -> bool:
        """Whether the strong model is asked when it is wanted."""
        return self.availability is None or self.availability.is_available(self.router.strong)

    def record(
        self,
        model: str,
        *,
        ok: bool,
        latency_s: float | None = None,
        error: BaseException | None = None,
        selection: Mapping[str, Any] | None = None,
    ) -> None:
        """How a call of a model of the pool ended.

        Args:
            model: the pool's name.
            ok: it answered.
            latency_s: seconds that it took.
            error: what went wrong.
            selection: of the request, as a dict, if it was routed here: an outcome settles no other request's probe.
        """
        if self.availability is None:
            return
        chosen = selection is not None and selection.get("asked") == model
        called = Choice(model, 0, "", lease=selection.get("lease")) if chosen and selection else model
        self.availability.record(called, ok=ok, latency_s=latency_s, error=error)

    def close(self) -> None:
        """Stop the worker; requests that still wait get the safe answer."""
        self.batcher.close()

    def _on_decision(
        self, query: Query, decision: Decision, *, novelty: float | None, vector: Any, latency_s: float | None
    ) -> None:
        if self._monitor is not None:
            self._monitor.observe(decision, novelty=novelty, vector=vector, latency_s=latency_s)
        if self._log is not None:
            self._log.write(query, decision, latency_s=latency_s)
