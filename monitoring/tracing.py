"""Writes decisions as attributes of the current OpenTelemetry span."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from ..routers.decision import Decision

PREFIX = "routelearn."
#: The name of the requested model in OpenTelemetry's semantic conventions for generative AI.
REQUEST_MODEL = "gen_ai.request.model"


@cache
def _trace() -> Any:
    """The module `opentelemetry.trace`, or None when it is not installed. It is looked for once."""
    try:
        return importlib.import_module("opentelemetry.trace")
    except ImportError:
        return None


def annotate(decision: Decision, *, latency_s: float | None = None) -> bool:
    """Set the attributes of a decision on the current span.

    No attribute quotes the query.

    Args:
        decision: the decision.
        latency_s: time that routing took, in seconds; None: no such attribute is set.

    Returns:
        Whether the attributes were set: False when OpenTelemetry is not installed or no span is recording.

    Example:
        >>> import routelearn
        >>> from routelearn.monitoring import annotate
        >>> annotate(routelearn.load("router/").route("What is 2 plus 2?"))
        False
    """
    trace = _trace()
    if trace is None:
        return False
    span = trace.get_current_span()
    if not span.is_recording():
        return False
    attributes: dict[str, Any] = {
        REQUEST_MODEL: decision.model,
        PREFIX + "model": decision.model,
        PREFIX + "score": decision.score,
        PREFIX + "threshold": decision.threshold,
        PREFIX + "candidates": decision.candidates,
        PREFIX + "source": decision.source,
        PREFIX + "cause": decision.cause,
        PREFIX + "reason": decision.reason,
        PREFIX + "truncated": decision.truncated,
        PREFIX + "propensity": decision.propensity,
    }
    if latency_s is not None:
        attributes[PREFIX + "latency_s"] = latency_s
    span.set_attributes(attributes)
    return True
