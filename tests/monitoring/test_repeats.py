"""Repeated queries: stable traffic that retries, loops or bursts raises no alarm, and a real shift still does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from routelearn.monitoring.alarms import DriftAlarm
from routelearn.monitoring.calibration_drift import CalibrationMonitor
from routelearn.monitoring.drift import STALE_REPEATS, DriftMonitor
from routelearn.monitoring.reference import Reference
from routelearn.monitoring.repeats import RecentKeys, numbers_key, query_key
from routelearn.monitoring.routing import RouteMonitor
from routelearn.routers.decision import Decision
from routelearn.routers.learned import LearnedRouter

Rows = np.ndarray


def in_a_row(times: int) -> Callable[[Rows, np.random.Generator], Rows]:
    return lambda rows, random: np.repeat(rows, times)


def interleaved(rows: Rows, random: np.random.Generator) -> Rows:
    """Every query twice, the second time up to a hundred queries later."""
    return np.concatenate([random.permutation(np.repeat(part, 2)) for part in np.array_split(rows, len(rows) // 50)])


def loops_of_three(rows: Rows, random: np.random.Generator) -> Rows:
    """Agents that ask three queries in turn, seven times."""
    return np.concatenate([np.tile(rows[start : start + 3], 7) for start in range(0, len(rows), 3)])


def health_checks(rows: Rows, random: np.random.Generator) -> Rows:
    """Every other query is the same one."""
    return np.column_stack([rows, np.full(len(rows), rows[0])]).ravel()


def popular(rows: Rows, random: np.random.Generator) -> Rows:
    """Few queries are asked very often: a heavy tail of popularity."""
    return np.repeat(rows, np.minimum(random.zipf(1.5, len(rows)), 200))


PATTERNS: dict[str, Callable[[Rows, np.random.Generator], Rows]] = {
    **{f"{times} in a row": in_a_row(times) for times in (1, 2, 3, 4, 5, 100)},
    "twice, interleaved": interleaved,
    "loops of three": loops_of_three,
    "health checks": health_checks,
    "popular queries": popular,
}


def queries(n: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, novelties and vectors of n different queries."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((n, 8)).astype(np.float32)
    vectors[:, 0] += shift
    return random.beta(2, 3, n).astype(np.float32), random.beta(5, 5, n).astype(np.float32), vectors


def reference(n: int = 2000, seed: int = 99) -> Reference:
    scores, novelties, vectors = queries(n, seed)
    return Reference.from_samples(scores, novelties, vectors, float(np.quantile(novelties, 0.99)))


def feed(monitor: DriftMonitor, rows: Sequence[int], watched: tuple[Any, ...], noise: float = 0.0) -> None:
    scores, novelties, vectors = watched
    random = np.random.default_rng(0)
    for row in rows:
        error = noise * random.uniform(-1, 1)
        monitor.observe(float(scores[row]) + error, float(novelties[row]) + error, vectors[row])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_stable_traffic_with_repeats_raises_no_alarm(pattern: str) -> None:
    random = np.random.default_rng(5)
    for seed in range(6):
        monitor = DriftMonitor(reference(seed=900 + seed))
        feed(monitor, PATTERNS[pattern](np.arange(600), random), queries(600, seed))
        assert not any(reading.alarms for reading in monitor.status().signals.values())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_shift_in_traffic_with_repeats_is_found_as_soon_as_without(pattern: str) -> None:
    random = np.random.default_rng(5)
    alarms: list[DriftAlarm] = []
    monitor = DriftMonitor(reference(), on_alarm=alarms.append)
    feed(monitor, PATTERNS[pattern](np.arange(500), random), queries(500, 1))
    assert not alarms
    feed(monitor, PATTERNS[pattern](np.arange(250), random), queries(250, 2, shift=1.5))
    assert [alarm.signal for alarm in alarms] == ["vector"]


def test_only_different_queries_are_in_the_window_and_the_others_are_counted() -> None:
    monitor = DriftMonitor(reference())
    feed(monitor, np.repeat(np.arange(300), 4).tolist(), queries(300, 1))
    status = monitor.status()
    assert status.queries == 300
    assert 900 - 50 < status.repeats <= 900  # the newest ones are not sifted yet
    assert {reading.queries for reading in status.signals.values()} == {300}


def test_a_repeat_has_slightly_other_numbers_in_another_batch() -> None:
    monitor = DriftMonitor(reference())
    feed(monitor, np.repeat(np.arange(300), 4).tolist(), queries(300, 1), noise=3e-8)
    assert monitor.status().repeats > 870


def test_a_query_that_left_the_window_counts_again() -> None:
    monitor = DriftMonitor(reference(), window=100, step=50)
    feed(monitor, [*range(200), *range(50)], queries(200, 1))
    assert monitor.status().repeats == 0
    feed(monitor, [*range(150, 200)], queries(200, 1))
    assert monitor.status().repeats == 50


def test_an_old_window_does_not_stay_when_only_few_queries_repeat_for_ever() -> None:
    """Queries that are no longer asked must not hide the ones that are."""
    monitor = DriftMonitor(reference(), window=100, step=50)
    feed(monitor, range(100), queries(100, 1))
    few = np.tile(np.arange(40), STALE_REPEATS * 100 // 40 + 2)
    feed(monitor, few.tolist(), queries(40, 2))
    assert monitor.status().queries == 0
    feed(monitor, range(100), queries(100, 3))
    assert monitor.status().queries == 100


def test_keys_tell_repeats_whatever_the_numbers_say() -> None:
    """A key may be the id of a session, whose turns are not independent; then scores alone suffice."""
    random = np.random.default_rng(0)
    monitor = DriftMonitor(Reference.from_samples(random.random(1000)))
    for session in range(200):
        score = random.random()
        for turn in range(5):
            monitor.observe(score + turn / 1e3, key=f"session {session}")
    assert monitor.status().queries == 200
    assert 800 - 50 < monitor.status().repeats <= 800
    assert monitor.status().signals["score"].alarms == 0


def test_equal_scores_alone_are_no_repeats() -> None:
    monitor = DriftMonitor(Reference.from_samples(np.random.default_rng(0).random(1000)))
    for _ in range(100):
        monitor.observe(0.5)
    assert monitor.status().state == "drift"
    assert monitor.status().repeats == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "a", [1, 2], object()])
def test_what_is_no_number_is_no_key_and_is_counted_as_before(bad: Any) -> None:
    assert numbers_key(0.5, bad, None) is None
    monitor = DriftMonitor(reference())
    for _ in range(50):
        monitor.observe(0.5, bad, None)
    assert (monitor.ignored, monitor.repeats) == (50, 0)


def test_a_key_that_cannot_be_hashed_raises_nothing() -> None:
    monitor = DriftMonitor(reference())
    for row in range(50):
        monitor.observe(row / 50, 0.5, None, key=[row])
    assert monitor.repeats == 50


def test_a_reference_is_learned_from_different_queries() -> None:
    monitor = DriftMonitor(None, learn=1000)
    feed(monitor, np.repeat(np.arange(1010), 3).tolist(), queries(1010, 1))
    assert monitor.reference is not None
    assert monitor.reference.scores.n == 1000


def test_a_reference_of_own_traffic_counts_a_query_once(router: LearnedRouter, texts: list[str]) -> None:
    different = list(dict.fromkeys(texts))[:120]
    chats = [[{"role": "user", "content": text}] for text in different[:20]]
    once = Reference.of(router, [*different, *chats])
    assert Reference.of(router, [*different, *chats, *different, *chats[::-1]]).scores.n == once.scores.n == 140


def test_the_window_of_a_route_monitor_counts_requests_and_its_drift_different_queries(router: LearnedRouter) -> None:
    monitor = RouteMonitor(router)
    texts = [f"question number {number}" for number in range(100)]
    for start in range(0, 100, 20):
        batch = texts[start : start + 20] * 3
        assessment = router.assess(batch)
        monitor.observe_batch(router.decide(assessment, 0.5), assessment, queries=batch)
    status = monitor.status()
    assert (status.totals.requests, status.window) == (300, 300)
    assert status.drift.queries == 100
    assert 200 - 50 < status.drift.repeats <= 200


def test_a_decision_with_a_key_is_counted_and_a_repeat_of_it_is_no_new_query() -> None:
    monitor = RouteMonitor(drift=DriftMonitor(reference()))
    for _ in range(50):
        monitor.observe(Decision("big", 0.7, 0.5, ("big", "small"), "learned", "why"), key="a session")
    assert (monitor.status().totals.requests, monitor.drift.repeats) == (50, 49)


def test_the_memory_of_keys_is_bounded_and_holds_no_text() -> None:
    keys = RecentKeys(3)
    assert [keys.add(key) for key in (1, 2, 3, 3, 4, 1, 4)] == [True, True, True, False, True, True, False]
    assert len(keys._known) == len(keys._order) == 3
    assert isinstance(query_key("a secret"), int)
    assert query_key([{"role": "user", "content": "a"}]) == query_key([{"role": "user", "content": "a", "x": 1}])
    assert query_key([{"no": "content"}]) is None


def calibrated(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    scores = random.beta(2, 3, n)
    return scores, (random.random(n) < scores).astype(float)


@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_outcomes_of_repeated_queries_are_no_drift_of_the_calibration_and_a_real_bias_is(times: int) -> None:
    alarms = 0
    for seed in range(20):
        monitor = CalibrationMonitor()
        for score, won in zip(*calibrated(seed, 2000 // times), strict=True):
            for _ in range(times):
                monitor.observe(score, won)
        alarms += any(reading.alarms for reading in monitor.status().signals.values())
    assert alarms <= 1
    monitor = CalibrationMonitor()
    for score, won in zip(*calibrated(0, 250), strict=True):
        for _ in range(times):
            monitor.observe(max(score - 0.4, 0.02), won)
    assert monitor.status().signals["calibration-bias"].state == "drift"


@pytest.mark.parametrize("decimals", [0, 1, 2])
def test_rounded_scores_are_levels_and_a_bias_in_them_is_found(decimals: int) -> None:
    monitor = CalibrationMonitor()
    for score, won in zip(*calibrated(1, 500), strict=True):
        monitor.observe(float(np.clip(np.round(score - 0.35, decimals), 0.1, 0.9)), won)
    assert monitor.status().signals["calibration-bias"].state == "drift"
