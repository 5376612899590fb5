"""The verdict: one word for each of the four cases, and figures that agree with the thresholds that they rest on."""

from __future__ import annotations

import numpy as np
import pytest

from routelearn.data.records import PerformanceRecord, PreferenceRecord, Record
from routelearn.evaluation import verdict_of
from routelearn.routers.base import Router
from routelearn.routers.decision import Floats, Model


class Known(Router):
    """Scores each query by the number in it."""

    def __init__(self) -> None:
        super().__init__([Model("strong", 10.0, 30.0), Model("weak", 1.0, 3.0)], "strong", "weak")

    def quality(self, queries: object) -> Floats:
        scores = np.array([float(str(query).split()[0]) for query in queries], np.float32)  # type: ignore[attr-defined]
        return np.stack([scores, 1 - scores], axis=1)


def _records(n: int, lost: float, *, sign: int = 1, seed: int = 0, costs: bool = False) -> list[Record]:
    """Weak fails at a share of the queries: those with the largest scores; the smallest where the sign is -1."""
    random = np.random.default_rng(seed)
    records: list[Record] = []
    for score in random.random(n):
        fails = (score > 1 - lost) if sign > 0 else (score < lost)
        for model, value, cost in (("strong", 1.0, 0.02), ("weak", 1.0 - fails, 0.001)):
            records.append(PerformanceRecord(f"{score:.6f} q", model, value, cost_usd=cost if costs else None))
    return records


def test_a_good_router_is_deployed_with_its_threshold_and_what_it_saves() -> None:
    verdict = verdict_of(Known(), _records(600, 0.3, costs=True), max_quality_loss=0.02)
    assert verdict.action == "deploy"
    assert verdict.threshold is not None and 0.6 < verdict.threshold < 0.75
    assert verdict.usd_saved is not None and verdict.strong_share is not None
    assert verdict.usd_saved[0] == pytest.approx(1000 * (1 - verdict.strong_share) * 0.019)
    assert verdict.less_than_random is not None and verdict.less_than_random[1][0] > 0
    assert "loses less than a random choice" in str(verdict)


def test_costs_come_from_prices_where_the_records_have_none() -> None:
    verdict = verdict_of(Known(), _records(600, 0.3), max_quality_loss=0.02)
    assert verdict.usd_saved is not None and 0 < verdict.usd_saved[1][0] < verdict.usd_saved[0]


def test_a_weak_model_that_is_good_enough_needs_no_router() -> None:
    verdict = verdict_of(Known(), _records(400, 0.01), max_quality_loss=0.05)
    assert verdict.action == "do not deploy"
    assert "send everything to weak" in verdict.reason


def test_too_few_labels_ask_for_more_and_say_how_many() -> None:
    verdict = verdict_of(Known(), _records(40, 0.3), max_quality_loss=0.02)
    assert verdict.action == "label more"
    assert verdict.labels_needed is not None and verdict.labels_needed > 40
    more = verdict_of(Known(), _records(2 * verdict.labels_needed, 0.3, seed=1), max_quality_loss=0.02)
    assert more.action == "deploy"


def test_a_router_that_is_worse_than_chance_is_not_deployed() -> None:
    verdict = verdict_of(Known(), _records(2000, 0.5, sign=-1), max_quality_loss=0.1)
    assert verdict.action == "do not deploy"
    assert "loses more than a random choice" in verdict.reason or "no threshold" in verdict.reason


def test_preferences_count_as_win_rates() -> None:
    random = np.random.default_rng(0)
    wins = [(score, 1.0 if score > 0.7 else 0.5) for score in random.random(800)]
    records: list[Record] = [PreferenceRecord(f"{score:.6f} q", "strong", "weak", win) for score, win in wins]
    verdict = verdict_of(Known(), records, max_quality_loss=0.02)
    assert verdict.action == "deploy"
    assert "points of the win rate" in verdict.reason
