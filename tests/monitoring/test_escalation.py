"""The escalation monitor: its rate, its states, its alarms, and what Prometheus sees of it."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from routelearn.cascade.tiers import Call, CascadeResult
from routelearn.monitoring.alarms import LEAST_REQUESTS, EscalationAlarm, state_of
from routelearn.monitoring.cusum import Cusum
from routelearn.monitoring.escalation import MAX_REASONS, EscalationMonitor
from routelearn.monitoring.limits import wilson
from routelearn.monitoring.prometheus import register
from routelearn.routers.checks import MAX_NAME
from routelearn.routers.errors import InputError

REQUESTS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["", "chat", "code"]), st.booleans()), max_size=200
)


def feed(monitor: EscalationMonitor, escalated: list[bool], model: str = "weak", use_case: str = "") -> None:
    for flag in escalated:
        monitor.observe(model=model, use_case=use_case, escalated=flag)


def drawn(rate: float, n: int, seed: int = 0) -> list[bool]:
    """n requests of which about a share `rate` are escalated, independently."""
    generator = random.Random(seed)
    return [generator.random() < rate for _ in range(n)]


def exactly(escalated: int, n: int) -> list[bool]:
    return [True] * escalated + [False] * (n - escalated)


# The rate and the totals.


@given(REQUESTS, st.integers(50, 80))
def test_the_rate_is_that_of_the_last_n_requests_of_each_view(
    requests: list[tuple[str, str, bool]], window: int
) -> None:
    monitor = EscalationMonitor(window)
    for model, use_case, escalated in requests:
        monitor.observe(model=model, use_case=use_case, escalated=escalated)
    for model in (None, "a", "b"):
        for use_case in (None, "", "chat", "code"):
            own = [e for m, u, e in requests if model in {None, m} and use_case in {None, u}]
            status = monitor.status(model, use_case)
            assert status.count == min(len(own), window)
            assert status.rate == (np.mean(own[-window:]) if own else None)
            assert (status.totals.requests, status.totals.escalated) == (len(own), sum(own))
    assert sum(status.totals.requests for status in monitor.statuses()) == len(requests)


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), min_size=1, max_size=80), st.floats(0, 60))
def test_a_window_in_seconds_forgets_older_requests_also_while_nothing_comes_in(
    requests: list[tuple[float, bool]], later: float
) -> None:
    now = 0.0
    monitor = EscalationMonitor(1000, 60.0, clock=lambda: now)
    seen = []
    for wait, escalated in requests:
        now += wait
        seen.append((now, escalated))
        monitor.observe(model="weak", escalated=escalated)
    now += later
    newest = [escalated for then, escalated in seen if now - then <= 60]
    assert monitor.status().count == len(newest)
    assert monitor.status().rate == (np.mean(newest) if newest else None)
    assert monitor.status().totals.requests == len(requests)


class Slow(float):
    """Lets other threads run in the middle of a sum."""

    def __radd__(self, other: float) -> float:
        time.sleep(0)
        return float(other) + float(self)


def test_threads_lose_no_request() -> None:
    monitor = EscalationMonitor(100, max_keys=5, reference=0.5)
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for i in range(600):
            monitor.observe(
                model=f"m{i % 7}", escalated=i % 3 == 0, cost_usd=Slow(1), degraded="timeout" if i % 5 else None
            )
            if i % 150 == 0:
                monitor.statuses()
                monitor.reset(f"m{number % 7}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    totals = monitor.status().totals
    assert (totals.requests, totals.escalated, totals.cost_usd) == (4_800, 1_600, 4_800.0)
    assert totals.degraded == {"timeout": 3_840}
    assert sum(status.totals.requests for status in monitor.statuses()) == 4_800


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -1.0])
def test_a_broken_latency_or_cost_is_counted_as_ignored_and_spoils_no_sum(broken: float) -> None:
    monitor = EscalationMonitor()
    monitor.observe(model="weak", escalated=True, latency_s=broken, cost_usd=broken)
    monitor.observe(model="weak", escalated=True, latency_s=2.0, cost_usd=0.5)
    assert scrape(monitor)["routelearn_ignored_values_total", labels(model="weak", use_case="")] == 2
    status = monitor.status()
    assert (status.totals.ignored, status.totals.cost_usd, status.count) == (2, 0.5, 2)
    assert status.latency_escalated is not None
    assert (status.latency_escalated.count, status.latency_escalated.p99) == (1, 2.0)


def test_the_latency_tail_is_told_apart_by_escalated_and_covers_the_window() -> None:
    monitor = EscalationMonitor(200)
    for latency in [99.0] * 200 + [float(i) for i in range(1, 101)]:  # the 99s leave the window but for 100 of them
        monitor.observe(model="weak", escalated=False, latency_s=latency)
        monitor.observe(model="weak", escalated=True, latency_s=3 * latency)
    status = monitor.status()
    assert status.latency_escalated is not None and status.latency_not_escalated is not None
    assert status.latency_not_escalated.count == 100
    assert status.latency_not_escalated.p50 == pytest.approx(50.5)
    assert status.latency_escalated.p95 == pytest.approx(3 * np.percentile(np.arange(1, 101), 95))
    assert EscalationMonitor().status().latency_escalated is None


def test_a_status_stays_what_it_was() -> None:
    monitor = EscalationMonitor()
    feed(monitor, [True] * 60)
    monitor.observe(model="weak", escalated=True, latency_s=1.0, degraded="timeout")
    before = monitor.status()
    told = before.as_dict()
    monitor.observe(model="weak", escalated=True, latency_s=1.0, degraded="timeout")
    assert before.as_dict() == told


# States.


@pytest.mark.parametrize(
    ("escalated", "state"),
    [
        (0, "healthy"),
        (199, "healthy"),
        (200, "watch"),
        (400, "watch"),
        (401, "act"),
        (650, "act"),
        (651, "resize"),
        (1000, "resize"),
    ],
)
def test_the_state_changes_at_20_40_and_65_percent(escalated: int, state: str) -> None:
    monitor = EscalationMonitor()
    feed(monitor, exactly(escalated, 1000))
    assert monitor.status().state == state


def test_the_limits_are_the_users() -> None:
    assert state_of(0.61) == "act"
    assert state_of(0.61, (0.2, 0.4, 0.6)) == "resize"
    monitor = EscalationMonitor(limits=(0.01, 0.02, 0.03))
    feed(monitor, exactly(3, 100))
    assert monitor.status().state == "act"


def test_a_handful_of_requests_has_no_state() -> None:
    monitor = EscalationMonitor()
    feed(monitor, [True] * (LEAST_REQUESTS - 1))
    assert (monitor.status().state, monitor.status().rate) == ("unknown", 1.0)
    feed(monitor, [True])
    assert monitor.status().state == "resize"
    assert monitor.status("never asked").state == "unknown"
    assert monitor.status("never asked").interval == (0.0, 1.0)


def test_the_interval_is_wilsons() -> None:
    assert wilson(2, 10) == pytest.approx((0.0567, 0.5098), abs=1e-4)  # statsmodels: proportion_confint
    monitor = EscalationMonitor()
    feed(monitor, exactly(150, 1000))
    low, high = monitor.status().interval
    assert (low, high) == pytest.approx((0.1292, 0.1735), abs=1e-4)


# Jumps.


def test_twenty_runs_of_5000_requests_at_the_reference_raise_less_than_one_alarm_in_twenty() -> None:
    alarms = 0
    for rate in (0.02, 0.15, 0.3, 0.5):
        for seed in range(20):
            chart = Cusum(rate)
            alarms += any(chart.update(flag) for flag in drawn(rate, 5000, seed))
    assert alarms <= 1  # of 80 runs; the stated mean, 100,000 requests, would make 4


def test_false_alarms_are_on_average_at_least_as_far_apart_as_stated() -> None:
    lengths = []
    for seed in range(200):
        chart, generator, length = Cusum(0.15, false_alarm_every=100), random.Random(seed), 1
        while not chart.update(generator.random() < 0.15):
            length += 1
        lengths.append(length)
    assert 100 < np.mean(lengths) < 100 * 30  # the bound holds, and is not so loose that jumps go unseen


def test_an_alarm_dates_the_jump_and_gives_the_rate_since() -> None:
    alarms: list[EscalationAlarm] = []
    monitor = EscalationMonitor(reference=0.1, on_alarm=alarms.append, clock=lambda: 7.0)
    feed(monitor, [False] * 500 + [True] * 20)
    # Each adds log(0.25 / 0.1) = 0.916; the limit is log(100,000) = 11.5.
    assert alarms == [EscalationAlarm("weak", "", 0.1, 1.0, 13, 7.0)]
    assert str(alarms[0]) == "escalation rate of 'weak' jumped to 100% over 13 requests; expected 10%"


def test_a_learned_reference_rarely_alarms_by_itself() -> None:
    alarms: list[EscalationAlarm] = []
    for seed in range(20):
        feed(EscalationMonitor(on_alarm=alarms.append), drawn(0.15, 5500, seed))
    assert len(alarms) <= 1


@pytest.mark.parametrize(("before", "after", "within"), [(0.15, 0.45, 100), (0.15, 0.3, 400), (0.02, 0.3, 60)])
def test_a_jump_is_found_within_some_requests(before: float, after: float, within: int) -> None:
    delays = []
    for seed in range(20):
        alarms: list[EscalationAlarm] = []
        monitor = EscalationMonitor(reference=before, on_alarm=alarms.append)
        feed(monitor, drawn(before, 1000, 200 + seed))
        assert not alarms
        for delay, flag in enumerate(drawn(after, 2000, 100 + seed), 1):
            monitor.observe(model="weak", escalated=flag)
            if alarms:
                delays.append(delay)
                break
        assert alarms[0].reference == before
        assert alarms[0].rate > before + 0.1
    assert len(delays) == 20
    assert np.quantile(delays, 0.9) <= within


def test_an_alarm_is_said_once_stands_until_the_rate_is_back_and_a_second_jump_is_said_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    alarms: list[EscalationAlarm] = []
    monitor = EscalationMonitor(on_alarm=alarms.append)
    with caplog.at_level(logging.INFO, logger="routelearn.monitoring"):
        feed(monitor, drawn(0.15, 2000, 1))
        assert monitor.status("weak").reference == pytest.approx(0.15, abs=0.03)
        assert monitor.status().alarm is None
        feed(monitor, drawn(0.5, 3000, 2))
        assert len(alarms) == 1
        assert monitor.status().alarm == alarms[0] == monitor.status("weak", "").alarm
        feed(monitor, drawn(0.14, 2000, 3))
        assert monitor.status().alarm is None
        feed(monitor, drawn(0.5, 500, 4))
    assert len(alarms) == 2 == monitor.status().totals.alarms
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [str(alarm) for alarm in alarms]
    assert len(caplog.records) == 3  # and one line that it was back


def test_a_rate_between_reference_and_jump_does_not_alarm_again_and_again() -> None:
    alarms: list[EscalationAlarm] = []
    for seed in range(5):
        monitor = EscalationMonitor(reference=0.15, on_alarm=alarms.append)
        feed(monitor, drawn(0.45, 300, seed))
        feed(monitor, drawn(0.215, 5000, seed))
    assert len(alarms) == 5


def test_reset_ends_the_alarm_and_the_next_jump_is_said() -> None:
    alarms: list[EscalationAlarm] = []
    monitor = EscalationMonitor(reference=0.1, on_alarm=alarms.append)
    feed(monitor, drawn(0.5, 300))
    feed(monitor, drawn(0.5, 300), use_case="chat")
    monitor.reset("weak", "chat")
    assert monitor.status("weak", "chat").alarm is None
    assert monitor.status("weak", "").alarm is not None
    feed(monitor, drawn(0.5, 300), use_case="chat")
    assert [alarm.use_case for alarm in alarms] == ["", "chat", "chat"]


def test_reset_can_learn_that_the_new_rate_is_the_right_one() -> None:
    alarms: list[EscalationAlarm] = []
    monitor = EscalationMonitor(learn=200, on_alarm=alarms.append)
    feed(monitor, exactly(20, 200)[::-1])
    feed(monitor, drawn(0.5, 300))
    monitor.reset()
    assert (monitor.status().reference, monitor.status().alarm) == (0.1, None)
    monitor.reset(relearn=True)
    assert monitor.status().reference is None
    feed(monitor, [True, False] * 500)
    assert (len(alarms), monitor.status().reference) == (1, 0.5)


def test_a_jump_of_one_use_case_is_not_hidden_by_the_others() -> None:
    alarms: list[EscalationAlarm] = []
    monitor = EscalationMonitor(reference=0.1, on_alarm=alarms.append)
    for i, flag in enumerate(drawn(0.5, 300)):
        monitor.observe(model="weak", use_case="rare", escalated=flag)
        feed(monitor, [i % 2 == 0 and j == 0 for j in range(10)], use_case="common")
    assert monitor.status().state == "healthy"
    assert [(alarm.model, alarm.use_case) for alarm in alarms] == [("weak", "rare")]
    assert monitor.status(use_case="rare").alarm == monitor.status("weak").alarm == alarms[0]
    assert monitor.status(use_case="common").alarm is None


def test_several_models_together_show_their_newest_alarm() -> None:
    times = iter(range(1000))
    monitor = EscalationMonitor(reference=0.0, clock=lambda: float(next(times)))
    for model in ("b", "c", "a"):
        feed(monitor, [True] * 10, model)
    alarm = monitor.status().alarm
    assert alarm is not None
    assert alarm == monitor.status("a").alarm != monitor.status("b").alarm


def test_references_0_and_1_work() -> None:
    alarms: list[EscalationAlarm] = []
    feed(EscalationMonitor(reference=0.0, on_alarm=alarms.append), [False] * 2000 + [True] + [False] * 2000)
    feed(EscalationMonitor(reference=1.0, on_alarm=alarms.append), [True] * 5000)
    feed(EscalationMonitor(reference=0.9, on_alarm=alarms.append), [True] * 5000)
    assert not alarms
    feed(EscalationMonitor(reference=0.0, on_alarm=alarms.append), [True] * 10)
    assert len(alarms) == 1


def test_a_callback_may_ask_the_monitor_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    states = []

    def ask(alarm: EscalationAlarm) -> None:
        states.append(monitor.status(alarm.model).state)
        raise RuntimeError("pager is down")

    monitor = EscalationMonitor(reference=0.0, on_alarm=ask)
    feed(monitor, [True] * 60)
    assert states == ["unknown"]
    assert monitor.status().count == 60
    assert "on_alarm failed" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"window": 10},
        {"window_s": 0.0},
        {"reference": 1.5},
        {"reference": float("nan")},
        {"learn": 0},
        {"max_keys": 0},
        {"limits": (0.4, 0.2, 0.6)},
        {"shift": 0.0},
        {"false_alarm_every": 1},
    ],
)
def test_a_setting_out_of_range_is_an_input_error(settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        EscalationMonitor(**settings)  # type: ignore[arg-type]


# What a cascade returns.


def call(model: str) -> Call:
    return Call(model=model, purpose="answer", latency_s=0.5, input_tokens=1, output_tokens=1, cost_usd=0.1)


def cascade_result(**changes: Any) -> CascadeResult:
    settings: dict[str, Any] = {
        "answer": "4",
        "model": "strong",
        "confidence": None,
        "escalated": True,
        "cost_usd": 0.25,
        "latency_s": 1.5,
        "calls": (call("weak"), call("strong")),
        "reason": "",
    }
    return CascadeResult(**{**settings, **changes})


def test_a_result_counts_for_the_model_that_was_asked_first() -> None:
    monitor = EscalationMonitor()
    monitor.observe_result(cascade_result(degraded="strong is down"))
    monitor.observe_result(cascade_result(model="direct", calls=(), escalated=False, use_case="chat", cost_usd=None))
    first, second = monitor.statuses()
    assert (first.model, first.use_case, first.totals.escalated, first.totals.cost_usd) == ("weak", "", 1, 0.25)
    assert first.totals.degraded == {"strong is down": 1}
    assert (second.model, second.use_case, second.totals.escalated) == ("direct", "chat", 0)


def test_as_dict_has_every_view_and_is_json() -> None:
    monitor = EscalationMonitor(reference=0.0)
    feed(monitor, [True] * 60, "a", "chat")
    feed(monitor, [False] * 60, "b", "chat")
    told = json.loads(json.dumps(monitor.as_dict()))
    assert told["overall"]["rate"] == told["use_cases"][0]["rate"] == 0.5
    assert [(status["model"], status["rate"]) for status in told["models"]] == [("a", 1.0), ("b", 0.0)]
    assert [status["model"] for status in told["pairs"]] == ["a", "b"]
    assert told["pairs"][0]["alarm"]["reference"] == 0.0


# Labels and Prometheus.


def scrape(monitor: EscalationMonitor) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a Prometheus server reads: samples by name and labels."""
    registry = CollectorRegistry()
    register(monitor, registry)
    text = generate_latest(registry).decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    values = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
    assert len(values) == len(samples)  # no series twice
    return values


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


