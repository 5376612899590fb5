"""The objects that LiteLLM's configuration names; they are built from environment variables at their first use.

    litellm_settings:
      callbacks: [routelearn.service.litellm.hook]

- `hook`: the callback, for any LiteLLM. It chooses the model of requests to "auto", and tells the circuit breakers how
  calls ended.
- `routing_plugin`: for `router_settings: plugins` of LiteLLM 1.94 or newer.
- `classifier_plugin`: for the complexity router of LiteLLM 1.99 or newer; the recommended way, with the hook beside it.
- `gateway`: the `Gateway` that the three share, for your own plug-ins.

docs/litellm.md has the recipe and the variables.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from .settings import Plugins

_NAMES = ("classifier_plugin", "gateway", "hook", "routing_plugin")
_lock = threading.RLock()
_plugins: Plugins | None = None


def __getattr__(name: str) -> Any:
    """One of the objects; all objects of a process share one gateway."""
    global _plugins  # noqa: PLW0603 - LiteLLM names an object by its module and attribute
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {list(_NAMES)}")
    with _lock:
        if _plugins is None:
            _plugins = Plugins(os.environ)
        return getattr(_plugins, name)
