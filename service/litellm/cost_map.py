"""What LiteLLM's cost map knows of a model: its prices, its limits, and what it can do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...routers.checks import as_number
from ...routers.decision import Model
from ...routers.errors import require

#: Our fields by those of the map. Prices there are USD per token.
_PRICES = {
    "input_price": "input_cost_per_token",
    "output_price": "output_cost_per_token",
    "cached_input_price": "cache_read_input_token_cost",
}
_LIMITS = {"max_input_tokens": "max_input_tokens", "max_output_tokens": "max_output_tokens"}
_ABILITIES = {
    "vision": "supports_vision",
    "audio": "supports_audio_input",
    "files": "supports_pdf_input",
    "tools": "supports_function_calling",
    "json_schema": "supports_response_schema",
}


def known_model(name: str, *, served_as: str | None = None) -> Model | None:
    """A model with what LiteLLM's cost map says of it; None: the map does not know it.

    The map leaves out what a model cannot do. An ability that is not named there counts as missing.

    Args:
        name: the name of the model in the pool.
        served_as: the name in the map, such as "openai/gpt-4o-mini"; None: `name`.

    Raises:
        MissingExtraError: LiteLLM is not installed.
    """
    cost_map: Mapping[str, Any] = require("litellm", "litellm").model_cost
    wanted = served_as or name
    # LiteLLM has "gpt-4o" without a provider, and "groq/llama-3.1-8b-instant" with one.
    entry = cost_map.get(wanted) or cost_map.get(wanted.split("/", maxsplit=1)[-1])
    if not isinstance(entry, Mapping):
        return None
    known: dict[str, Any] = {}
    for ours, theirs in _PRICES.items():
        price = as_number(entry.get(theirs))
        if 0 <= price < math.inf:
            known[ours] = round(price * 1e6, 9)
    for ours, theirs in _LIMITS.items():
        limit = as_number(entry.get(theirs))
        if 1 <= limit < 1e12:
            known[ours] = int(limit)
    known |= {ours: entry.get(theirs) is True for ours, theirs in _ABILITIES.items()}
    return Model(name, **known)
