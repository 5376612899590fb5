"""What a call through LiteLLM used, read from the event that LiteLLM logs when the call has ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...monitoring.served_call import ServedCall
from ...routers.checks import as_number
from ...routers.error_log import log_error
from ..gateway import Gateway
from ..selection import Selection
from ..wire_names import METADATA_CALL, METADATA_DECISION, METADATA_FURTHER, METADATA_SESSION
from .requests import headers_of, metadata_of, selection_in
from .served import answering

logger = logging.getLogger(__name__)


def note_request(gateway: Gateway, data: Mapping[str, Any], selection: Selection, owner: str) -> None:
    """Note in the metadata of a request what its calls are joined with later: its decision and its session.

    Args:
        gateway: selected the model.
        data: the request, as LiteLLM's hooks get it.
        selection: the selection of the request.
        owner: whoever sent it.
    """
    ledger, metadata = gateway.ledger, metadata_of(data)
    if not ledger.counts:
        return
    metadata[METADATA_CALL], metadata[METADATA_DECISION] = ledger.mark, ledger.id_of(selection.decision)
    note_session(gateway, data, owner)


def note_session(gateway: Gateway, data: Mapping[str, Any], owner: str) -> None:
    """Note in the metadata of a request which session its calls belong to, also where sessions keep no model.

    It never raises.

    Args:
        gateway: knows where sessions are named.
        data: the request, as LiteLLM's hooks get it.
        owner: whoever sent it.
    """
    metadata = metadata_of(data)
    if not gateway.ledger.counts or METADATA_SESSION in metadata:
        return
    try:
        found = gateway.rules.session_names.session_of(data, headers_of(data), owner=owner)
    except Exception as error:  # noqa: BLE001 - the request goes on whatever happens
        log_error(logger, "the session of a request could not be read; its calls are counted without one", error)
        return
    if found is not None:
        metadata[METADATA_SESSION] = found.id


def noted(gateway: Gateway, selection: Selection) -> dict[str, Any]:
    """A selection as plain data for the metadata, with what the calls of its request are joined with.

    Args:
        gateway: selected the model.
        selection: the selection.
    """
    decision_id = gateway.ledger.id_of(selection.decision)
    return {**selection.as_dict(), "mark": gateway.ledger.mark, "decision_id": decision_id}


def of_further_call(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of one more call for a request, such as that of a cascade's second model; empty: nobody counts it.

    Args:
        metadata: of the request.
    """
    if METADATA_CALL not in metadata:
        return {}
    kept = {key: metadata[key] for key in (METADATA_CALL, METADATA_DECISION, METADATA_SESSION) if key in metadata}
    return {**kept, METADATA_FURTHER: True}


def count_call(
    gateway: Gateway, kwargs: Mapping[str, Any], request: Mapping[str, Any], response: Any, end: datetime
) -> None:
    """Hand a call that succeeded to the gateway, if the gateway decided its request. It never raises.

    Args:
        gateway: gets the call.
        kwargs: of LiteLLM's event.
        request: the part of it that holds the metadata.
        response: the response, of a stream the whole one.
        end: when it was complete.
    """
    try:
        metadata = metadata_of(request)
        selection = selection_in(metadata)
        mark = metadata.get(METADATA_CALL) or (selection or {}).get("mark")
        # What LiteLLM's own cache answered is no call, whoever would have been asked.
        if not gateway.ledger.counts or mark != gateway.ledger.mark or kwargs.get("cache_hit") is True:
            return
        call = _call(gateway, kwargs, metadata, selection, response, end)
        if call is not None:
            found = metadata.get(METADATA_DECISION) or (selection or {}).get("decision_id")
            gateway.ledger.served(call, found if isinstance(found, str) else None)
    except Exception as error:  # noqa: BLE001 - the request is answered, whatever its event holds
        log_error(logger, "the usage of a call could not be counted; the request is not affected", error)


def _call(
    gateway: Gateway,
    kwargs: Mapping[str, Any],
    metadata: Mapping[str, Any],
    selection: Mapping[str, Any] | None,
    response: Any,
    end: datetime,
) -> ServedCall | None:
    strong = gateway.router.strong
    model = answering(gateway, metadata) or gateway.pool_name(kwargs.get("model"))
    # In shadow mode the trigger's own entry answers, which is the strong model by another name.
    model = model or (strong if gateway.shadow else str(metadata.get("model_group") or kwargs.get("model")))
    tokens = _tokens(kwargs, response)
    if tokens is None:
        return None
    decision: Mapping[str, Any] = (selection or {}).get("decision") or {}
    cost, session = as_number(kwargs.get("response_cost")), metadata.get(METADATA_SESSION)
    return ServedCall(
        model=model,
        strong=strong,
        chosen=str(decision.get("model") or model),
        session=session if isinstance(session, str) else None,
        **tokens,
        # LiteLLM says 0 where it does not know a price.
        cost_usd=cost if 0 < cost < float("inf") else None,
        propensity=1.0 if gateway.shadow else float(decision.get("propensity", 1.0)),
        time=end.timestamp(),
        further=metadata.get(METADATA_FURTHER) is True,
    )


def _tokens(kwargs: Mapping[str, Any], response: Any) -> dict[str, int] | None:
    """Tokens of a call, in the fields of `ServedCall`; None: nothing says them."""
    standard = kwargs.get("standard_logging_object")
    standard = standard if isinstance(standard, Mapping) else {}
    usage = _plain(_plain(response).get("usage")) or _plain(_plain(standard.get("metadata")).get("usage_object"))
    details = _plain(usage.get("prompt_tokens_details")) or _plain(usage.get("input_tokens_details"))
    cached = _whole(details.get("cached_tokens")) or _whole(usage.get("cache_read_input_tokens"))
    # LiteLLM 1.110 calls it cache_write_tokens in the details of OpenAI's form.
    written = _whole(usage.get("cache_creation_input_tokens")) or _whole(
        details.get("cache_write_tokens") or details.get("cache_creation_tokens")
    )
    if "prompt_tokens" in usage or not usage:
        read = _whole(usage.get("prompt_tokens")) or _whole(standard.get("prompt_tokens"))
        output = _whole(usage.get("completion_tokens")) or _whole(standard.get("completion_tokens"))
    else:
        read, output = _whole(usage.get("input_tokens")), _whole(usage.get("output_tokens"))
        if "input_tokens_details" not in usage:  # Anthropic's own form counts cached tokens beside the others
            read += cached + written
    if not read and not output:
        return None
    return {
        "input_tokens": read,
        "cached_tokens": min(cached, read),
        "output_tokens": output,
        "cache_write_tokens": written,
    }


def _plain(value: Any) -> Mapping[str, Any]:
    """An object of LiteLLM or of a provider as a mapping; empty where it is none."""
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "model_dump", None)
    found = dump() if callable(dump) else getattr(value, "__dict__", None)
    return found if isinstance(found, Mapping) else {}


def _whole(value: Any) -> int:
    number = as_number(value)
    return int(number) if 0 < number < 1e12 else 0
