"""A cascade in LiteLLM's post-call hook: the weak model's answer is judged, and the strong model's may replace it.

Only answers that come in one piece are judged. The pieces of a stream are with the client before the answer is
complete, and holding them back would end the stream.
"""

from __future__ import annotations

import importlib
import logging
import re
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from ...cascade.backends import Answer, answer_of, fault_of
from ...cascade.estimates import Confidence, as_estimate, check_confidence, check_signature, estimated
from ...monitoring.escalation import EscalationMonitor
from ...monitoring.repeats import query_key
from ...routers.checks import check_number
from ...routers.error_log import log_error
from ...routers.errors import InferenceError, InputError
from ...routers.query import Query
from ..gateway import Gateway
from ..wire_names import METADATA_RECEIVED, METADATA_SELECTION
from .requests import metadata_of, query_of
from .usage import of_further_call

logger = logging.getLogger(__name__)

#: The first version in which LiteLLM replies with what a post-call hook returns.
LEAST_VERSION = (1, 81, 7)

#: Settings of the request that must not reach the second call, which asks another model and is not a stream.
_FIRST_CALL_ONLY = frozenset(
    {"model", "stream", "stream_options", "metadata", "litellm_metadata", "fallbacks", "user_api_key_dict"}
)


class PostCallCascade:
    """Judges the weak model's answers, and asks the strong model when the confidence is below the threshold.

    Weak's answer stays when strong fails, gives no answer, or its breaker is open, and when there is nothing to judge
    (calls of tools, several choices). When the confidence cannot be estimated, strong is asked. So it is when weak's
    reply is no answer: empty, refused, filtered or cut off by the limit on its length.

    Attributes:
        threshold: an answer whose confidence is below it escalates.

    Example:
        >>> import routelearn
        >>> from routelearn.cascade import load_verifier
        >>> from routelearn.service import Gateway, PostCallCascade
        >>> gateway, verifier = Gateway(routelearn.load("router/")), load_verifier("verifier/")
        >>> cascade = PostCallCascade(gateway, verifier, threshold=0.6)  # for make_hook(gateway, cascade=cascade)
    """

    def __init__(
        self,
        gateway: Gateway,
        confidence: Confidence,
        threshold: float,
        *,
        monitor: EscalationMonitor | None = None,
    ) -> None:
        """Set what judges the answers.

        Args:
            gateway: names the models; strong is asked only if its breaker is closed.
            confidence: estimates the confidence in an answer; mostly a `Verifier`.
            threshold: an answer whose confidence is below it escalates, in [0, 1].
            monitor: counts escalations; None: nobody does.

        Raises:
            InputError: the threshold is not in [0, 1], or the confidence has no `estimate` with its four arguments.
        """
        check_confidence(confidence, "the confidence")
        check_signature(confidence, "the confidence")
        check_number("threshold", threshold, "a number from 0 to 1")
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold is {threshold}; expected a number from 0 to 1")
        self._gateway = gateway
        self._confidence = confidence
        self.threshold = threshold
        self._monitor = monitor

    def check_version(self) -> None:
        """Refuse a version of LiteLLM that drops what the hook returns.

        Raises:
            InputError: this LiteLLM is older than 1.81.7.
        """
        installed = version("litellm")
        if tuple(int(part) for part in re.findall(r"\d+", installed)[:3]) < LEAST_VERSION:
            least = ".".join(map(str, LEAST_VERSION))
            raise InputError(
                f"LiteLLM {installed} drops the answers of post-call hooks; a cascade needs {least} or newer"
            )

    async def review(self, data: dict[str, Any], response: Any) -> Any:
        """Strong's response, which replaces weak's; None: weak's response stays. It never raises.

        Args:
            data: the request, as LiteLLM's hooks get it.
            response: the answer that the client would get.
        """
        gateway, metadata = self._gateway, metadata_of(data)
        weak = gateway.name(gateway.router.weak)
        answer = _answer(response)
        if answer is None or data.get("model") != weak or data.get("stream") or _stood_in(response):
            return None
        replacement = None
        try:
            if fault_of(answer) is not None or not await self._accepted(data, metadata, answer):
                replacement = await self._ask_strong(data, metadata)
        except Exception as error:  # noqa: BLE001 - the request goes on whatever happens
            log_error(logger, "the cascade failed; weak's answer stays", error)
        if self._monitor is not None:
            latency_s = time.monotonic() - metadata[METADATA_RECEIVED]
            self._monitor.observe(
                model=gateway.router.weak,
                escalated=replacement is not None,
                latency_s=latency_s,
                key=_key(data),
            )
        return replacement

    async def _accepted(self, data: dict[str, Any], metadata: Mapping[str, Any], answer: Answer) -> bool:
        async def ask(query: Query) -> Answer:
            messages = [{"role": "user", "content": query}] if isinstance(query, str) else list(query)
            again = {**data, "messages": messages}
            sample = _answer(await self._call(self._gateway.router.weak, again, metadata)) or Answer("")
            fault = fault_of(sample)
            if fault is not None:
                raise InferenceError(fault)
            return sample

        prior = metadata[METADATA_SELECTION]["decision"]["score"]
        try:
            found = await estimated(self._confidence, query_of(data), answer, ask, prior)
            estimate = as_estimate(found, "the post-call cascade")
        except Exception as error:  # noqa: BLE001 - the request goes on whatever happens
            log_error(logger, "the confidence could not be estimated; strong is asked", error)
            return False
        return estimate.confidence >= self.threshold

    async def _ask_strong(self, data: dict[str, Any], metadata: Mapping[str, Any]) -> Any:
        if not self._gateway.strong_answers():
            logger.info("strong's breaker is open; weak's answer stays")
            return None
        response = await self._call(self._gateway.router.strong, data, metadata)
        answer, choices = _answer(response), getattr(response, "choices", None)
        fault = "it is no completion" if not choices else None if answer is None else fault_of(answer)
        if fault is not None:
            logger.info("strong gave no answer (%s); weak's answer stays", fault)
            return None
        return response

    async def _call(self, model: str, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> Any:
        """Ask a model of the pool with the settings of the client's request, on the account of its API key."""
        settings = set((data.get("proxy_server_request") or {}).get("body") or ()) | {"messages"}
        options = {key: data[key] for key in settings - _FIRST_CALL_ONLY if key in data}
        account = {key: value for key, value in metadata.items() if key.startswith("user_api_key")}
        router = importlib.import_module("litellm.proxy.proxy_server").llm_router
        return await router.acompletion(
            model=self._gateway.name(model), metadata={**account, **of_further_call(metadata)}, **options
        )


def _key(data: Mapping[str, Any]) -> int | None:
    """Equal for retries of one query; None when the request has no query."""
    try:
        return query_key(query_of(data))
    except InputError:
        return None


def _stood_in(response: Any) -> bool:
    """Whether another model answered because the model that was asked failed."""
    headers = (getattr(response, "_hidden_params", None) or {}).get("additional_headers") or {}
    return bool(headers.get("x-litellm-attempted-fallbacks"))


def _answer(response: Any) -> Answer | None:
    """The answer of a chat completion with one choice; None: there are several, or the model called tools."""
    choices = getattr(response, "choices", None)
    if not choices or len(choices) > 1:
        return None
    message = getattr(choices[0], "message", None)
    if message is None or getattr(message, "tool_calls", None) or getattr(message, "function_call", None):
        return None
    return answer_of(choices[0], getattr(response, "usage", None))
