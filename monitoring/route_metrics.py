"""A route monitor's numbers for Prometheus, read at each scrape; docs/monitoring.md lists them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any, get_args

from ..routers.errors import require
from .alarms import Reading, SignalState
from .prometheus import register
from .routing import ROUTE_BOUNDS, SCORE_BOUNDS, RouteMonitor, RouteStatus


class RouteCollector:
    """A Prometheus collector of one route monitor: nothing is counted twice, so scrapes equal the monitor."""

    def __init__(self, monitor: RouteMonitor) -> None:
        """Take the monitor to read.

        Raises:
            MissingExtraError: prometheus-client is not installed.
        """
        self._core = require("prometheus_client.core", "metrics")
        self._monitor = monitor

    def describe(self) -> list[Any]:
        """The metrics without samples, by which a registry finds names that are taken."""
        return [*self._counts(None), *self._gauges(None), *self._drift([])]

    def collect(self) -> Iterator[Any]:
        """The metrics of this moment."""
        status = self._monitor.status()
        yield from self._counts(status)
        yield from self._gauges(status)
        yield from self._drift([*status.drift.signals.values(), *status.calibration.signals.values()])

    def _counts(self, status: RouteStatus | None) -> Iterator[Any]:
        counter, histogram = self._core.CounterMetricFamily, self._core.HistogramMetricFamily
        decisions = counter("routelearn_decisions", "Decisions made.", labels=["model", "source", "cause"])
        fallbacks = counter("routelearn_fallbacks", "Decisions that something else made in the router's place.")
        truncated = counter("routelearn_truncated_queries", "Queries of which a part was left out.")
        ignored = counter("routelearn_route_ignored_values", "Values that were no usable numbers.")
        scores = histogram("routelearn_score", "Score of the query: win rate of strong over weak.")
        latency = histogram("routelearn_route_latency_seconds", "Seconds that routing took.")
        if status is not None:
            totals = status.totals
            for key, count in totals.decisions.items():
                decisions.add_metric(key, count)
            fallbacks.add_metric([], totals.fallbacks)
            truncated.add_metric([], totals.truncated)
            ignored.add_metric([], totals.ignored)
            scores.add_metric([], _buckets(SCORE_BOUNDS, [*totals.scores, 0]), totals.score_sum)
            latency.add_metric([], _buckets(ROUTE_BOUNDS, totals.latency.counts), totals.latency.seconds)
        yield from (decisions, fallbacks, truncated, ignored, scores, latency)

    def _gauges(self, status: RouteStatus | None) -> Iterator[Any]:
        for name, text, attribute in (
            ("strong_share", "Share of the window that went to the strong model.", "strong_share"),
            ("fallback_share", "Share of the window that something else answered.", "fallback_share"),
            ("score_psi", "Population stability index of the scores.", "drift.psi"),
            ("unfamiliar_share", "Share of the drift window beyond the novelty bound.", "drift.unfamiliar"),
            ("calibration_outcomes", "Outcomes in the window.", "calibration.outcomes"),
            ("calibration_residual", "Mean outcome less score in the window.", "calibration.residual"),
            ("calibration_brier", "Brier score of the window.", "calibration.brier"),
            ("calibration_error", "Expected calibration error of the window.", "calibration.ece"),
        ):
            gauge = self._core.GaugeMetricFamily(f"routelearn_{name}", text)
            value: Any = status
            for part in attribute.split(".") if status is not None else ():
                value = getattr(value, part)
            if value is not None:
                gauge.add_metric([], value)
            yield gauge

    def _drift(self, readings: Iterable[Reading]) -> Iterator[Any]:
        counter, gauge = self._core.CounterMetricFamily, self._core.GaugeMetricFamily
        value = gauge("routelearn_drift_value", "What is seen of a signal in the window.", labels=["signal"])
        limit = gauge("routelearn_drift_limit", "What chance would hardly exceed.", labels=["signal"])
        state = gauge("routelearn_drift_state", "1 for the state that holds, else 0.", labels=["signal", "state"])
        alarms = counter("routelearn_drift_alarms", "Alarms of a signal.", labels=["signal"])
        for reading in readings:
            name = reading.signal
            for family, number in ((value, reading.value), (limit, reading.limit)):
                if number is not None:
                    family.add_metric([name], number)
            for one in get_args(SignalState):
                state.add_metric([name, one], float(reading.state == one))
            alarms.add_metric([name], reading.alarms)
        yield from (value, limit, state, alarms)


def _buckets(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, int]]:
    return list(zip([*map(str, bounds), "+Inf"], accumulate(counts), strict=True))


def register_route_metrics(monitor: RouteMonitor, registry: Any = None) -> RouteCollector:
    """Add a route monitor to a Prometheus registry.

    Args:
        monitor: the monitor.
        registry: a `prometheus_client.CollectorRegistry`; None: the default one.

    Returns:
        The collector, for `registry.unregister`.

    Raises:
        MissingExtraError: prometheus-client is not installed.
        InputError: the registry has a route monitor already.
    """
    collector = RouteCollector(monitor)
    register(collector, registry)
    return collector
