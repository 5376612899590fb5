"""What Prometheus reads at /metrics: requests, the queue, the bundle, the process, and whatever else is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.process_collector import ProcessCollector

from .slot import RouterSlot

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class _SlotCollector:
    """The bundle and its reloads, read at each scrape."""

    def __init__(self, slot: RouterSlot, waiting: Callable[[], int]) -> None:
        self._slot = slot
        self._waiting = waiting

    def collect(self) -> Iterator[Any]:
        """See the protocol of prometheus_client."""
        slot, served = self._slot, self._slot.current
        yield GaugeMetricFamily("routelearn_http_waiting", "Requests read, waiting or scored.", self._waiting())
        reloads = CounterMetricFamily("routelearn_bundle_reloads", "Reloads of the bundle.", labels=["result"])
        reloads.add_metric(["taken"], slot.reloads)
        reloads.add_metric(["refused"], slot.refused)
        yield reloads
        yield GaugeMetricFamily(
            "routelearn_bundle_reload_failed",
            "1 while the newest bundle is a refused one.",
            float(slot.error is not None),
        )
        yield GaugeMetricFamily(
            "routelearn_bundle_loaded_timestamp_seconds", "When it was loaded.", served.loaded_at.timestamp()
        )
        yield GaugeMetricFamily(
            "routelearn_learned", "1 while a learned router answers, 0: rules.", float(served.answers == "learned")
        )
        yield InfoMetricFamily("routelearn_bundle", "The router in service.", {"digest": served.digest or ""})


class HttpMetrics:
    """Counts requests, and renders everything in one registry.

    Attributes:
        registry: of this service alone, so that several in one process do not meet.
        requests: answered, by path.
    """

    def __init__(self, slot: RouterSlot, waiting: Callable[[], int]) -> None:
        """Register what is read at each scrape.

        Args:
            slot: holds the router.
            waiting: requests that are being read, wait or are scored.
        """
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_SlotCollector(slot, waiting))
        self._requests = Counter(
            "routelearn_http_requests", "Requests answered.", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "routelearn_http_request_seconds", "Head read to answer.", ["path"], buckets=BUCKETS, registry=self.registry
        )
        self._counted: dict[tuple[str, int], Any] = {}
        self._timed: dict[str, Any] = {}
        self.requests: dict[str, int] = {}

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count one request; from the event loop only.

        Args:
            path: one of few: the caller maps what it does not know to one word.
            status: of the answer.
            seconds: from the head read to the answer.
        """
        key = (path, status)
        if key not in self._counted:
            self._counted[key] = self._requests.labels(path, str(status))
            self._timed[path] = self._seconds.labels(path)
        self._counted[key].inc()
        self._timed[path].observe(seconds)
        self.requests[path] = self.requests.get(path, 0) + 1

    def render(self) -> bytes:
        """Prometheus' text format, version 1.0.0."""
        return generate_latest(self.registry)
