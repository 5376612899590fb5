"""What LiteLLM's configuration names; built from the environment when it is first asked for.

    litellm_settings:
      callbacks: [routelearn.service.litellm.hook]

- `hook`: rewrites the model of requests to "auto", and tells the breakers how calls ended; any LiteLLM.
- `routing_plugin`: for `router_settings: plugins` of LiteLLM 1.94 or newer.
- `classifier_plugin`: for the complexity router of LiteLLM 1.99 or newer.
- `gateway`: what they share, for plug-ins of your own.

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
    """One of the objects; all of a process belong together."""
    global _plugins  # noqa: PLW0603 - LiteLLM knows objects by the name of a module only
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {list(_NAMES)}")
    with _lock:
        if _plugins is None:
            _plugins = Plugins(os.environ)
        return getattr(_plugins, name)
