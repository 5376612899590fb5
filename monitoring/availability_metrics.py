"""The breakers' numbers for Prometheus, read at each scrape; docs/availability.md lists them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from ..availability.availability import Availability
from ..availability.breaker import BreakerState
from ..availability.model_health import ModelStatus
from ..routers.errors import InputError, require

MODEL = ["model"]


class AvailabilityCollector:
    """A Prometheus collector of one `Availability`: nothing is counted twice, so scrapes equal its statuses."""

    def __init__(self, availability: Availability) -> None:
        """Take what to read.

        Raises:
            MissingExtraError: prometheus-client is not installed.
        """
        self._core = require("prometheus_client.core", "metrics")
        self._availability = availability

    def describe(self) -> list[Any]:
        """The metrics without samples, by which a registry finds names that are taken."""
        return list(self._families([]))

    def collect(self) -> Iterator[Any]:
        """The metrics with a sample for each model."""
        return self._families(self._availability.statuses())

    def _families(self, statuses: Iterable[ModelStatus]) -> Iterator[Any]:
        counter, gauge = self._core.CounterMetricFamily, self._core.GaugeMetricFamily
        prefix = "routelearn_model"
        requests = counter(f"{prefix}_requests", "Outcomes of calls, ignored ones too.", labels=MODEL)
        failures = counter(f"{prefix}_failures", "Calls that failed.", labels=MODEL)
        ignored = counter(f"{prefix}_ignored", "Calls that say nothing about the model.", labels=MODEL)
        opened = counter("routelearn_breaker_opened", "Times a breaker opened.", labels=MODEL)
        closed = counter("routelearn_breaker_closed", "Times a breaker closed again.", labels=MODEL)
        state = gauge("routelearn_breaker_state", "1 for the state that holds, else 0.", labels=[*MODEL, "state"])
        rate = gauge(f"{prefix}_error_rate", "Failures / outcomes in the window.", labels=MODEL)
        p95 = gauge(f"{prefix}_latency_p95_seconds", "P95 of the successes in the window.", labels=MODEL)
        skipped = counter(f"{prefix}_skipped", "Times a candidate was skipped.", labels=[*MODEL, "reason"])
        for status in statuses:
            model = [status.model]
            requests.add_metric(model, status.requests)
            failures.add_metric(model, status.failures)
            ignored.add_metric(model, status.ignored)
            opened.add_metric(model, status.opened)
            closed.add_metric(model, status.closed)
            for name in get_args(BreakerState):
                state.add_metric([*model, name], float(status.state == name))
            if status.error_rate is not None:
                rate.add_metric(model, status.error_rate)
            if status.p95_s is not None:
                p95.add_metric(model, status.p95_s)
            for kind, count in status.skipped.items():
                skipped.add_metric([*model, kind], count)
        yield from (requests, failures, ignored, opened, closed, state, rate, p95, skipped)


def register_availability_metrics(availability: Availability, registry: Any = None) -> AvailabilityCollector:
    """Add the breakers to a Prometheus registry.

    Args:
        availability: what to read.
        registry: a `prometheus_client.CollectorRegistry`; None: the default one.

    Returns:
        The collector, for `registry.unregister`.

    Raises:
        MissingExtraError: prometheus-client is not installed.
        InputError: the registry has one already.
    """
    collector = AvailabilityCollector(availability)
    if registry is None:
        registry = require("prometheus_client", "metrics").REGISTRY
    try:
        registry.register(collector)
    except ValueError as error:
        raise InputError(f"the registry has such metrics already ({error}); expected one a registry") from error
    return collector
