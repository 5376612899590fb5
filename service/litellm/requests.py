"""Reads LiteLLM's requests: the query, the tier of the user, the threshold and the selection of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...policies.threshold import Threshold
from ...routers.base import Policy
from ...routers.decision import Context
from ...routers.errors import InputError
from ...routers.query import REQUEST_FIELDS, Query, parse_query
from ..wire_names import (
    METADATA_CALL,
    METADATA_DECISION,
    METADATA_FURTHER,
    METADATA_RECEIVED,
    METADATA_SELECTION,
    METADATA_SESSION,
    METADATA_STARTED,
    METADATA_THRESHOLD,
    METADATA_USER_TIER,
    USER_TIER,
)

#: Where LiteLLM keeps the selections of routing plug-ins, and the model group that its own router chose; the latter
#: stays there when another group answers.
SIGNALS, SELECTED = "routing_plugin_signals", "pre_routing_selected_model"
#: The entries of the metadata that the proxy makes, and that a client could forge.
_MADE_HERE = (
    *(METADATA_SELECTION, METADATA_SESSION, METADATA_CALL, METADATA_DECISION, METADATA_FURTHER),
    *(METADATA_RECEIVED, METADATA_STARTED, SIGNALS, SELECTED),
)


def query_of(data: Mapping[str, Any]) -> Query:
    """The query of a chat, text completion, Anthropic, Gemini or Responses request; several texts are turns.

    Raises:
        InputError: the request has no query, or holds it as token ids.
    """
    if not any(data.get(field) for field in REQUEST_FIELDS):
        raise InputError(f"the request has no query; expected one of {', '.join(REQUEST_FIELDS)}")
    query = parse_query({field: data[field] for field in REQUEST_FIELDS if data.get(field)})
    return query if isinstance(query, str) else list(query)


def metadata_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a request, as the dict that belongs to the request, so that entries can be added.

    LiteLLM has two places for it: `litellm_metadata` where `metadata` is the client's (endpoints other than chat). An
    older version also leaves a client's `litellm_metadata` for chat, so the one in which the proxy put the API key
    counts.
    """
    found = [data.get(field) for field in ("litellm_metadata", "metadata")]
    both = [metadata for metadata in found if isinstance(metadata, dict)]
    keyed = [metadata for metadata in both if "user_api_key_hash" in metadata or "user_api_key" in metadata]
    return next(iter(keyed or both), {})


def drop_forged(data: Mapping[str, Any]) -> None:
    """Take out of the metadata of a new request what only the proxy puts there.

    A client could otherwise settle the probe of another request, join another session, or name models in the metrics.
    """
    for field in ("litellm_metadata", "metadata"):
        metadata = data.get(field)
        if isinstance(metadata, dict):
            for name in _MADE_HERE:
                metadata.pop(name, None)


def selection_in(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """The `Selection.as_dict()` that the hook or the routing plug-in stored for a request; None: there is none."""
    signals = metadata.get(SIGNALS)
    selection = metadata.get(METADATA_SELECTION)
    if not selection and isinstance(signals, Mapping):
        selection = signals.get(METADATA_SELECTION)
    return selection if isinstance(selection, dict) and "asked" in selection and "lease" in selection else None


def context_of(metadata: Mapping[str, Any], of_key: Mapping[str, Any] | None = None) -> Context:
    """The context for the router: the tier of the user.

    Args:
        metadata: of the request.
        of_key: the metadata of the API key, which goes before the request's.
    """
    tier = (of_key or {}).get(METADATA_USER_TIER) or metadata.get(METADATA_USER_TIER)
    return {USER_TIER: tier} if isinstance(tier, str) else {}


def policy_of(metadata: Mapping[str, Any], of_key: Mapping[str, Any] | None = None) -> Policy | None:
    """The policy that a request or its API key asks for; None: neither does. A threshold that is no number is ignored.

    Args:
        metadata: of the request.
        of_key: the metadata of the API key, which goes before the request's.
    """
    for source in (of_key or {}, metadata):
        value = source.get(METADATA_THRESHOLD)
        if value is not None:
            try:
                return Threshold(float(value))
            except (TypeError, ValueError):  # InputError is a ValueError
                continue
    return None


def headers_of(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The headers of the client's request, as LiteLLM's proxy keeps them."""
    request = data.get("proxy_server_request")
    headers = request.get("headers") if isinstance(request, Mapping) else None
    return headers if isinstance(headers, Mapping) else {}


def owner_of(api_key: Any) -> str:
    """Whoever sent a request: the hash of the API key; empty: there is none."""
    token = getattr(api_key, "token", None)
    return token if isinstance(token, str) else ""
