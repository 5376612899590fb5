"""OpenTelemetry: attributes on the span that is recording, and nothing at all elsewhere."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from routelearn.monitoring.tracing import annotate
from routelearn.routers.decision import Decision
from routelearn.routers.learned import LearnedRouter

DECISION = Decision("big", 0.7, 0.5, ("big", "small"), "learned", "why", cause="threshold", propensity=0.5)


def test_a_recording_span_gets_the_decision() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("t").start_as_current_span("request"):
        assert annotate(DECISION, latency_s=0.001)
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {}) == {
        "gen_ai.request.model": "big",
        "routelearn.model": "big",
        "routelearn.score": 0.7,
        "routelearn.threshold": 0.5,
        "routelearn.candidates": ("big", "small"),
        "routelearn.source": "learned",
        "routelearn.cause": "threshold",
        "routelearn.reason": "why",
        "routelearn.truncated": False,
        "routelearn.propensity": 0.5,
        "routelearn.latency_s": 0.001,
    }


def test_decisions_of_a_router_have_types_that_a_span_takes(
    router: LearnedRouter, caplog: pytest.LogCaptureFixture
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("t").start_as_current_span("request"):
        annotate(router.route("What is 2 plus 2?"))
    assert len(exporter.get_finished_spans()[0].attributes or {}) == 10
    assert "Invalid type" not in caplog.text


def test_without_a_recording_span_nothing_happens() -> None:
    assert not annotate(DECISION)
    with TracerProvider(sampler=ALWAYS_OFF).get_tracer("t").start_as_current_span("request"):
        assert not annotate(DECISION)


ABSENT = """
import sys

class Blocker:
    looked = 0
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry":
            Blocker.looked += 1
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
from routelearn.routers.base import Decision
from routelearn.monitoring.tracing import annotate
assert "opentelemetry" not in sys.modules and Blocker.looked == 0
decision = Decision("big", 0.7, 0.5, ("big", "small"), "learned", "why")
print([annotate(decision) for _ in range(3)], Blocker.looked)
"""


def test_without_opentelemetry_it_is_looked_for_once_and_nothing_happens() -> None:
    done = subprocess.run([sys.executable, "-c", ABSENT], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[False, False, False] 1"
