"""Off-policy values: unbiased where the logging policy explored, and honest where it did not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routelearn.monitoring.decision_log import DecisionLog
from routelearn.monitoring.log_rows import read_log
from routelearn.monitoring.off_policy import off_policy_value
from routelearn.routers.decision import Decision
from routelearn.routers.errors import InputError

MODELS = ("big", "small")


def logged(n: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """An exploring policy: big with a probability that grows with the score; big is right more often."""
    rows = []
    for score in random.random(n):
        odds = 0.1 + 0.8 * score
        big = bool(random.random() < odds)
        right = random.random() < (0.9 if big else 0.9 - 0.6 * score)
        rows.append(
            {
                "model": MODELS[not big],
                "score": score,
                "propensity": odds if big else 1 - odds,
                "outcome": float(right),
            }
        )
    return rows


def at(threshold: float) -> Any:
    return lambda row: "big" if row["score"] >= threshold else "small"


def truth(threshold: float) -> float:
    """Of `at(threshold)`: 0.9 - 0.6 * score below the threshold, integrated; 0.9 above."""
    return 0.9 - 0.3 * threshold**2


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.1])
def test_the_estimates_are_unbiased_and_their_errors_right(threshold: float) -> None:
    random = np.random.default_rng(0)
    estimates = [off_policy_value(logged(400, random), at(threshold)) for _ in range(250)]
    expected = truth(min(threshold, 1.0))
    for name in ("ips", "snips"):
        values = np.asarray([getattr(one, name) for one in estimates])
        errors = np.asarray([getattr(one, f"{name}_error") for one in estimates])
        assert values.mean() == pytest.approx(expected, abs=4 * values.std() / np.sqrt(len(values)))
        assert errors.mean() == pytest.approx(values.std(), rel=0.2)
    assert np.std([one.snips for one in estimates]) < np.std([one.ips for one in estimates])


def test_a_policy_of_probabilities_is_the_mixture_of_its_models() -> None:
    rows = logged(2000, np.random.default_rng(1))
    big, small = (off_policy_value(rows, lambda _, name=name: name).ips for name in MODELS)
    mixed = off_policy_value(rows, lambda _: {"big": 0.25, "small": 0.75})
    assert mixed.ips == pytest.approx(0.25 * big + 0.75 * small)
    assert mixed.matched == mixed.rows == 2000


def test_the_logging_policy_itself_has_the_mean_of_its_outcomes() -> None:
    rows = [{"model": "big", "propensity": 1.0, "outcome": value} for value in (0.0, 1.0, 1.0, 0.5)]
    estimate = off_policy_value(rows, lambda _: "big")
    assert estimate.ips == estimate.snips == 0.625
    assert estimate.ips_error == pytest.approx(np.std([0, 1, 1, 0.5], ddof=1) / 2)
    assert (estimate.rows, estimate.matched, estimate.effective) == (4, 4, 4.0)


def test_decisions_that_were_never_made_are_not_known_of() -> None:
    rows = [{"model": "small", "propensity": 1.0, "outcome": 1.0}] * 5
    value = off_policy_value(rows, lambda _: "big")
    assert (value.matched, value.ips, value.effective) == (0, 0.0, 0.0)
    assert np.isnan(value.snips)


def test_rows_of_a_log_can_be_evaluated(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log")
    for number in range(40):
        model = "big" if number % 4 else "small"
        decision = Decision(model, 0.5, 0.5, MODELS, "learned", "", propensity=0.75 if number % 4 else 0.25)
        request_id = log.write("x", decision)
        if number < 30:
            log.write_outcome(request_id, float(model == "big"))
    log.close()
    value = off_policy_value(read_log(tmp_path / "log"), lambda _: "big")
    assert value.rows == 30
    assert value.snips == 1.0


def test_a_policy_that_gives_no_model_is_an_input_error() -> None:
    with pytest.raises(InputError, match="expected a model's name"):
        off_policy_value([{"model": "a", "propensity": 1.0, "outcome": 1}], lambda _: None)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no row has an outcome"),
        ([{"model": "a", "propensity": 1.0}], "no row has an outcome"),
        ([{"id": "r7", "model": "a", "propensity": 0.0, "outcome": 1}], "r7 has propensity 0.0"),
        ([{"model": "a", "propensity": 1.5, "outcome": 1}], "1.5"),
        ([{"model": "a", "outcome": 1}], "propensity"),
    ],
)
def test_rows_that_cannot_be_weighed_are_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        off_policy_value(rows, lambda _: "a")
