"""The callback for the LiteLLM proxy: chooses the model of a request, and records how calls ended.

LiteLLM calls a callback only if its class is derived from a class of LiteLLM. `make_hook` derives such a class when it
is called, so nothing of LiteLLM is imported before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from ...routers.errors import InferenceError, require
from ..gateway import Gateway
from ..request_facts import NOTHING_KNOWN
from ..wire_names import METADATA_RECEIVED, METADATA_SELECTION, METADATA_SESSION, METADATA_STARTED
from .cascade import PostCallCascade
from .requests import context_of, drop_forged, headers_of, metadata_of, owner_of, policy_of, query_of, selection_in
from .seat import prepare
from .served import ServedByOther, answering, chosen
from .usage import count_call, note_request

logger = logging.getLogger(__name__)

#: Names of models that ask the hook to choose.
TRIGGERS = ("auto", "routelearn")
#: Kinds of responses that no request goes on from by their ids.
_NOT_GONE_ON_FROM = ("chat.completion", "text_completion")


class Hook:
    """The callback, without LiteLLM's base class; `make_hook` adds the base class.

    Attributes:
        cascade: judges the answers of the weak model; None: they are taken as they are.
        attempts_reported: this version of LiteLLM reports every failed attempt; False: it reports the first of a
            request.
        served: counts the responses that another model gave than the one that was chosen.

    Example:
        >>> import asyncio, routelearn
        >>> from types import SimpleNamespace
        >>> from routelearn.service import Gateway, Hook
        >>> gateway = Gateway(routelearn.load("router/"))
        >>> request = {"model": "auto", "messages": [{"role": "user", "content": "Prove that 2 is prime."}]}
        >>> api_key = SimpleNamespace(metadata={"routelearn_threshold": "0"})  # every score goes to strong
        >>> asyncio.run(Hook(gateway).async_pre_call_hook(api_key, None, request, "completion"))["model"]
        'sim-max'
        >>> gateway.close()
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        triggers: Collection[str] = TRIGGERS,
        cascade: PostCallCascade | None = None,
        attempts_reported: bool = True,
    ) -> None:
        """Set what chooses, and for which requests.

        Args:
            gateway: chooses the models.
            triggers: names of models; requests to them are routed, requests to other names are left alone.
            cascade: judges the answers of the weak model; None: they are taken as they are.
            attempts_reported: this version of LiteLLM reports every failed attempt.
        """
        super().__init__()
        self._gateway = gateway
        self._triggers = frozenset(triggers)
        self.cascade = cascade
        self.attempts_reported = attempts_reported
        self.served = ServedByOther()

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> Any:
        """Choose the model of a request to a trigger, and the fallbacks unless the client has named some."""
        del cache, call_type
        drop_forged(data)
        model = data.get("model")
        if not isinstance(model, str) or model not in self._triggers:
            prepare(self._gateway, data, owner_of(user_api_key_dict))
            return None
        received = time.monotonic()
        metadata = metadata_of(data)
        owner = owner_of(user_api_key_dict)
        facts = NOTHING_KNOWN
        try:
            facts = self._gateway.facts_of(data, headers_of(data), owner=owner)
            of_key = getattr(user_api_key_dict, "metadata", None)
            of_key = of_key if isinstance(of_key, Mapping) else {}
            selection = await self._gateway.select(
                query_of(data), context_of(metadata, of_key), policy_of(metadata, of_key), facts
            )
        except Exception as error:  # noqa: BLE001 - the request goes on whatever happens
            selection = await asyncio.to_thread(self._gateway.select_unread, error, facts)
        if not self._gateway.shadow:
            data["model"] = selection.model
            if selection.fallbacks and data.get("fallbacks") is None:  # an empty list is the client's wish
                data["fallbacks"] = list(selection.fallbacks)
        metadata[METADATA_SELECTION], metadata[METADATA_RECEIVED] = selection.as_dict(), received
        if facts.session is not None:
            metadata[METADATA_SESSION] = facts.session
        note_request(self._gateway, data, selection, owner)
        return data

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        """Note when an attempt begins."""
        del call_type
        metadata_of(kwargs)[METADATA_STARTED] = time.monotonic()

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> None:
        """Record an attempt that succeeded; `async_log_success_event` records streams, which end later."""
        del call_type
        started = metadata_of(request_data).get(METADATA_STARTED)
        latency_s = None if started is None else time.monotonic() - started
        self._record(request_data, latency_s, error=_no_completion(response))

    async def async_post_call_failure_deployment_hook(
        self, request_data: Any, exception: Exception, call_type: Any, fallback_depth: int | None = None
    ) -> None:
        """Record an attempt that failed."""
        del call_type, fallback_depth
        self._record(request_data, error=exception)

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """Count what a call used, and record a stream that came to its end."""
        count_call(self._gateway, kwargs, _of_log(kwargs), response_obj, end_time)
        if kwargs.get("stream"):
            self._record(_of_log(kwargs), (end_time - start_time).total_seconds())

    async def async_log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """Record a stream that broke off; any other failure as well where LiteLLM does not report every attempt."""
        del response_obj, start_time, end_time
        begun = kwargs.get("stream") and kwargs.get("completion_start_time") is not None
        if begun or not self.attempts_reported:
            error = kwargs.get("exception")
            self._record(_of_log(kwargs), error=error if isinstance(error, BaseException) else RuntimeError(str(error)))

    async def async_post_call_success_hook(self, data: dict[str, Any], user_api_key_dict: Any, response: Any) -> Any:
        """Note the response of a session, and let the cascade judge it: the one that replaces it; None: it stays."""
        session, response_id = metadata_of(data).get(METADATA_SESSION), getattr(response, "id", None)
        goes_on = getattr(response, "object", None) not in _NOT_GONE_ON_FROM
        if isinstance(session, str) and isinstance(response_id, str) and goes_on:
            # A store that replicas share may keep its caller waiting.
            await asyncio.to_thread(self._gateway.answered, session, response_id, owner=owner_of(user_api_key_dict))
        if self.cascade is None or self._gateway.shadow or METADATA_RECEIVED not in metadata_of(data):
            return None
        return await self.cascade.review(data, response)

    def _record(
        self, request: Mapping[str, Any], latency_s: float | None = None, error: BaseException | None = None
    ) -> None:
        metadata = metadata_of(request)
        model = answering(self._gateway, metadata)
        if error is None and not self._gateway.shadow:  # in shadow mode strong answers whatever is chosen
            self.served.observe(chosen(self._gateway, metadata), model)
        if model is not None:
            self._gateway.record(
                model, ok=error is None, latency_s=latency_s, error=error, selection=selection_in(metadata)
            )


