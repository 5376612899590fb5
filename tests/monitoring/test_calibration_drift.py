"""Calibration drift: scores against outcomes, with states, alarms and numbers that can be checked by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from routelearn.monitoring.alarms import DriftAlarm
from routelearn.monitoring.calibration_drift import CalibrationMonitor
from routelearn.routers.errors import InputError


def outcomes(n: int, seed: int, bias: float = 0.0, slope: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and outcomes whose true probability is the score moved by a bias and stretched by a slope, in logits."""
    random = np.random.default_rng(seed)
    scores = random.beta(2, 2, n)
    logit = np.log(scores / (1 - scores)) * slope + bias
    return scores, random.random(n) < 1 / (1 + np.exp(-logit))


def feed(monitor: CalibrationMonitor, scores: np.ndarray, won: np.ndarray) -> None:
    for score, outcome in zip(scores, won, strict=True):
        monitor.observe(score, outcome)


def test_calibrated_scores_are_stable_and_near_what_is_expected() -> None:
    monitor = CalibrationMonitor()
    feed(monitor, *outcomes(5000, 0))
    status = monitor.status()
    assert status.state in {"stable", "watch"}
    assert sum(reading.alarms for reading in status.signals.values()) == 0
    assert status.outcomes == 500
    assert status.brier is not None
    assert status.brier == pytest.approx(status.brier_expected, abs=0.02)
    assert status.ece is not None
    assert status.ece == pytest.approx(status.ece_expected, abs=0.04)


def test_the_numbers_are_those_of_the_window() -> None:
    monitor = CalibrationMonitor(window=100, step=50)
    scores, won = outcomes(270, 1)
    feed(monitor, scores, won)
    p, y = scores[150:250], won[150:250].astype(float)
    status = monitor.status()
    assert status.outcomes == 100
    assert status.residual == pytest.approx((y - p).mean())
    assert status.brier == pytest.approx(((y - p) ** 2).mean())
    assert status.brier_expected == pytest.approx((p * (1 - p)).mean())
    bins = (p * 10).astype(int)
    ece = sum(abs((y - p)[bins == place].sum()) for place in range(10)) / 100
    assert status.ece == pytest.approx(ece)
    bias = abs((y - p).sum()) / math.sqrt((p * (1 - p)).sum())
    spread = abs(((y - p) * (1 - 2 * p)).sum()) / math.sqrt(((1 - 2 * p) ** 2 * p * (1 - p)).sum())
    assert status.signals["calibration-bias"].value == pytest.approx(bias)
    assert status.signals["calibration-spread"].value == pytest.approx(spread)


@pytest.mark.parametrize(
    ("signal", "bias", "slope"), [("calibration-bias", 0.7, 1.0), ("calibration-spread", 0.0, 0.0)]
)
def test_scores_that_part_from_outcomes_alarm_once_and_recover(signal: str, bias: float, slope: float) -> None:
    alarms: list[DriftAlarm] = []
    monitor = CalibrationMonitor(on_alarm=alarms.append)
    feed(monitor, *outcomes(1000, 2))
    assert not alarms
    feed(monitor, *outcomes(1500, 3, bias, slope))
    assert [alarm.signal for alarm in alarms] == [signal]
    feed(monitor, *outcomes(1000, 4))
    assert monitor.status().signals[signal].state in {"stable", "watch"}


def test_the_residual_says_in_which_direction() -> None:
    monitor = CalibrationMonitor()
    feed(monitor, *outcomes(500, 5, bias=0.7))
    residual = monitor.status().residual
    assert residual is not None
    assert residual > 0.08


def test_calibrated_outcomes_set_off_fewer_false_alarms_than_stated() -> None:
    alarmed = 0
    for seed in range(20):
        monitor = CalibrationMonitor(false_alarms=0.4)
        feed(monitor, *outcomes(10_000, 100 + seed))
        alarmed += any(reading.alarms for reading in monitor.status().signals.values())
    assert alarmed <= 12


def test_ties_make_it_more_cautious_not_less() -> None:
    monitor = CalibrationMonitor()
    for score in np.random.default_rng(0).normal(0.5, 0.05, 1000).clip(0, 1):
        monitor.observe(score, 0.5)
    assert monitor.status().state == "stable"


def test_scores_that_are_certain_cannot_be_judged_by_a_normal_sum() -> None:
    monitor = CalibrationMonitor()
    for _ in range(500):
        monitor.observe(0.999, True)
    assert monitor.status().state == "unknown"
    assert "too little room" in monitor.status().signals["calibration-bias"].why


@pytest.mark.parametrize("pair", [(math.nan, 1), (0.5, 2), (-0.1, 0), ("a", 1), (0.5, None)])
def test_what_is_no_score_or_outcome_is_counted_and_left_out(pair: tuple[float, float]) -> None:
    monitor = CalibrationMonitor(window=100)
    for _ in range(100):
        monitor.observe(*pair)
    assert (monitor.ignored, monitor.status().outcomes) == (100, 0)


def test_without_outcomes_the_status_is_unknown_and_plain() -> None:
    content = json.loads(json.dumps(CalibrationMonitor().status().as_dict()))
    assert content["state"] == "unknown"
    assert content["brier"] is None
    assert content["signals"]["calibration-bias"]["why"] == "no outcomes yet"


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(InputError, match="window"):
        CalibrationMonitor(window=10)
    with pytest.raises(InputError, match="false_alarms"):
        CalibrationMonitor(false_alarms=2)