NAMES = st.sampled_from(["weak", "a\nb", 'a"b', "a\\b", "", "é{}=,", "\ud800", "\x00", "x" * 10_000])


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            NAMES, NAMES, st.booleans(), st.none() | st.floats(0, 200), st.none() | st.floats(0, 1), st.none() | NAMES
        ),
        max_size=60,
    )
)
def test_scraped_metrics_equal_the_monitors_counts(requests: list[tuple]) -> None:  # type: ignore[type-arg]
    monitor = EscalationMonitor(reference=0.1, max_keys=5)
    feed(monitor, [True] * 13)  # an alarm
    for model, use_case, escalated, latency, cost, degraded in requests:
        monitor.observe(
            model=model, use_case=use_case, escalated=escalated, latency_s=latency, cost_usd=cost, degraded=degraded
        )
    values = scrape(monitor)
    sums: Counter[str] = Counter()
    for (name, _), value in values.items():
        sums[name] += value  # type: ignore[assignment]
    assert sums["routelearn_requests_total"] == 13 + len(requests)
    assert sums["routelearn_escalations_total"] == 13 + sum(r[2] for r in requests)
    assert sums["routelearn_escalation_alarms_total"] == monitor.status().totals.alarms >= 1
    assert sums["routelearn_cost_usd_total"] == pytest.approx(sum(r[4] or 0 for r in requests))
    assert sums["routelearn_degraded_total"] == sum(bool(r[5]) for r in requests)
    assert sums["routelearn_latency_seconds_count"] == sum(r[3] is not None for r in requests)
    assert sums["routelearn_latency_seconds_sum"] == pytest.approx(sum(r[3] or 0 for r in requests))
    for status in monitor.statuses():
        pair = {"model": str(status.model), "use_case": str(status.use_case)}
        assert values["routelearn_requests_total", labels(**pair)] == status.totals.requests
        assert values["routelearn_escalation_rate", labels(**pair)] == status.rate
        assert values["routelearn_escalation_alarms_total", labels(**pair)] == status.totals.alarms
        assert values["routelearn_escalation_alarm", labels(**pair)] == (status.alarm is not None)
        for reason, count in status.totals.degraded.items():
            assert values["routelearn_degraded_total", labels(**pair, reason=reason)] == count


