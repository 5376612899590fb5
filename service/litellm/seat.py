"""What the hook tells the classifier plug-in of a request, and what the plug-in tells the hook: through the metadata.

LiteLLM's complexity router shows its classifier the messages and a copy of the metadata, not the rest of the request.
The copy holds the same objects, so the classifier can fill a dict that the hook put there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ...routers.error_log import log_error
from ..gateway import Gateway
from ..request_facts import NOTHING_KNOWN, RequestFacts
from ..wire_names import METADATA_SELECTION, METADATA_SESSION
from .requests import headers_of, metadata_of
from .usage import note_session

logger = logging.getLogger(__name__)


class Place(dict[str, Any]):
    """Where the classifier puts its selection: a dict for LiteLLM's loggers, with what the hook knows of the request.

    Attributes:
        facts: what is known of the request beside its query.
    """

    def __init__(self, facts: RequestFacts = NOTHING_KNOWN) -> None:
        super().__init__()
        self.facts = facts


def prepare(gateway: Gateway, data: Mapping[str, Any], owner: str) -> None:
    """Leave a place for the selection of a request that a classifier may see.

    Nothing is left for a request that names a model of the pool. It never raises.

    Args:
        gateway: knows the names of models, and whether needs and sessions matter.
        data: the request, as LiteLLM's hooks get it.
        owner: whoever sent it.
    """
    model = data.get("model")
    if not isinstance(model, str) or gateway.pool_name(model) is not None:
        return
    metadata = metadata_of(data)
    metadata[METADATA_SELECTION] = place = Place()
    try:
        place.facts = gateway.facts_of(data, headers_of(data), owner=owner)
    except Exception as error:  # noqa: BLE001 - the request goes on whatever happens
        log_error(logger, "a request could not be read for the classifier; it is decided by its text", error)
    if place.facts.session is not None:
        metadata[METADATA_SESSION] = place.facts.session
    note_session(gateway, data, owner)


def place_in(metadata: Mapping[str, Any]) -> Place:
    """The place that the hook left; without the hook, one that nobody reads."""
    place = metadata.get(METADATA_SELECTION)
    return place if isinstance(place, Place) else Place()
