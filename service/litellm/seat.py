"""What the hook tells the classifier plug-in of a request, and what the plug-in tells the hook: through the metadata.

LiteLLM's complexity router shows its classifier the messages and a copy of the metadata, not the rest of the request.
The copy holds the same objects, so the classifier can fill a dict that the hook put there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ...policies.capabilities import Needs, needs_of
from ...routers.error_log import log_error
from ..gateway import Gateway, Selection
from ..wire_names import METADATA_NEEDS, METADATA_SELECTION, METADATA_SESSION
from .requests import headers_of, metadata_of

logger = logging.getLogger(__name__)


def prepare(gateway: Gateway, data: Mapping[str, Any], owner: str) -> None:
    """Note the session and the needs of a request that a classifier may see, and leave a place for its selection.

    Nothing is noted for a request that names a model of the pool. It never raises.

    Args:
        gateway: knows the names of models, and whether needs and sessions matter.
        data: the request, as LiteLLM's hooks get it.
        owner: whoever sent it.
    """
    model = data.get("model")
    if not isinstance(model, str) or gateway.pool_name(model) is not None:
        return
    try:
        metadata = metadata_of(data)
        metadata[METADATA_SELECTION] = {}
        noted = {
            METADATA_NEEDS: asdict(needs_of(data)) if gateway.reads_needs else None,
            METADATA_SESSION: gateway.session_of(data, headers_of(data), owner=owner),
        }
        for name, value in noted.items():
            metadata.pop(name, None)  # a client's own entry of this name
            if value is not None:
                metadata[name] = value
    except Exception as error:  # noqa: BLE001 - the request goes on whatever happens
        log_error(logger, "a request could not be prepared for the classifier; it is decided by its text", error)


def needs_in(metadata: Mapping[str, Any]) -> Needs | None:
    """The needs that the hook noted; None: it noted none."""
    needs = metadata.get(METADATA_NEEDS)
    return Needs(**needs) if isinstance(needs, dict) else None


def session_in(metadata: Mapping[str, Any]) -> str | None:
    """The session that the hook noted; None: it noted none."""
    session = metadata.get(METADATA_SESSION)
    return session if isinstance(session, str) else None


def keep(metadata: Mapping[str, Any], selection: Selection) -> None:
    """Put the selection of a request where the hook looks for it; without the hook nobody does."""
    place = metadata.get(METADATA_SELECTION)
    if isinstance(place, dict):
        place.update(selection.as_dict())