def test_the_state_is_one_hot() -> None:
    monitor = EscalationMonitor()
    feed(monitor, exactly(50, 100))
    states = {dict(pair)["state"]: value for (name, pair), value in scrape(monitor).items() if name.endswith("_state")}
    assert states == {"unknown": 0, "healthy": 0, "watch": 0, "act": 1, "resize": 0}


def test_latency_buckets_are_cumulative_and_apart_by_escalated() -> None:
    monitor = EscalationMonitor()
    for latency, escalated in [(0.1, False), (0.11, False), (500.0, False), (3.0, True)]:
        monitor.observe(model="weak", escalated=escalated, latency_s=latency)
    values = scrape(monitor)
    expected = {"no": {"0.1": 1, "0.25": 2, "120.0": 2, "+Inf": 3}, "yes": {"2.5": 0, "5.0": 1, "+Inf": 1}}
    for escalated, counts in expected.items():
        for bound, count in counts.items():
            key = labels(model="weak", use_case="", escalated=escalated, le=bound)
            assert values["routelearn_latency_seconds_bucket", key] == count


def test_labels_are_bounded_and_nothing_is_lost() -> None:
    monitor = EscalationMonitor(max_keys=7)
    for i in range(300):
        monitor.observe(model=f"m{i % 30}", use_case=f"u{i}", escalated=i % 2 == 0, degraded=f"reason {i}")
    assert len(monitor.statuses()) == 7 + 1
    assert monitor.status("other", "other").totals.requests == 300 - 7
    assert monitor.status().totals.requests == 300
    degraded = monitor.status().totals.degraded
    assert len(degraded) == MAX_REASONS + 1
    assert (sum(degraded.values()), degraded["other"]) == (300, 300 - MAX_REASONS)
    assert len({pair for name, pair in scrape(monitor) if name == "routelearn_requests_total"}) == 7 + 1


