"""The monitor's numbers for Prometheus, read at each scrape; docs/monitoring.md lists them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any, get_args

from ..routers.errors import InputError, require
from .escalation import EscalationMonitor
from .status import State, Status
from .window import LATENCY_BOUNDS

PAIR = ["model", "use_case"]


class MonitorCollector:
    """A Prometheus collector of one monitor: nothing is counted twice, so scrapes equal the monitor."""

    def __init__(self, monitor: EscalationMonitor) -> None:
        """Take the monitor to read.

        Raises:
            MissingExtraError: prometheus-client is not installed.
        """
        self._core = require("prometheus_client.core", "metrics")
        self._monitor = monitor

    def describe(self) -> list[Any]:
        """The metrics without samples, by which a registry finds names that are taken."""
        return list(self._families([]))

    def collect(self) -> Iterator[Any]:
        """The metrics with a sample for each pair of model and use case."""
        return self._families(self._monitor.statuses())

    def _families(self, statuses: Iterable[Status]) -> Iterator[Any]:
        core = self._core
        counter, gauge = core.CounterMetricFamily, core.GaugeMetricFamily
        requests = counter("routelearn_requests", "Requests observed.", labels=PAIR)
        escalations = counter("routelearn_escalations", "Requests that went on to the strong model.", labels=PAIR)
        degraded = counter("routelearn_degraded", "Requests answered in a degraded way.", labels=[*PAIR, "reason"])
        cost = counter("routelearn_cost_usd", "USD spent.", labels=PAIR)
        alarms = counter("routelearn_escalation_alarms", "Jumps of the escalation rate.", labels=PAIR)
        ignored = counter("routelearn_ignored_values", "Latencies and costs that were no numbers >= 0.", labels=PAIR)
        rate = gauge("routelearn_escalation_rate", "Escalation rate of the monitor's window.", labels=PAIR)
        state = gauge("routelearn_escalation_state", "1 for the state that holds, else 0.", labels=[*PAIR, "state"])
        alarm = gauge("routelearn_escalation_alarm", "1 while a jump of the rate is not back.", labels=PAIR)
        latency = core.HistogramMetricFamily(
            "routelearn_latency_seconds", "Seconds from request to answer.", labels=[*PAIR, "escalated"]
        )
        for status in statuses:
            pair, totals = [status.model, status.use_case], status.totals
            requests.add_metric(pair, totals.requests)
            escalations.add_metric(pair, totals.escalated)
            for reason, count in totals.degraded.items():
                degraded.add_metric([*pair, reason], count)
            cost.add_metric(pair, totals.cost_usd)
            alarms.add_metric(pair, totals.alarms)
            ignored.add_metric(pair, totals.ignored)
            if status.rate is not None:
                rate.add_metric(pair, status.rate)
            for name in get_args(State):
                state.add_metric([*pair, name], float(status.state == name))
            alarm.add_metric(pair, float(status.alarm is not None))
            for escalated, histogram in (("yes", totals.latency_escalated), ("no", totals.latency_not_escalated)):
                bounds = [*(str(bound) for bound in LATENCY_BOUNDS), "+Inf"]
                buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
                latency.add_metric([*pair, escalated], buckets, histogram.seconds)
        yield from (requests, escalations, degraded, cost, alarms, ignored, rate, state, alarm, latency)


def register_metrics(monitor: EscalationMonitor, registry: Any = None) -> MonitorCollector:
    """Add a monitor to a Prometheus registry.

    Args:
        monitor: the monitor.
        registry: a `prometheus_client.CollectorRegistry`; None: the default one.

    Returns:
        The collector, for `registry.unregister`.

    Raises:
        MissingExtraError: prometheus-client is not installed.
        InputError: the registry has a monitor already; one monitor watches all models and use cases.
    """
    collector = MonitorCollector(monitor)
    register(collector, registry)
    return collector


def register(collector: Any, registry: Any) -> None:
    """Add a collector to a Prometheus registry (None: the default one).

    Raises:
        MissingExtraError: prometheus-client is not installed.
        InputError: the registry has a monitor of its kind already.
    """
    if registry is None:
        registry = require("prometheus_client", "metrics").REGISTRY
    try:
        registry.register(collector)
    except ValueError as error:
        raise InputError(f"the registry has such metrics already ({error}); expected one monitor a registry") from error
