"""A cascade at LiteLLM's post-call seam: the weak model's answer is judged, and replaced by strong's when in doubt.

For answers that come in one piece. A stream is at the client before it can be
judged, and holding it back until it is complete would be no stream.
"""

from __future__ import annotations

import importlib
import logging
import re
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from ...cascade.backends import Answer
from ...cascade.confidence import Confidence
from ...monitoring.escalation import EscalationMonitor
from ...routers.errors import InputError
from ...routers.query import Query
from ..gateway import Gateway
from .requests import DECISION, RECEIVED, metadata_of, query_of

logger = logging.getLogger(__name__)

#: From here on LiteLLM answers with what a post-call hook returns.
LEAST_VERSION = (1, 81, 7)

#: The request's own settings that must not reach the second call: it is another model's, and complete.
_OWN = frozenset(
    {"model", "stream", "stream_options", "metadata", "litellm_metadata", "fallbacks", "user_api_key_dict"}
)


class PostCallCascade:
    """Judges what weak answered, and asks strong when the confidence is below the threshold.

    Weak's answer stays when strong fails or its breaker is open, and when there
    is no text to judge (calls of tools, several choices). When no confidence can
    be had, strong is asked.

    Attributes:
        threshold: confidence below it escalates.
    """

    def __init__(
        self,
        gateway: Gateway,
        confidence: Confidence,
        threshold: float,
        *,
        monitor: EscalationMonitor | None = None,
    ) -> None:
        """Take what judges.

        Args:
            gateway: names the models; its breakers are asked before strong is.
            confidence: mostly a `Verifier`.
            threshold: confidence below it escalates, in [0, 1].
            monitor: counts escalations.

        Raises:
            InputError: the threshold is out of range.
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold is {threshold}; expected a number from 0 to 1")
        self._gateway = gateway
        self._confidence = confidence
        self.threshold = threshold
        self._monitor = monitor

    def check_version(self) -> None:
        """Refuse a LiteLLM that drops what the hook returns.

        Raises:
            InputError: this LiteLLM is older than 1.81.7.
        """
        found = version("litellm")
        if tuple(int(part) for part in re.findall(r"\d+", found)[:3]) < LEAST_VERSION:
            least = ".".join(map(str, LEAST_VERSION))
            raise InputError(f"LiteLLM {found} drops the answers of post-call hooks; a cascade needs {least} or newer")

    async def review(self, data: dict[str, Any], response: Any) -> Any:
        """Strong's response in the place of weak's, or None: weak's stays. Never raises."""
        gateway, metadata = self._gateway, metadata_of(data)
        weak = gateway.name(gateway.router.weak)
        text = _text(response)
        if text is None or data.get("model") != weak or data.get("stream") or _stood_in(response):
            return None
        replaced = None
        try:
            if not await self._accepted(data, metadata, text):
                replaced = await self._ask_strong(data, metadata)
        except Exception:
            logger.exception("the cascade failed; weak's answer stays")
        if self._monitor is not None:
            latency_s = time.monotonic() - metadata[RECEIVED]
            self._monitor.observe(model=gateway.router.weak, escalated=replaced is not None, latency_s=latency_s)
        return replaced

    async def _accepted(self, data: dict[str, Any], metadata: Mapping[str, Any], text: str) -> bool:
        async def ask(query: Query) -> Answer:
            messages = [{"role": "user", "content": query}] if isinstance(query, str) else list(query)
            again = {**data, "messages": messages}
            return Answer(_text(await self._call(self._gateway.router.weak, again, metadata)) or "")

        prior = metadata[DECISION]["decision"]["score"]
        try:
            estimate = await self._confidence.estimate(query_of(data), Answer(text), ask, prior)
        except Exception:
            logger.exception("no confidence could be had; strong is asked")
            return False
        return estimate.confidence >= self.threshold

    async def _ask_strong(self, data: dict[str, Any], metadata: Mapping[str, Any]) -> Any:
        if not self._gateway.strong_answers():
            logger.info("strong's breaker is open; weak's answer stays")
            return None
        return await self._call(self._gateway.router.strong, data, metadata)

    async def _call(self, model: str, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> Any:
        """Ask a model of the pool with the settings of the client's request, on the account of its API key."""
        asked = set((data.get("proxy_server_request") or {}).get("body") or ()) | {"messages"}
        options = {key: data[key] for key in asked - _OWN if key in data}
        account = {key: value for key, value in metadata.items() if key.startswith("user_api_key")}
        router = importlib.import_module("litellm.proxy.proxy_server").llm_router
        return await router.acompletion(model=self._gateway.name(model), metadata=account, **options)


def _stood_in(response: Any) -> bool:
    """Whether another model answered because the one that was asked failed."""
    headers = (getattr(response, "_hidden_params", None) or {}).get("additional_headers") or {}
    return bool(headers.get("x-litellm-attempted-fallbacks"))


def _text(response: Any) -> str | None:
    """The text of a chat completion with one choice that says something and calls no tools, or None."""
    choices = getattr(response, "choices", None)
    message = getattr(choices[0], "message", None) if choices and len(choices) == 1 else None
    if message is None or getattr(message, "tool_calls", None):
        return None
    return getattr(message, "content", None) or None
