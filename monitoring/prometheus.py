"""Prometheus metrics of monitors and breakers, which are read at each scrape.

`register` adds an `EscalationMonitor`, a `RouteMonitor`, an `Availability` or a `Savings` to a registry.
docs/monitoring.md, docs/availability.md and docs/savings.md list the metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any, get_args

from ..availability.availability import Availability
from ..availability.breaker import BreakerState
from ..availability.model_health import ModelStatus
from ..routers.errors import InputError, require
from .alarms import EscalationState, Reading, SignalState
from .escalation import EscalationMonitor
from .escalation_status import EscalationStatus
from .routing import ROUTE_BOUNDS, SCORE_BOUNDS, RouteMonitor, RouteStatus
from .savings import Savings
from .savings_report import SavingsReport
from .window import LATENCY_BOUNDS

Watched = EscalationMonitor | RouteMonitor | Availability | Savings

MODEL = ["model"]
PAIR = ["model", "use_case"]


class MetricsCollector:
    """A Prometheus collector that reads one object. It keeps no counts of its own, so a scrape equals the object.

    `register` makes it and adds it to a registry; `registry.unregister(collector)` takes it out again.

    Example:
        >>> from routelearn.monitoring import EscalationMonitor, MetricsCollector
        >>> monitor = EscalationMonitor()
        >>> monitor.observe(model="sim-small", escalated=True)
        >>> [sample.value for sample in next(MetricsCollector(monitor).collect()).samples]
        [1]
    """

    def __init__(self, watched: Watched) -> None:
        """Take the object to read.

        Raises:
            InputError: the object is neither a monitor, nor an availability, nor savings.
            MissingExtraError: prometheus-client is not installed.
        """
        core = require("prometheus_client.core", "metrics")
        self._empty, self._current = _readers(core, watched)

    def describe(self) -> list[Any]:
        """The metrics without samples. A registry finds names that are already taken by them."""
        return list(self._empty())

    def collect(self) -> Iterator[Any]:
        """The metrics with their samples at this moment."""
        return self._current()


def register(watched: Watched, registry: Any = None) -> MetricsCollector:
    """Add the metrics of a monitor, of an availability or of savings to a Prometheus registry.

    Args:
        watched: an `EscalationMonitor`, a `RouteMonitor`, an `Availability` or a `Savings`. A registry
            takes one of each.
        registry: a `prometheus_client.CollectorRegistry`; None: the default registry.

    Returns:
        The collector, which `registry.unregister` takes.

    Raises:
        MissingExtraError: prometheus-client is not installed.
        InputError: the object is none of these, or the registry has one of its kind already.

    Example:
        >>> from prometheus_client import CollectorRegistry
        >>> from routelearn.monitoring import EscalationMonitor, register
        >>> monitor, registry = EscalationMonitor(), CollectorRegistry()
        >>> collector = register(monitor, registry)
        >>> monitor.observe(model="sim-small", escalated=True, use_case="chat")
        >>> registry.get_sample_value("routelearn_escalations_total", {"model": "sim-small", "use_case": "chat"})
        1
    """
    collector = MetricsCollector(watched)
    if registry is None:
        registry = require("prometheus_client", "metrics").REGISTRY
    try:
        registry.register(collector)
    except ValueError as error:
        kind = type(watched).__name__
        raise InputError(f"the registry has these metrics already ({error}); expected one {kind} a registry") from error
    return collector


Reader = Callable[[], Iterator[Any]]


def _readers(core: Any, watched: Watched) -> tuple[Reader, Reader]:
    """Functions that give the metrics of an object: without samples, and with the samples at the moment of the call."""
    if isinstance(watched, EscalationMonitor):
        return lambda: _escalation(core, []), lambda: _escalation(core, watched.statuses())
    if isinstance(watched, RouteMonitor):
        return lambda: _routing(core, None), lambda: _routing(core, watched.status())
    if isinstance(watched, Availability):
        return lambda: _availability(core, []), lambda: _availability(core, watched.statuses())
    if isinstance(watched, Savings):
        return lambda: _savings(core, None), lambda: _savings(core, watched.report())
    raise InputError(
        f"got a {type(watched).__name__}; expected an EscalationMonitor, a RouteMonitor, an Availability or a Savings"
    )


def _escalation(core: Any, statuses: Iterable[EscalationStatus]) -> Iterator[Any]:
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
        for name in get_args(EscalationState):
            state.add_metric([*pair, name], float(status.state == name))
        alarm.add_metric(pair, float(status.alarm is not None))
        for escalated, histogram in (("yes", totals.latency_escalated), ("no", totals.latency_not_escalated)):
            buckets = _buckets(LATENCY_BOUNDS, histogram.counts)
            latency.add_metric([*pair, escalated], buckets, histogram.seconds)
    yield from (requests, escalations, degraded, cost, alarms, ignored, rate, state, alarm, latency)


def _routing(core: Any, status: RouteStatus | None) -> Iterator[Any]:
    yield from _routing_counts(core, status)
    yield from _routing_gauges(core, status)
    signals = [] if status is None else [*status.drift.signals.values(), *status.calibration.signals.values()]
    yield from _drift(core, signals)


def _routing_counts(core: Any, status: RouteStatus | None) -> Iterator[Any]:
    counter, histogram = core.CounterMetricFamily, core.HistogramMetricFamily
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


#: Name, help and value of each gauge of routing.
_GAUGES: tuple[tuple[str, str, Callable[[RouteStatus], float | None]], ...] = (
    ("strong_share", "Share of the window that went to the strong model.", lambda status: status.strong_share),
    ("fallback_share", "Share of the window that something else answered.", lambda status: status.fallback_share),
    ("score_psi", "Population stability index of the scores.", lambda status: status.drift.psi),
    (
        "unfamiliar_share",
        "Share of the drift window beyond the novelty bound.",
        lambda status: status.drift.unfamiliar,
    ),
    ("calibration_outcomes", "Outcomes in the window.", lambda status: status.calibration.outcomes),
    ("calibration_residual", "Mean outcome less score in the window.", lambda status: status.calibration.residual),
    ("calibration_brier", "Brier score of the window.", lambda status: status.calibration.brier),
    ("calibration_error", "Expected calibration error of the window.", lambda status: status.calibration.ece),
)


def _routing_gauges(core: Any, status: RouteStatus | None) -> Iterator[Any]:
    for name, text, value_of in _GAUGES:
        gauge = core.GaugeMetricFamily(f"routelearn_{name}", text)
        value = None if status is None else value_of(status)
        if value is not None:
            gauge.add_metric([], value)
        yield gauge


def _drift(core: Any, readings: Iterable[Reading]) -> Iterator[Any]:
    counter, gauge = core.CounterMetricFamily, core.GaugeMetricFamily
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


def _availability(core: Any, statuses: Iterable[ModelStatus]) -> Iterator[Any]:
    counter, gauge = core.CounterMetricFamily, core.GaugeMetricFamily
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
        for reason, count in status.skipped.items():
            skipped.add_metric([*model, reason], count)
    yield from (requests, failures, ignored, opened, closed, state, rate, p95, skipped)


def _savings(core: Any, report: SavingsReport | None) -> Iterator[Any]:
    for name, text, value in (
        ("spent", "USD spent on calls.", report and report.spent_usd),
        ("always_strong", "USD of always-strong on the same requests, modelled.", report and report.modelled_usd),
        (
            "cache_penalty",
            "USD for tokens that a change of model took from a cache.",
            report and report.cache_penalty_usd,
        ),
        ("router", "USD of the decisions.", report and report.router_usd),
    ):
        counter = core.CounterMetricFamily(f"routelearn_{name}_usd", text)
        if value is not None:
            counter.add_metric([], value)
        yield counter
    unpriced = core.CounterMetricFamily("routelearn_unpriced_calls", "Calls that cannot be compared, without prices.")
    saved = core.GaugeMetricFamily("routelearn_saved_usd", "USD saved since the start.", labels=["bound"])
    if report is not None:
        unpriced.add_metric([], report.unpriced)
        saved.add_metric(["estimate"], report.saved_usd)
        for bound, usd in zip(("low", "high"), report.interval.saved_usd if report.interval else (), strict=False):
            saved.add_metric([bound], usd)
    yield from (unpriced, saved)


def _buckets(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, int]]:
    return list(zip([*map(str, bounds), "+Inf"], accumulate(counts), strict=True))
