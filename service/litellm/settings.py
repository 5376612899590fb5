"""Builds the gateway and its plug-ins from environment variables; docs/litellm.md lists the variables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import Any, TypeVar

from ...availability.availability import Availability
from ...availability.breaker import BreakerLimits
from ...cascade.verifier import load_verifier
from ...monitoring.decision_log import DecisionLog
from ...monitoring.escalation import EscalationMonitor
from ...monitoring.prometheus import register
from ...monitoring.routing import RouteMonitor
from ...monitoring.savings import Savings
from ...policies.composed import Explore
from ...policies.conversation import MARGIN, Conversations
from ...policies.session_lengths import SessionLengths
from ...policies.switch_price import SwitchPrices
from ...policies.threshold import StrongShare, Threshold
from ...routers.base import Policy
from ...routers.decision import Model
from ...routers.errors import InputError, require
from ...routers.fallback import FallbackRouter
from ...routers.pool_file import read_pool
from ..defaults import LOCAL_ADDRESS, MOST_SESSIONS, BatchLimits
from ..gateway import Gateway
from ..redis_link import RedisLink
from ..request_rules import RequestRules
from ..session_ids import HEADERS, SessionNames
from ..shared_breakers import SharedBreakers
from ..shared_sessions import SharedSessions, shared_salt
from ..wire_names import PREFIX, VARIABLES
from ..wire_names import LiteLLMVariable as Variable
from .cascade import PostCallCascade
from .cost_map import known_model
from .plugins import ClassifierPlugin, RoutingPlugin
from .request_hook import TRIGGERS, Hook, make_hook

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Plugins:
    """The objects that LiteLLM's configuration names, with one gateway behind them; each is built at its first use.

    Every attribute raises `InputError`, which names the variable, when a variable is missing or cannot be used: the
    proxy then does not start.

    Example:
        >>> from routelearn.service import Plugins
        >>> plugins = Plugins({"ROUTELEARN_ROUTER": "router/", "ROUTELEARN_MODELS": "sim-max=large,sim-small=small"})
        >>> plugins.gateway.name("sim-max")
        'large'
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Set the variables, and warn about unknown ones; nothing else is read before its first use.

        Args:
            environment: values by the names of the variables, such as `os.environ`.
        """
        self._environment = environment
        for name in sorted(name for name in environment if name.startswith(PREFIX) and name not in VARIABLES):
            known = [variable.value for variable in Variable]
            expected = get_close_matches(name, known, n=1) or known
            logger.warning("%s is no setting of routelearn; expected %s", name, " or ".join(expected))

    @cached_property
    def gateway(self) -> Gateway:
        """The router with its breakers, monitor and log; its metrics have a port of their own."""
        bundle, strong, weak = (self._get(name, str) for name in (Variable.ROUTER, Variable.STRONG, Variable.WEAK))
        if bundle is None and (strong is None or weak is None):
            raise InputError(
                f"{Variable.ROUTER.value} is not set; expected a bundle, "
                f"or {Variable.STRONG.value} and {Variable.WEAK.value} for the general router and rules"
            )
        general = self._get(Variable.GENERAL, _switch) is not False
        router = FallbackRouter(bundle, strong=strong, weak=weak, general=general)
        _ = router.general  # loaded now, so that no request waits for it
        models = self._get(Variable.MODELS, _names)
        availability = None
        if self._get(Variable.BREAKERS, _switch) is not False:
            breaker_limits = self._get(
                Variable.RESET_TIMEOUT_S, lambda text: BreakerLimits(reset_timeout_s=_number(text))
            )
            availability = Availability(tuple(models or router.models), breaker_limits)
        if self._link is not None and availability is not None:
            SharedBreakers(self._link, availability)  # the breakers keep it
        monitor = RouteMonitor(router)
        pool = self._pool(models or {name: name for name in router.models})
        models_known = list({model.name: model for model in (*router.pool, *pool)}.values())
        savings = Savings(
            models_known,
            cache_ttl_s=self._get(Variable.CACHE_TTL_S, _number) or 300.0,
            router_usd=self._get(Variable.ROUTER_USD, _number) or 0.0,
        )
        self._serve_metrics(monitor, availability, savings)
        return Gateway(
            router,
            models=models,
            policy=self._policy(router),
            availability=availability,
            monitor=monitor,
            log=self._log(),
            limits=self._get(Variable.TIMEOUT_MS, lambda text: BatchLimits(timeout_s=_number(text) / 1000)),
            rules=RequestRules(
                reads_agents=self._get(Variable.AGENTS, _switch) is not False,
                pool=pool,
                sessions=self._sessions(models_known),
                session_names=SessionNames(
                    headers=(*(self._get(Variable.SESSION_HEADERS, _headers) or ()), *HEADERS),
                    user=self._get(Variable.SESSION_BY_USER, _switch) is True,
                ),
            ),
            savings=savings,
            shadow=self._get(Variable.SHADOW, _switch) is True,
        )

    def _sessions(self, models: list[Model]) -> Conversations | None:
        """What keeps the models of sessions, by prices where they are known; None: sessions are off."""
        margin = self._get(Variable.SESSION_MARGIN, _number)
        switch = self._get(Variable.SESSIONS, _switch)
        if switch is False or (switch is None and margin is None):
            return None
        prices = None
        if margin is None and any(model.input_price is not None for model in models):
            prices = SwitchPrices(
                models=models,
                cache_ttl_s=self._get(Variable.CACHE_TTL_S, _number) or 300.0,
                value_usd=self._get(Variable.ANSWER_VALUE_USD, _number),
            )
        elif margin is None:
            logger.warning(
                "sessions are on, and no prices are known: each decision is followed; expected %s with prices, %s=on, "
                "or %s",
                Variable.POOL.value,
                Variable.COST_MAP.value,
                Variable.SESSION_MARGIN.value,
            )
        store, salt = self._shared
        return Conversations(
            # Beside prices, the margin is for decisions of rules. Without either, every decision is followed.
            margin if margin is not None else 0.0 if prices is None else MARGIN,
            prices=prices,
            lengths=self._get(Variable.SESSION_REQUESTS, lambda text: SessionLengths(_number(text), learns=False)),
            max_sessions=MOST_SESSIONS,
            store=store,
            salt=salt,
        )

    @cached_property
    def _link(self) -> RedisLink | None:
        """The Redis or Valkey that the replicas share."""
        url = self._get(Variable.REDIS_URL, str)
        try:
            return None if url is None else RedisLink(url)
        except InputError as error:  # which does not show the URL: it may hold a password
            raise InputError(f"{Variable.REDIS_URL.value}: {error}") from None

    @property
    def _shared(self) -> tuple[SharedSessions | None, bytes | None]:
        """Where the replicas keep sessions, and the salt of their ids."""
        if self._link is None:
            return None, None
        return SharedSessions(self._link, max_sessions=MOST_SESSIONS), shared_salt(self._get(Variable.LOG_SALT, str))

    def _pool(self, names: Mapping[str, str]) -> list[Model]:
        """What is known of the models: from LiteLLM's cost map, and from a file, which goes first."""
        known: dict[str, Model] = {}
        if self._get(Variable.COST_MAP, _switch):
            for name, served_as in names.items():
                model = known_model(name, served_as=served_as) or known_model(name)
                if model is None:
                    logger.warning("LiteLLM's cost map does not know %s, nor %s", served_as, name)
                else:
                    known[name] = model
        return list((known | {model.name: model for model in self._get(Variable.POOL, read_pool) or ()}).values())

    def _log(self) -> DecisionLog | None:
        path, salt = self._get(Variable.LOG, str), self._get(Variable.LOG_SALT, str)
        keep_prompts = self._get(Variable.LOG_PROMPTS, _switch) is True
        return None if path is None else DecisionLog(path, keep_prompts=keep_prompts, salt=salt)

    @cached_property
    def hook(self) -> Hook:
        """The callback; with a verifier, it runs a cascade."""
        triggers = self._get(Variable.TRIGGERS, lambda text: tuple(filter(None, text.split(","))))
        hook = make_hook(self.gateway, triggers=triggers or TRIGGERS, cascade=self._cascade())
        if self._get(Variable.METRICS_PORT, _port) is not None:
            self._registry.register(hook.served)
        return hook

    @cached_property
    def routing_plugin(self) -> RoutingPlugin:
        """The routing plug-in."""
        return RoutingPlugin(self.gateway)

    @cached_property
    def classifier_plugin(self) -> ClassifierPlugin:
        """The classifier plug-in."""
        return ClassifierPlugin(self.gateway, self._get(Variable.TIERS, _lowest_scores))

    @cached_property
    def _registry(self) -> Any:
        """A registry of its own, because the default registry holds LiteLLM's metrics."""
        return require("prometheus_client", "litellm").CollectorRegistry()

    def _serve_metrics(self, monitor: RouteMonitor, availability: Availability | None, savings: Savings) -> None:
        port = self._get(Variable.METRICS_PORT, _port)
        if port is None:
            return
        register(monitor, self._registry)
        register(savings, self._registry)
        if availability is not None:
            register(availability, self._registry)
        host = self._get(Variable.METRICS_HOST, str) or LOCAL_ADDRESS
        try:
            require("prometheus_client", "litellm").start_http_server(port, addr=host, registry=self._registry)
        except OSError as error:  # a second worker process of the proxy counts for itself, and has no port
            logger.error("no metrics at %s:%d: %s", host, port, error)

    def _policy(self, router: FallbackRouter) -> Policy | None:
        threshold = self._get(Variable.THRESHOLD, lambda text: Threshold(_number(text)))
        share = self._get(Variable.STRONG_SHARE, lambda text: StrongShare(_number(text)))
        if threshold is not None and share is not None:
            raise InputError(
                f"{Variable.THRESHOLD.value} and {Variable.STRONG_SHARE.value} are both set; expected one of them"
            )
        if share is not None:
            share.threshold_of(router)  # refuses a router without a threshold table now, and not at every request
        policy, explored = share or threshold, self._get(Variable.EXPLORE, _number)
        if not explored:
            return policy
        return Explore(policy, explored, candidates=tuple(self._get(Variable.MODELS, _names) or router.models))

    def _cascade(self) -> PostCallCascade | None:
        bundle, threshold = self._get(Variable.VERIFIER, str), self._get(Variable.ESCALATE_BELOW, _confidence)
        if bundle is None:
            return None
        verifier = load_verifier(bundle)
        monitor = None
        if self._get(Variable.METRICS_PORT, _port) is not None:
            monitor = EscalationMonitor()
            register(monitor, self._registry)
        threshold = verifier.threshold if threshold is None else threshold
        return PostCallCascade(self.gateway, verifier, threshold, monitor=monitor)

    def _get(self, variable: Variable, read: Callable[[str], T]) -> T | None:
        text = self._environment.get(variable.value)
        if not text:
            return None
        try:
            return read(text)
        except ValueError as error:
            raise InputError(f"{variable.value} is {text!r}: {error}") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("expected a number") from None


def _confidence(text: str) -> float:
    confidence = _number(text)
    if not 0 <= confidence <= 1:
        raise ValueError("expected a number from 0 to 1")
    return confidence


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise ValueError("expected a whole number from 0 to 65535")
    return int(text)


def _names(text: str) -> dict[str, str]:
    """The gateway's names of models by the pool's, from POOL_NAME=GATEWAY_NAME,..."""
    return {name: gateway or name for name, _, gateway in (item.strip().partition("=") for item in text.split(","))}


def _lowest_scores(text: str) -> dict[str, float]:
    """The lowest score of each tier, from TIER=SCORE,..."""
    pairs = [item.partition("=") for item in text.split(",")]
    try:
        return {name.strip(): float(lowest) for name, _, lowest in pairs}
    except ValueError:
        raise ValueError("expected tiers with their lowest scores, such as SIMPLE=0,COMPLEX=0.5") from None


def _headers(text: str) -> list[str]:
    return [name.strip().lower() for name in text.split(",") if name.strip()]


def _switch(text: str) -> bool:
    if text.lower() not in {"on", "off"}:
        raise ValueError("expected on or off")
    return text.lower() == "on"
