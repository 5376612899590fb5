"""A/B tests that may be looked at all the time: false alarms, power, and their state."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from routelearn.evaluation.thresholds.ab_test import ABTest, Arm
from routelearn.routers.errors import InputError

Draw = Callable[[np.random.Generator, bool], float]


def verdicts(draw: Draw, trials: int, outcomes: int, **settings: float) -> Counter[str]:
    """What tests say that are looked at after every outcome."""
    found: Counter[str] = Counter()
    for seed in range(trials):
        random = np.random.default_rng(seed)
        test = ABTest(**settings)
        for to_b in (random.random(outcomes) < test.share).tolist():
            if test.add("b" if to_b else "a", draw(random, to_b)) != "undecided":
                break
        found[test.verdict] += 1
    return found


def bernoulli(a: float, b: float) -> Draw:
    return lambda random, to_b: float(random.random() < (b if to_b else a))


SAME: dict[str, Draw] = {
    "often good": bernoulli(0.9, 0.9),
    "even": bernoulli(0.5, 0.5),
    "rarely good": bernoulli(0.01, 0.01),
    "same mean, other spread": lambda random, to_b: float(random.random() < 0.5) if to_b else 0.5,
}


@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("name", list(SAME))
def test_equal_arms_raise_few_false_alarms_however_often_one_looks(name: str, share: float) -> None:
    found = verdicts(SAME[name], 120, 700, share=share, delta=0.1)
    false = found["b is worse"] + found["b is not worse"]
    assert false / 120 <= 0.1 + 2.5 * math.sqrt(0.1 * 0.9 / 120)


def test_worse_by_exactly_the_margin_is_rarely_called_not_worse() -> None:
    found = verdicts(bernoulli(0.8, 0.7), 120, 700, margin=0.1, delta=0.1)
    assert found["b is not worse"] / 120 <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 120)


def test_a_worse_arm_is_found() -> None:
    assert verdicts(bernoulli(0.8, 0.6), 40, 1500)["b is worse"] >= 36


def test_an_arm_as_good_is_found_to_be_not_worse_by_a_margin() -> None:
    assert verdicts(bernoulli(0.8, 0.8), 40, 3000, margin=0.1)["b is not worse"] >= 34


def test_a_better_arm_is_not_worse_without_a_margin() -> None:
    assert verdicts(bernoulli(0.6, 0.8), 40, 1500)["b is not worse"] >= 36


def test_a_verdict_stays() -> None:
    random = np.random.default_rng(0)
    test = ABTest()
    while test.verdict == "undecided":
        to_b = bool(random.random() < 0.5)
        test.add("b" if to_b else "a", float(not to_b))
    assert test.verdict == "b is worse"
    for _ in range(500):
        to_b = bool(random.random() < 0.5)
        assert test.add("b" if to_b else "a", float(to_b)) == "b is worse"


def test_the_state_survives_json_and_goes_on_alike() -> None:
    random = np.random.default_rng(1)
    test = ABTest(margin=0.02, delta=0.01, share=0.3)
    rows: list[tuple[Arm, float]] = [("b" if random.random() < 0.3 else "a", random.random()) for _ in range(200)]
    for arm, outcome in rows[:100]:
        test.add(arm, outcome)
    copy = ABTest.from_dict(json.loads(json.dumps(test.as_dict())))
    assert copy == test
    for arm, outcome in rows[100:]:
        assert copy.add(arm, outcome) == test.add(arm, outcome)
    assert copy.as_dict() == test.as_dict()


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_units_go_to_arms_by_their_share_and_always_to_the_same(share: float) -> None:
    test = ABTest(share=share)
    arms = [test.arm(f"request {i}") for i in range(5000)]
    assert abs(arms.count("b") / 5000 - share) < 4 * math.sqrt(share * (1 - share) / 5000)
    assert arms == [ABTest(share=share).arm(f"request {i}") for i in range(5000)]


def test_tests_of_other_names_assign_anew() -> None:
    arms = [[ABTest(name=name).arm(f"user {i}") for i in range(4000)] for name in ("", "june", "july")]
    for one, other in ((0, 1), (1, 2)):
        same = sum(a == b for a, b in zip(arms[one], arms[other], strict=True))
        assert abs(same / 4000 - 0.5) < 4 * math.sqrt(0.25 / 4000)


def test_worse_by_less_than_the_margin_is_rarely_called_worse() -> None:
    found = verdicts(bernoulli(0.8, 0.78), trials=100, outcomes=3000, margin=0.05)
    assert found["b is worse"] <= 5 + 3 * math.sqrt(5)


def test_the_difference_is_that_of_the_means() -> None:
    test = ABTest()
    assert math.isnan(test.difference)
    for arm, outcome in (("a", 1.0), ("a", 0.5), ("b", 0.25)):
        test.add(arm, outcome)  # type: ignore[arg-type]
    assert test.difference == -0.5
    assert test.counts == {"a": 2, "b": 1}


@pytest.mark.parametrize("settings", [{"margin": -0.1}, {"margin": 1.0}, {"delta": 0.0}, {"share": 1.0}])
def test_settings_out_of_range_are_input_errors(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected a margin"):
        ABTest(**settings)


@pytest.mark.parametrize(("arm", "outcome"), [("c", 0.5), ("a", 1.5), ("a", float("nan"))])
def test_outcomes_that_are_none_are_input_errors(arm: str, outcome: float) -> None:
    with pytest.raises(InputError, match="expected arm a or b"):
        ABTest().add(arm, outcome)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [{}, {**ABTest().as_dict(), "_worse": {"no": 1}}])
def test_a_state_that_is_none_is_an_input_error(state: dict[str, object]) -> None:
    with pytest.raises(InputError, match="what as_dict gave"):
        ABTest.from_dict(state)
