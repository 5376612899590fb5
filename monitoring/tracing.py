"""Decisions as attributes of the current OpenTelemetry span, where a tracer is present."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from ..routers.base import Decision

PREFIX = "routelearn."
#: The name that OpenTelemetry's semantic conventions for generative AI have for the model that is asked.
REQUEST_MODEL = "gen_ai.request.model"


@cache
def _trace() -> Any:
    """`opentelemetry.trace`, or None where it is not installed; looked for once."""
    try:
        return importlib.import_module("opentelemetry.trace")
    except ImportError:
        return None


def annotate(decision: Decision, *, latency_s: float | None = None) -> bool:
    """Set the decision's attributes on the current span.

    Args:
        decision: what was decided; its reason is text that may quote nothing of the query.
        latency_s: seconds that routing took.

    Returns:
        Whether a span took them: False where OpenTelemetry is not installed, or no span is recording.
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