def _no_completion(response: Any) -> InferenceError | None:
    """An error for a response with status 200 that is no completion: no choices, or an error in their place."""
    choices = getattr(response, "choices", ...)
    if choices is None or (isinstance(choices, list) and not choices) or isinstance(response, str):
        return InferenceError("the response is no completion")
    return None


def _of_log(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a log event that holds what LiteLLM's other calls hold at the top level."""
    parameters = kwargs.get("litellm_params")
    return parameters if isinstance(parameters, Mapping) else {}


def make_hook(
    gateway: Gateway, *, triggers: Collection[str] = TRIGGERS, cascade: PostCallCascade | None = None
) -> Hook:
    """A callback for `litellm_settings: callbacks`.

    Args:
        gateway: chooses the models.
        triggers: names of models; requests to them are routed, requests to other names are left alone.
        cascade: judges the answers of the weak model; None: they are taken as they are.

    Raises:
        MissingExtraError: LiteLLM is not installed.
        InputError: there is a cascade, and this version of LiteLLM does not let a callback replace an answer.
    """
    base: Any = require("litellm.integrations.custom_logger", "litellm").CustomLogger
    if cascade is not None:
        cascade.check_version()
    # LiteLLM looks for these methods in the class itself, not in its bases.
    methods = {name: method for name, method in vars(Hook).items() if name.startswith("async_")}
    hook_class: type[Hook] = type("RoutelearnHook", (Hook, base), methods)
    reported = hasattr(base, "async_post_call_failure_deployment_hook")
    return hook_class(gateway, triggers=triggers, cascade=cascade, attempts_reported=reported)
