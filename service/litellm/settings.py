"""The gateway and its plug-ins as environment variables describe them; docs/litellm.md lists the variables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar

from ...availability.availability import Availability
from ...availability.breaker import BreakerLimits
from ...cascade.verifier import load_verifier
from ...monitoring.availability_metrics import register_availability_metrics
from ...monitoring.decision_log import DecisionLog
from ...monitoring.escalation import EscalationMonitor
from ...monitoring.prometheus import register_metrics
from ...monitoring.route_metrics import register_route_metrics
from ...monitoring.routing import RouteMonitor
from ...policies.threshold import StrongShare, Threshold
from ...routers.base import Policy
from ...routers.errors import InputError, require
from ...routers.fallback import FallbackRouter
from ..gateway import Gateway
from .cascade import PostCallCascade
from .plugins import ClassifierPlugin, RoutingPlugin
from .request_hook import TRIGGERS, Hook, make_hook

logger = logging.getLogger(__name__)

PREFIX = "ROUTELEARN_"
NAMES = (
    "ROUTER",
    "STRONG",
    "WEAK",
    "MODELS",
    "THRESHOLD",
    "STRONG_SHARE",
    "TRIGGERS",
    "TIERS",
    "TIMEOUT_MS",
    "BREAKERS",
    "RESET_TIMEOUT_S",
    "LOG",
    "METRICS_PORT",
    "METRICS_HOST",
    "VERIFIER",
    "ESCALATE_BELOW",
)
#: Variables of other parts of routelearn.
_OTHERS = ("CACHE", "DATA")

T = TypeVar("T")


class Plugins:
    """The objects that LiteLLM's configuration names, with one gateway behind them; each made when first asked for.

    Every attribute raises `InputError`, naming the variable, when a setting is
    missing or unusable: the proxy then does not start.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Take the variables; nothing is read before it is needed."""
        self._environment = environment
        known = {PREFIX + name for name in (*NAMES, *_OTHERS)}
        for name in sorted(name for name in environment if name.startswith(PREFIX) and name not in known):
            logger.warning("%s is no setting; there are %s", name, ", ".join(PREFIX + name for name in NAMES))

    @cached_property
    def gateway(self) -> Gateway:
        """Router, breakers, monitor and log; its metrics are served on a port of their own."""
        bundle, strong, weak = (self._get(name, str) for name in ("ROUTER", "STRONG", "WEAK"))
        if bundle is None and (strong is None or weak is None):
            raise InputError("set ROUTELEARN_ROUTER to a bundle, or ROUTELEARN_STRONG and ROUTELEARN_WEAK for rules")
        router = FallbackRouter(bundle, strong=strong, weak=weak)
        models = self._get("MODELS", _names)
        log = self._get("LOG", str)
        availability = None
        if self._get("BREAKERS", _switch) is not False:
            reset = self._get("RESET_TIMEOUT_S", float)
            limits = None if reset is None else BreakerLimits(reset_timeout_s=reset)
            availability = Availability(tuple(models or router.models), limits)
        monitor = RouteMonitor(router)
        self._serve_metrics(monitor, availability)
        return Gateway(
            router,
            models=models,
            policy=self._policy(router),
            availability=availability,
            monitor=monitor,
            log=None if log is None else DecisionLog(log),
            timeout_s=(self._get("TIMEOUT_MS", float) or 1000.0) / 1000,
        )

    @cached_property
    def hook(self) -> Hook:
        """The callback; with a verifier, it cascades."""
        triggers = self._get("TRIGGERS", lambda text: tuple(filter(None, text.split(","))))
        return make_hook(self.gateway, triggers=triggers or TRIGGERS, cascade=self._cascade())

    @cached_property
    def routing_plugin(self) -> RoutingPlugin:
        """The routing plug-in."""
        return RoutingPlugin(self.gateway)

    @cached_property
    def classifier_plugin(self) -> ClassifierPlugin:
        """The classifier plug-in."""
        return ClassifierPlugin(self.gateway, self._get("TIERS", _lowest_scores))

    @cached_property
    def _registry(self) -> Any:
        """Apart from the default registry, which LiteLLM's own metrics are in."""
        return require("prometheus_client", "litellm").CollectorRegistry()

    def _serve_metrics(self, monitor: RouteMonitor, availability: Availability | None) -> None:
        port = self._get("METRICS_PORT", int)
        if port is None:
            return
        register_route_metrics(monitor, self._registry)
        if availability is not None:
            register_availability_metrics(availability, self._registry)
        host = self._get("METRICS_HOST", str) or "127.0.0.1"
        try:
            require("prometheus_client", "litellm").start_http_server(port, addr=host, registry=self._registry)
        except OSError as error:  # a second worker process of the proxy: it has counts of its own, and no port
            logger.error("no metrics at %s:%d: %s", host, port, error)

    def _policy(self, router: FallbackRouter) -> Policy | None:
        threshold, share = self._get("THRESHOLD", float), self._get("STRONG_SHARE", float)
        if threshold is not None and share is not None:
            raise InputError("ROUTELEARN_THRESHOLD and ROUTELEARN_STRONG_SHARE are both set; expected one of them")
        if share is not None:
            policy = StrongShare(share)
            policy.threshold_of(router)  # a router without a table is refused now, not at every request
            return policy
        return None if threshold is None else Threshold(threshold)

    def _cascade(self) -> PostCallCascade | None:
        bundle, threshold = self._get("VERIFIER", str), self._get("ESCALATE_BELOW", float)
        if bundle is None:
            return None
        verifier = load_verifier(bundle)
        monitor = None
        if self._get("METRICS_PORT", int) is not None:
            monitor = EscalationMonitor()
            register_metrics(monitor, self._registry)
        threshold = verifier.threshold if threshold is None else threshold
        return PostCallCascade(self.gateway, verifier, threshold, monitor=monitor)

    def _get(self, name: str, read: Callable[[str], T]) -> T | None:
        text = self._environment.get(PREFIX + name)
        if not text:
            return None
        try:
            return read(text)
        except ValueError as error:
            raise InputError(f"{PREFIX}{name} is {text!r}: {error}") from error


def _names(text: str) -> dict[str, str]:
    return {name: gateway or name for name, _, gateway in (item.strip().partition("=") for item in text.split(","))}


def _lowest_scores(text: str) -> dict[str, float]:
    pairs = [item.partition("=") for item in text.split(",")]
    return {name.strip(): float(lowest) for name, _, lowest in pairs}


def _switch(text: str) -> bool:
    if text.lower() not in {"on", "off"}:
        raise ValueError("expected on or off")
    return text.lower() == "on"
