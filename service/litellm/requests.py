"""What LiteLLM's requests say: the query, the user's tier, and what a request asks of the router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...policies.threshold import Threshold
from ...routers.base import Context, Policy
from ...routers.errors import InputError
from ...routers.query import Query

#: Keys of a request's metadata (all values are strings there, by the OpenAI API), and of a LiteLLM key's metadata.
TIER, THRESHOLD = "routelearn_tier", "routelearn_threshold"

#: Where the metadata of a request keeps the selection, and when it came (monotonic seconds).
DECISION, RECEIVED = "routelearn", "routelearn_received"


def query_of(data: Mapping[str, Any]) -> Query:
    """The query of a chat, text completion, Anthropic or Responses request.

    Raises:
        InputError: it holds none.
    """
    for field in ("messages", "input", "prompt"):
        value = data.get(field)
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            # Items of a Responses request that are no messages (calls of tools, reasoning) say nothing of the query.
            messages = [item for item in value if isinstance(item, Mapping) and "content" in item]
            if messages or field == "messages":
                return messages
    raise InputError("a request holds no messages, input or prompt")


def metadata_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a request, from whichever of LiteLLM's two places it is in; a dict that belongs to the request.

    LiteLLM keeps the client's own metadata of endpoints other than chat apart.
    """
    for field in ("litellm_metadata", "metadata"):
        found = data.get(field)
        if isinstance(found, dict):
            return found
    return {}


def selection_in(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was selected for a request, as `Selection.as_dict`, by the hook or by the routing plug-in; or None."""
    signals = metadata.get("routing_plugin_signals")
    found = metadata.get(DECISION) or (signals.get(DECISION) if isinstance(signals, Mapping) else None)
    return found if isinstance(found, dict) and "asked" in found else None


def context_of(metadata: Mapping[str, Any], of_key: Mapping[str, Any] | None = None) -> Context:
    """The context for the router: the user's tier; an API key's own metadata goes before that of the request."""
    tier = (of_key or {}).get(TIER) or metadata.get(TIER)
    return {"tier": tier} if isinstance(tier, str) else {}


def policy_of(metadata: Mapping[str, Any], of_key: Mapping[str, Any] | None = None) -> Policy | None:
    """The policy that a request or its API key asks for, or None. A threshold that is no number is passed over."""
    for source in (of_key or {}, metadata):
        value = source.get(THRESHOLD)
        if value is not None:
            try:
                return Threshold(float(value))
            except (TypeError, ValueError):  # InputError is a ValueError
                continue
    return None