def test_a_hostile_name_is_one_short_printable_line_and_is_found_by_its_raw_form() -> None:
    monitor = EscalationMonitor()
    hostile = 'x"} 1\nrouted_total{a="' + "y" * 10_000
    monitor.observe(model=hostile, use_case="a\x00b\u2028c\ud800", escalated=True, degraded="d\r\n" * 10_000)
    (status,) = monitor.statuses()
    for name in (status.model, status.use_case, *status.totals.degraded):
        assert name is not None and name.isprintable() and len(name) <= MAX_NAME
    assert monitor.status(hostile).count == 1
    assert {name for name, _ in scrape(monitor)} == {name for name, _ in scrape(observed_once())}


def observed_once() -> EscalationMonitor:
    monitor = EscalationMonitor()
    monitor.observe(model="weak", escalated=True, degraded="timeout")
    return monitor


def test_a_second_monitor_in_one_registry_is_refused_and_leaving_makes_room() -> None:
    registry = CollectorRegistry()
    collector = register(EscalationMonitor(), registry)
    with pytest.raises(InputError, match="one EscalationMonitor a registry"):
        register(EscalationMonitor(), registry)
    registry.unregister(collector)
    register(EscalationMonitor(), registry)


WITHOUT = """
import sys
sys.modules["prometheus_client"] = None
from routelearn.routers.errors import MissingExtraError
from routelearn.monitoring.prometheus import register
from routelearn.monitoring.escalation import EscalationMonitor

monitor = EscalationMonitor()
monitor.observe(model="weak", escalated=True)
try:
    register(monitor)
except MissingExtraError as error:
    print(monitor.status().count, error)
"""


def test_without_prometheus_client_the_monitor_works_and_the_metrics_print_the_install_line() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("1 prometheus_client.core is not installed")
    assert "pip install 'routelearn[metrics]'" in done.stdout
