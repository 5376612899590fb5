"""A callback of the LiteLLM proxy: rewrites the model of a request, and learns from what became of it.

Works with every LiteLLM of the last years. LiteLLM calls only objects of a
class of its own, so `make_hook` makes such a class when it is called; nothing
of LiteLLM is imported before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from ...routers.errors import InputError, require
from ..gateway import Gateway
from .cascade import PostCallCascade
from .requests import DECISION, RECEIVED, context_of, metadata_of, policy_of, query_of, selection_in

logger = logging.getLogger(__name__)

#: Names of models that mean: choose for me.
TRIGGERS = ("auto", "routelearn")

_STARTED = "routelearn_started"


class Hook:
    """The callback without LiteLLM's base class; see `make_hook`.

    Attributes:
        cascade: judges weak's answers, or None.
        attempts_reported: this LiteLLM reports every failed attempt; else only the first of a request.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        triggers: Collection[str] = TRIGGERS,
        cascade: PostCallCascade | None = None,
        attempts_reported: bool = True,
    ) -> None:
        """Take the gateway, the names that are routed and what is done with weak's answers."""
        super().__init__()
        self._gateway = gateway
        self._triggers = frozenset(triggers)
        self.cascade = cascade
        self.attempts_reported = attempts_reported

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> Any:
        """Choose the model of a request to one of the triggers, and the fallbacks unless the client named some."""
        del cache, call_type
        if data.get("model") not in self._triggers:
            return None
        received = time.monotonic()
        try:
            of_key = getattr(user_api_key_dict, "metadata", None)
            of_key = of_key if isinstance(of_key, Mapping) else {}
            metadata = metadata_of(data)
            selection = await self._gateway.select(
                query_of(data), context_of(metadata, of_key), policy_of(metadata, of_key)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the request goes on
            level = logging.INFO if isinstance(error, InputError) else logging.ERROR
            logger.log(level, "a request could not be routed, strong is the safe answer: %r", error)
            data["model"] = self._gateway.name(self._gateway.router.strong)
            return data
        data["model"] = selection.model
        if selection.fallbacks:
            data.setdefault("fallbacks", list(selection.fallbacks))
        metadata[DECISION], metadata[RECEIVED] = selection.as_dict(), received
        return data

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        """An attempt begins."""
        del call_type
        metadata_of(kwargs)[_STARTED] = time.monotonic()

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> None:
        """An attempt succeeded. LiteLLM leaves out streams, which end later: `async_log_success_event`."""
        del response, call_type
        started = metadata_of(request_data).get(_STARTED)
        self._record(request_data, None if started is None else time.monotonic() - started)

    async def async_post_call_failure_deployment_hook(
        self, request_data: Any, exception: Exception, call_type: Any, fallback_depth: int | None = None
    ) -> None:
        """An attempt failed."""
        del call_type, fallback_depth
        self._record(request_data, error=exception)

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """A stream came to its end."""
        del response_obj
        if kwargs.get("stream"):
            self._record(_of_log(kwargs), (end_time - start_time).total_seconds())

    async def async_log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """A stream broke off; where attempts are not reported one by one, also any other failure."""
        del response_obj, start_time, end_time
        begun = kwargs.get("stream") and kwargs.get("completion_start_time") is not None
        if begun or not self.attempts_reported:
            error = kwargs.get("exception")
            self._record(_of_log(kwargs), error=error if isinstance(error, BaseException) else RuntimeError(str(error)))

    async def async_post_call_success_hook(self, data: dict[str, Any], user_api_key_dict: Any, response: Any) -> Any:
        """Hand an answer to the cascade, where there is one; what it returns is the client's answer."""
        del user_api_key_dict
        if self.cascade is None or DECISION not in metadata_of(data):
            return None
        return await self.cascade.review(data, response)

    def _record(
        self, request: Mapping[str, Any], latency_s: float | None = None, error: BaseException | None = None
    ) -> None:
        metadata = metadata_of(request)
        model = self._gateway.pool_name(metadata.get("model_group"), metadata.get("deployment"))
        if model is not None:
            self._gateway.record(
                model, ok=error is None, latency_s=latency_s, error=error, selection=selection_in(metadata)
            )


def _of_log(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where LiteLLM's log events keep what its other calls have at the top."""
    found = kwargs.get("litellm_params")
    return found if isinstance(found, Mapping) else {}


def make_hook(
    gateway: Gateway, *, triggers: Collection[str] = TRIGGERS, cascade: PostCallCascade | None = None
) -> Hook:
    """A callback for `litellm_settings: callbacks`.

    Args:
        gateway: chooses the models.
        triggers: the names of models that are routed; requests to other names are left alone.
        cascade: judges weak's answers; None: they are taken as they are.

    Raises:
        MissingExtraError: LiteLLM is not installed.
        InputError: a cascade, and a LiteLLM that does not let a callback replace an answer.
    """
    base: Any = require("litellm.integrations.custom_logger", "litellm").CustomLogger
    if cascade is not None:
        cascade.check_version()
    # LiteLLM looks for these methods in the class itself, not in its bases.
    methods = {name: method for name, method in vars(Hook).items() if name.startswith("async_")}
    made: type[Hook] = type("RoutelearnHook", (Hook, base), methods)
    reported = hasattr(base, "async_post_call_failure_deployment_hook")
    return made(gateway, triggers=triggers, cascade=cascade, attempts_reported=reported)
