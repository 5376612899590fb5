"""The drift monitor: what its window holds, when it alarms, when it does not, and what it does with bad numbers."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routelearn.monitoring.alarms import DriftAlarm
from routelearn.monitoring.comparison import SIGNALS
from routelearn.monitoring.drift import DriftMonitor, psi_label
from routelearn.monitoring.reference import Reference
from routelearn.routers.errors import InputError

DIMENSIONS = 4


def stable(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, novelties and vectors of n queries of stable traffic."""
    random = np.random.default_rng(seed)
    return (
        random.beta(2, 3, n).astype(np.float32),
        random.beta(5, 5, n).astype(np.float32),
        random.standard_normal((n, DIMENSIONS)).astype(np.float32),
    )


def reference(n: int = 3000, seed: int = 99) -> Reference:
    scores, novelties, vectors = stable(n, seed)
    return Reference.from_samples(scores, novelties, vectors, float(np.quantile(novelties, 0.995)))


def feed(monitor: DriftMonitor, scores: Any, novelties: Any, vectors: Any) -> None:
    for score, novelty, vector in zip(scores, novelties, vectors, strict=True):
        monitor.observe(score, novelty, vector)


def shifted(signal: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Traffic of which one thing has changed."""
    scores, novelties, vectors = stable(n, seed)
    if signal == "score":
        scores = np.sqrt(scores)
    elif signal == "novelty":
        novelties = novelties * 0.8
    elif signal == "vector":
        vectors = vectors + np.array([1, 0, 0, 0], np.float32)
    else:
        novelties[::8] = 0.99
    return scores, novelties, vectors


@pytest.mark.parametrize("signal", SIGNALS)
def test_each_kind_of_shift_sets_off_its_alarm_once_and_a_return_ends_it(
    signal: str, caplog: pytest.LogCaptureFixture
) -> None:
    alarms: list[DriftAlarm] = []
    monitor = DriftMonitor(reference(), on_alarm=alarms.append, clock=lambda: 7.0)
    feed(monitor, *stable(1000, 1))
    assert monitor.status().state in {"stable", "watch"}
    with caplog.at_level(logging.INFO):
        feed(monitor, *shifted(signal, 1500, 2))
        own = [alarm for alarm in alarms if alarm.signal == signal]
        assert len(own) == 1
        assert own[0].value > own[0].limit
        assert own[0].time == 7.0
        assert monitor.status().signals[signal].state == "drift"
        assert monitor.status().state == "drift"
        feed(monitor, *stable(1500, 3))
    assert monitor.status().signals[signal].state in {"stable", "watch"}
    assert monitor.status().signals[signal].alarms == 1
    assert f"{signal} is back at its reference" in caplog.text
    assert [record.levelname for record in caplog.records].count("WARNING") == len(alarms)


def test_a_second_onset_alarms_again() -> None:
    alarms: list[DriftAlarm] = []
    monitor = DriftMonitor(reference(), on_alarm=alarms.append)
    for seed in range(2):
        feed(monitor, *shifted("vector", 800, seed))
        feed(monitor, *stable(800, 10 + seed))
    assert [alarm.signal for alarm in alarms] == ["vector", "vector"]
    assert monitor.status().signals["vector"].alarms == 2


def test_between_the_limits_an_alarm_goes_on_and_none_begins() -> None:
    monitor = DriftMonitor(reference())
    weak = np.array([0.22, 0, 0, 0], np.float32)  # beyond the lower limit of 500 queries, not the upper
    scores, novelties, vectors = stable(500, 4)
    vectors = vectors - vectors.mean(axis=0) + weak
    feed(monitor, scores, novelties, vectors)
    reading = monitor.status().signals["vector"]
    assert reading.state == "watch"
    assert reading.watch is not None
    assert reading.limit is not None
    assert reading.value is not None
    assert reading.watch < reading.value < reading.limit
    feed(monitor, *shifted("vector", 500, 5))
    feed(monitor, scores, novelties, vectors)
    assert monitor.status().signals["vector"].state == "drift"


def test_stable_traffic_sets_off_fewer_false_alarms_than_stated() -> None:
    """20 streams of 10,000 queries, each with a reference of its own, at a stated 40 % a stream: 8, and 4 more."""
    alarmed = 0
    for seed in range(20):
        monitor = DriftMonitor(reference(1000, 1000 + seed), false_alarms=0.4)
        feed(monitor, *stable(10_000, seed))
        alarmed += any(reading.alarms for reading in monitor.status().signals.values())
    assert alarmed <= 12


@given(st.integers(0, 2**32), st.integers(100, 260), st.sampled_from([10, 50]))
@settings(max_examples=25)
def test_the_window_holds_the_newest_queries_and_nothing_else(seed: int, n: int, step: int) -> None:
    scores, novelties, vectors = stable(n, seed)
    window = 100
    monitor = DriftMonitor(reference(500), window=window, step=step)
    feed(monitor, scores, novelties, vectors)
    last = n // step * step
    newest = slice(last - window, last)
    status = monitor.status()
    spread = monitor.reference
    assert spread is not None
    at_points = (scores[newest, None] <= spread.scores.values).mean(axis=0)
    assert status.signals["score"].value == pytest.approx(np.abs(at_points - spread.scores.shares).max())
    assert spread.vectors is not None
    difference = vectors[newest].mean(axis=0) - spread.vectors.mean
    distance = np.sqrt(difference @ np.linalg.inv(spread.vectors.covariance) @ difference)
    assert status.signals["vector"].value == pytest.approx(distance, rel=1e-5)
    assert spread.novelty_bound is not None
    assert status.unfamiliar == pytest.approx((novelties[newest] > spread.novelty_bound).mean())
    assert status.queries == window


def test_the_psi_is_that_of_the_tenths_once_the_window_is_full() -> None:
    scores, novelties, vectors = stable(500, 6)
    scores = scores**2
    monitor = DriftMonitor(reference())
    feed(monitor, scores[:450], novelties[:450], vectors[:450])
    assert (monitor.status().psi, monitor.status().psi_label) == (None, "unknown")
    feed(monitor, scores[450:], novelties[450:], vectors[450:])
    cuts = np.quantile(stable(3000, 99)[0], np.arange(1, 10) / 10, method="inverted_cdf")
    actual = np.bincount(np.searchsorted(cuts, scores, side="left"), minlength=10) / 500
    expected = sum((a - 0.1) * np.log(a / 0.1) for a in np.maximum(actual, 0.001))
    assert monitor.status().psi == pytest.approx(expected, rel=1e-3)
    assert monitor.status().psi_label == "large"
    assert [psi_label(value) for value in (0.05, 0.2, 0.3)] == ["small", "moderate", "large"]


def test_scores_of_few_values_are_compared_without_a_false_alarm() -> None:
    """Rules give few distinct scores; between them there is nothing to interpolate."""
    random = np.random.default_rng(0)
    values, odds = np.array([0.1, 0.45, 0.9]), [0.2, 0.5, 0.3]
    known = Reference.from_samples(random.choice(values, 2000, p=odds))
    monitor = DriftMonitor(known)
    feed(monitor, random.choice(values, 500, p=odds), [None] * 500, [None] * 500)
    assert monitor.status().signals["score"].state == "stable"
    assert monitor.status().signals["novelty"].why == "the reference has no novelties"
    feed(monitor, random.choice(values, 500, p=[0.4, 0.3, 0.3]), [None] * 500, [None] * 500)
    assert monitor.status().signals["score"].state == "drift"


def test_without_a_reference_everything_is_unknown_and_says_why() -> None:
    monitor = DriftMonitor(None)
    feed(monitor, *stable(600, 1))
    status = monitor.status()
    assert status.state == "unknown"
    assert {reading.why for reading in status.signals.values()} == {"the bundle has no reference"}
    assert (status.psi, status.unfamiliar, status.unfamiliar_interval) == (None, None, (0.0, 1.0))


def test_few_queries_are_unknown() -> None:
    monitor = DriftMonitor(reference())
    assert monitor.status().signals["score"].why == "no queries yet"
    feed(monitor, *stable(50, 1))
    assert monitor.status().signals["score"].why == "50 of 100 queries"
    feed(monitor, *stable(50, 2))
    assert monitor.status().signals["score"].state != "unknown"


def test_a_reference_can_be_learned_from_the_first_queries() -> None:
    alarms: list[DriftAlarm] = []
    monitor = DriftMonitor(None, learn=1000, novelty_bound=0.9, on_alarm=alarms.append)
    feed(monitor, *stable(950, 1))
    assert monitor.reference is None
    assert monitor.status().signals["score"].why == "learning from 1000 queries"
    feed(monitor, *stable(50, 2))
    assert monitor.reference is not None
    assert monitor.reference.scores.n == 1000
    assert monitor.reference.vectors is not None
    feed(monitor, *stable(800, 3))
    assert not alarms
    feed(monitor, *shifted("score", 600, 4))
    assert "score" in {alarm.signal for alarm in alarms}
    monitor.reset()
    assert monitor.reference is None


def test_learning_starts_over_while_nothing_but_fallbacks_comes() -> None:
    monitor = DriftMonitor(None, learn=100)
    for _ in range(250):
        monitor.observe(None)
    assert monitor.reference is None
    feed(monitor, *stable(150, 1))
    assert monitor.reference is not None


def test_reset_forgets_the_window_and_the_alarm_but_not_the_reference() -> None:
    monitor = DriftMonitor(reference())
    feed(monitor, *shifted("vector", 500, 1))
    assert monitor.status().state == "drift"
    monitor.reset()
    assert monitor.status().state == "unknown"
    assert monitor.status().queries == 0
    assert monitor.reference is not None


BAD: list[Any] = [float("nan"), float("inf"), "many", None, [], 10**400, object(), 1e300]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_numbers_that_are_none_are_left_out_and_counted(bad: Any) -> None:
    monitor = DriftMonitor(reference())
    scores, novelties, vectors = stable(500, 1)
    for row in range(500):
        monitor.observe(bad if row % 5 == 0 else scores[row], novelties[row], vectors[row])
    assert monitor.status().signals["score"].queries == 400
    assert monitor.ignored == (0 if bad is None else 100)


@pytest.mark.parametrize(
    "bad", [[1.0], "vector", [float("nan")] * 4, object(), np.ones((2, 2)), [[1], [2]], 7], ids=range(7)
)
def test_vectors_that_are_none_are_left_out_and_counted(bad: Any) -> None:
    monitor = DriftMonitor(reference())
    scores, novelties, vectors = stable(500, 1)
    for row in range(500):
        monitor.observe(scores[row], novelties[row], bad if row == 60 else vectors[row])
    assert monitor.ignored > 0
    assert 450 <= monitor.status().signals["vector"].queries < 500
    assert monitor.status().signals["score"].queries == 500


def test_vectors_of_another_router_are_not_compared() -> None:
    monitor = DriftMonitor(reference())
    for number in range(500):
        monitor.observe(number / 500, 0.5, np.ones(7))
    assert monitor.status().signals["vector"].why == "0 of 100 queries"


def test_a_callback_that_fails_does_not_fail_the_query_and_may_ask_for_the_status() -> None:
    states = []

    def fail(alarm: DriftAlarm) -> None:
        states.append(monitor.status().signals[alarm.signal].state)
        raise RuntimeError("pager is down")

    monitor = DriftMonitor(reference(), on_alarm=fail)
    feed(monitor, *shifted("vector", 500, 1))
    assert states == ["drift"]


def test_threads_lose_no_query() -> None:
    monitor = DriftMonitor(reference(), window=4000)
    threads = [threading.Thread(target=feed, args=(monitor, *stable(500, seed))) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert monitor.status().queries == 4000
    assert all(reading.queries == 4000 for reading in monitor.status().signals.values())


def test_the_status_is_plain_data() -> None:
    monitor = DriftMonitor(reference())
    feed(monitor, *stable(500, 1))
    content = json.loads(json.dumps(monitor.status().as_dict(), allow_nan=False))
    assert set(content["signals"]) == set(SIGNALS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 90}, "window"),
        ({"window": 510}, "multiple of step"),
        ({"step": 0}, "step"),
        ({"false_alarms": 0.0}, "false_alarms"),
        ({"false_alarms": 1.0}, "false_alarms"),
        ({"learn": 10}, "learn"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DriftMonitor(None, **options)
