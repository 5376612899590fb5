"""Metrics of the HTTP service for Prometheus: requests, the queue, the bundle, the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.process_collector import ProcessCollector

from .slot import RouterSlot

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class _SlotCollector:
    """Metrics of the queue, the bundle and its reloads, which are read at each scrape."""

    def __init__(self, slot: RouterSlot, waiting: Callable[[], int]) -> None:
        self._slot = slot
        self._waiting = waiting

    def collect(self) -> Iterator[Any]:
        """Read the metrics, as prometheus_client asks for them."""
        slot, active = self._slot, self._slot.current
        yield GaugeMetricFamily(
            "routelearn_http_waiting", "Requests that are being read, wait or are scored.", self._waiting()
        )
        reloads = CounterMetricFamily("routelearn_bundle_reloads", "Reloads of the bundle.", labels=["result"])
        reloads.add_metric(["taken"], slot.reloads)
        reloads.add_metric(["refused"], slot.refused)
        yield reloads
        yield GaugeMetricFamily(
            "routelearn_bundle_reload_failed",
            "1 while the newest bundle is refused.",
            float(slot.error is not None),
        )
        yield GaugeMetricFamily(
            "routelearn_bundle_loaded_timestamp_seconds",
            "When the router in service was loaded.",
            active.loaded_at.timestamp(),
        )
        yield GaugeMetricFamily(
            "routelearn_learned",
            "1 while the bundle decides, 0 while the general router or rules stand in for it.",
            float(active.manifest is not None),
        )
        yield InfoMetricFamily("routelearn_bundle", "The router in service.", {"digest": active.digest or ""})


class HttpMetrics:
    """Counts requests, and renders all metrics of the service.

    Attributes:
        registry: holds the metrics of this service only, so that several services may share a process.
        requests: number of requests that were answered, by path.
    """

    def __init__(self, slot: RouterSlot, waiting: Callable[[], int]) -> None:
        """Register the metrics.

        Args:
            slot: holds the router.
            waiting: gives the number of requests that are being read, wait or are scored.
        """
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_SlotCollector(slot, waiting))
        self._requests = Counter(
            "routelearn_http_requests", "Requests that were answered.", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "routelearn_http_request_seconds",
            "Seconds from the head of a request to the reply.",
            ["path"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._counted: dict[tuple[str, int], Any] = {}
        self._timed: dict[str, Any] = {}
        self.requests: dict[str, int] = {}

    def say_shadow(self, shadow: bool) -> None:
        """Say whether the decisions are acted on."""
        gauge = Gauge("routelearn_shadow", "1 while decisions are not acted on.", registry=self.registry)
        gauge.set(float(shadow))

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count one request; from the event loop only.

        Args:
            path: one of a few names; the caller replaces unknown paths by one word.
            status: HTTP status of the reply.
            seconds: from the head of the request to the reply.
        """
        key = (path, status)
        if key not in self._counted:
            self._counted[key] = self._requests.labels(path, str(status))
            self._timed[path] = self._seconds.labels(path)
        self._counted[key].inc()
        self._timed[path].observe(seconds)
        self.requests[path] = self.requests.get(path, 0) + 1

    def render(self) -> bytes:
        """All metrics in Prometheus' text format, version 1.0.0."""
        return generate_latest(self.registry)
