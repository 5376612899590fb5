"""The route monitor: its counts, shares and percentiles, what it makes of fallbacks, and what Prometheus sees of it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from routelearn.monitoring import alarms, decision_log, escalation, routing
from routelearn.monitoring.alarms import DriftAlarm
from routelearn.monitoring.drift import DriftMonitor
from routelearn.monitoring.escalation import EscalationMonitor
from routelearn.monitoring.limits import wilson
from routelearn.monitoring.prometheus import register
from routelearn.monitoring.reference import Reference
from routelearn.monitoring.routing import FALLBACKS, MAX_KEYS, ROUTE_BOUNDS, RouteMonitor
from routelearn.policies.threshold import StrongShare
from routelearn.routers.checks import MAX_NAME
from routelearn.routers.decision import Decision
from routelearn.routers.errors import InputError
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.routers.rules import RulesRouter

PLAIN = Decision("big", 0.7, 0.5, ("big", "small"), "learned", "score 0.7 is at or above threshold 0.5")
DECISIONS = st.lists(
    st.builds(
        Decision,
        st.sampled_from(["big", "small", "other"]),
        st.floats(0, 1),
        st.just(0.5),
        st.just(("big", "small")),
        st.sampled_from(["learned", "rules", "default"]),
        st.just("why"),
        st.booleans(),
        st.sampled_from(["threshold", "novel", "cost"]),
    ),
    max_size=120,
)


@given(DECISIONS, st.integers(1, 60))
def test_counts_are_of_all_requests_and_shares_of_the_last_n(decisions: list[Decision], window: int) -> None:
    monitor = RouteMonitor(RulesRouter("big", "small"), window=window)
    for decision in decisions:
        monitor.observe(decision)
    content, recent = monitor.as_dict(), decisions[-window:]
    for name, key in (("models", "model"), ("sources", "source"), ("causes", "cause")):
        assert content[name] == Counter(getattr(decision, key) for decision in decisions)
    assert sum(row["count"] for row in content["decisions"]) == content["totals"]["requests"] == len(decisions)
    assert content["window"] == len(recent)
    strong = sum(decision.model == "big" for decision in recent)
    assert content["strong_share"] == (strong / len(recent) if recent else None)
    assert tuple(content["strong_interval"]) == wilson(strong, len(recent))
    assert content["truncated_share"] == (np.mean([d.truncated for d in recent]) if recent else None)
    assert content["fallback_share"] == (np.mean([d.cause in FALLBACKS for d in recent]) if recent else None)
    assert sum(content["scores"]) == len(recent)
    assert sum(content["totals"]["scores"]) == len(decisions)
    for place, count in enumerate(content["scores"]):
        assert count == sum(place / 20 < d.score <= (place + 1) / 20 or place == d.score == 0 for d in recent)


def test_latency_percentiles_are_of_the_window_and_the_histogram_of_all() -> None:
    monitor = RouteMonitor(window=100)
    seconds = np.random.default_rng(0).exponential(1e-4, 300)
    for value in seconds:
        monitor.observe(PLAIN, latency_s=value)
    latency = monitor.status().latency
    assert latency is not None
    assert latency.count == 100
    assert (latency.p50, latency.p95, latency.p99) == pytest.approx(np.percentile(seconds[200:], [50, 95, 99]))
    counts = monitor.status().totals.latency.counts
    assert counts == np.histogram(seconds, [0, *ROUTE_BOUNDS, np.inf])[0].tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, "slow", 1.5, 10**400])
def test_bad_numbers_never_raise_and_are_counted_as_ignored(bad: Any) -> None:
    monitor = RouteMonitor()
    monitor.observe(replace(PLAIN, score=bad))
    latencies = int(bad not in {1.5, 10**400})
    monitor.observe(PLAIN, latency_s=None if not latencies else bad)
    content = monitor.as_dict()
    assert content["totals"]["ignored"] == 1 + latencies
    assert content["totals"]["requests"] == 2
    assert sum(content["scores"]) == 1
    assert content["latency"] is None


def test_what_the_parts_ignore_is_counted_too() -> None:
    monitor = RouteMonitor(drift=DriftMonitor(None, window=100, step=50))
    for _ in range(50):
        monitor.observe(PLAIN, novelty=float("nan"))
    monitor.outcome(0.5, float("nan"))
    assert monitor.status().totals.ignored == 51


def test_names_are_bounded_and_printable() -> None:
    monitor = RouteMonitor()
    for number in range(300):
        monitor.observe(replace(PLAIN, model=f"m{number}\n" + "x" * 300))
    content = monitor.as_dict()
    assert len(content["decisions"]) == MAX_KEYS + 1
    assert content["models"]["other"] == 300 - MAX_KEYS
    assert all(len(name) <= MAX_NAME and name.isprintable() for name in content["models"])


def test_without_a_router_the_strong_share_is_not_known() -> None:
    monitor = RouteMonitor()
    monitor.observe(PLAIN)
    assert monitor.as_dict()["strong_share"] is None


def test_the_answers_of_fallbacks_are_counted_and_their_scores_are_no_drift() -> None:
    random = np.random.default_rng(0)
    reference = Reference.from_samples(random.uniform(0.4, 0.6, 1000))
    monitor = RouteMonitor(drift=DriftMonitor(reference))
    for number in range(1000):
        score = float(random.uniform(0.4, 0.6))
        monitor.observe(replace(PLAIN, score=score))
        if number % 2:
            monitor.observe(replace(PLAIN, score=1.0, source="default", cause="novel"))
    status = monitor.status()
    assert status.fallback_share == pytest.approx(1 / 3, abs=0.01)
    assert status.totals.fallbacks == 500
    assert status.drift.signals["score"].state in {"stable", "watch"}
    assert status.drift.signals["score"].queries == pytest.approx(500 * 2 / 3, abs=2)


def test_a_rule_based_router_is_no_fallback_of_itself() -> None:
    monitor = RouteMonitor(RulesRouter("big", "small"))
    monitor.observe_batch(RulesRouter("big", "small").route_batch(["hi", "Prove it.", "turtles"]))
    assert monitor.as_dict()["fallback_share"] == 0
    ruled = RouteMonitor(FallbackRouter(None, strong="big", weak="small"))
    ruled.observe_batch(FallbackRouter(None, strong="big", weak="small").route_batch(["hi", "Prove it."]))
    assert ruled.as_dict()["fallback_share"] == 1


@pytest.mark.parametrize("fixture", ["bundle", "similarity_bundle"])
def test_a_batch_brings_its_novelties_and_vectors(
    fixture: str, request: pytest.FixtureRequest, texts: list[str]
) -> None:
    router = FallbackRouter(request.getfixturevalue(fixture))
    monitor = RouteMonitor(router)
    order = np.random.default_rng(0).permutation(len(texts))
    for start in range(0, 500, 100):
        queries = [texts[row] for row in order[start : start + 100]]
        assessment = router.assess(queries)
        monitor.observe_batch(router.decide(assessment, router.threshold), assessment, latency_s=0.002)
    status = monitor.status()
    assert status.strong == "sim-max"
    assert {name: reading.state == "unknown" for name, reading in status.drift.signals.items()} == {
        "score": False,
        "novelty": False,
        "vector": False,
        "unfamiliar": False,
    }
    # (Most of these queries were trained on, so that their novelty is lower than that of new ones.)
    assert {status.drift.signals[name].state for name in ("score", "vector")} <= {"stable", "watch"}
    assert status.latency is not None
    assert status.latency.p50 == 0.002


def test_other_queries_are_drift(router: LearnedRouter) -> None:
    alarms: list[DriftAlarm] = []
    monitor = RouteMonitor(router, on_alarm=alarms.append)
    queries = [f"colourless green idea number {number} sleeps" for number in range(200)]
    assessment = router.assess(queries)
    monitor.observe_batch(router.decide(assessment, 0.5), assessment)
    assert {"vector", "unfamiliar"} & {alarm.signal for alarm in alarms}


def test_a_router_without_a_reference_is_watched_all_the_same() -> None:
    router = load(Path(__file__).parents[1] / "bundles" / "version-1")
    monitor = RouteMonitor(router)
    monitor.observe_batch(router.route_batch(["hello"] * 200))
    assert monitor.as_dict()["drift"]["signals"]["score"]["why"] == "the bundle has no reference"


def test_a_broken_reference_is_logged_and_does_not_stop_a_service(
    router: LearnedRouter, caplog: pytest.LogCaptureFixture
) -> None:
    broken = LearnedRouter(replace(router.manifest, reference={"score": {}}), router._session)
    monitor = RouteMonitor(broken)
    assert monitor.drift.reference is None
    assert "drift is not watched" in caplog.text


def test_another_router_can_be_followed_without_losing_counts(router: LearnedRouter) -> None:
    monitor = RouteMonitor()
    monitor.observe(PLAIN)
    assert monitor.drift.reference is None
    monitor.follow(router)
    assert monitor.drift.reference is not None
    assert monitor.as_dict()["strong"] == router.strong
    assert monitor.as_dict()["totals"]["requests"] == 1


def test_outcomes_reach_the_calibration() -> None:
    alarms: list[DriftAlarm] = []
    monitor = RouteMonitor(on_alarm=alarms.append)
    for _ in range(500):
        monitor.outcome(0.3, True)
    assert monitor.as_dict()["calibration"]["state"] == "drift"
    assert [alarm.signal for alarm in alarms] == ["calibration-bias", "calibration-spread"]


def test_threads_lose_no_request() -> None:
    monitor = RouteMonitor()
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        for number in range(600):
            monitor.observe(PLAIN, novelty=0.1, vector=np.ones(3), latency_s=1e-4)
            if number % 200 == 0:
                monitor.as_dict()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    totals = monitor.status().totals
    assert totals.requests == sum(totals.decisions.values()) == sum(totals.latency.counts) == 4800


def test_a_window_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="window"):
        RouteMonitor(window=0)


# Prometheus.


def scraped(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_a_scrape_equals_the_monitor(router: LearnedRouter, texts: list[str]) -> None:
    monitor, registry = RouteMonitor(router), CollectorRegistry()
    register(monitor, registry)
    queries = texts[20:520]
    assessment = router.assess(queries)
    decisions = StrongShare(0.3).decide(router, assessment)
    monitor.observe_batch(decisions, assessment, latency_s=3e-4)
    monitor.outcome(0.5, 1)
    samples, status = scraped(registry), monitor.as_dict()
    for row in status["decisions"]:
        labels = tuple(sorted((name, row[name]) for name in ("model", "source", "cause")))
        assert samples["routelearn_decisions_total", labels] == row["count"]
    assert samples["routelearn_strong_share", ()] == status["strong_share"]
    assert samples["routelearn_score_count", ()] == 500
    assert samples["routelearn_score_sum", ()] == pytest.approx(sum(decision.score for decision in decisions))
    assert samples["routelearn_score_bucket", (("le", "0.5"),)] == sum(status["totals"]["scores"][:10])
    assert samples["routelearn_route_latency_seconds_bucket", (("le", "0.00025"),)] == 0
    assert samples["routelearn_route_latency_seconds_bucket", (("le", "0.0005"),)] == 500
    assert samples["routelearn_score_psi", ()] == status["drift"]["psi"]
    for name, reading in status["drift"]["signals"].items():
        assert samples["routelearn_drift_value", (("signal", name),)] == reading["value"]
        assert samples["routelearn_drift_limit", (("signal", name),)] == reading["limit"]
        assert samples["routelearn_drift_state", (("signal", name), ("state", reading["state"]))] == 1
        assert samples["routelearn_drift_alarms_total", (("signal", name),)] == reading["alarms"]
    assert samples["routelearn_drift_state", (("signal", "calibration-bias"), ("state", "unknown"))] == 1


def test_a_registry_takes_one_route_monitor_beside_an_escalation_monitor() -> None:
    registry = CollectorRegistry()
    register(EscalationMonitor(), registry)
    collector = register(RouteMonitor(), registry)
    with pytest.raises(InputError, match="one RouteMonitor a registry"):
        register(RouteMonitor(), registry)
    registry.unregister(collector)
    register(RouteMonitor(), registry)


def test_everything_is_plain_data(router: LearnedRouter) -> None:
    monitor = RouteMonitor(router)
    json.dumps(monitor.as_dict(), allow_nan=False)
    monitor.observe_batch(router.route_batch(["hi"] * 600), router.assess(["hi"] * 600), 0.1)
    json.dumps(monitor.as_dict(), allow_nan=False)


def test_only_monitors_and_availabilities_have_metrics() -> None:
    with pytest.raises(
        InputError, match="got a dict; expected an EscalationMonitor, a RouteMonitor, an Availability or a Savings"
    ):
        register({}, CollectorRegistry())  # type: ignore[arg-type]


def test_every_monitor_logs_under_the_documented_name() -> None:
    documented = (Path(__file__).resolve().parents[2] / "docs" / "monitoring.md").read_text()
    assert "`routelearn.monitoring`" in documented
    for module in (alarms, decision_log, escalation, routing):
        assert module.logger.name == "routelearn.monitoring"
