"""Exploration: propensities are the frequencies, and logged decisions can be evaluated."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.policies import NAMES, TableRouter, assert_rules_rows_are_kept, queries, random_router
from hypothesis import given
from hypothesis import strategies as st

from routelearn.policies.composed import Explore, TopK
from routelearn.policies.objective import Objective
from routelearn.policies.threshold import Threshold
from routelearn.routers.decision import Decision
from routelearn.routers.errors import InputError

ONE = TableRouter([[0.9, 0.5, 0.2]])
MANY = 20_000


def decided(policy: Explore, times: int = MANY) -> list[Decision]:
    return ONE.route_batch(["0"] * times, policy)


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ((), {"large": 0.8 + 0.2 / 3, "medium": 0.2 / 3, "small": 0.2 / 3}),  # the whole pool
        (("large", "small"), {"large": 0.8 + 0.1, "small": 0.1}),
        (NAMES, {"large": 0.8 + 0.2 / 3, "medium": 0.2 / 3, "small": 0.2 / 3}),
        (("medium", "small"), {"large": 0.8, "medium": 0.1, "small": 0.1}),  # the policy's choice is not a candidate
    ],
)
def test_frequencies_match_the_recorded_propensities(candidates: tuple[str, ...], expected: dict[str, float]) -> None:
    decisions = decided(Explore(Threshold(0.0), 0.2, candidates=candidates, seed=1))
    counts = Counter(decision.model for decision in decisions)
    recorded = {decision.model: decision.propensity for decision in decisions}
    assert recorded == pytest.approx(expected)
    for name, propensity in expected.items():
        deviation = np.sqrt(propensity * (1 - propensity) / MANY)
        assert abs(counts[name] / MANY - propensity) < 4 * deviation


@given(st.floats(0, 1), st.integers(1, 3))
def test_propensities_of_all_models_sum_to_one(epsilon: float, k: int) -> None:
    explore = Explore(Threshold(0.0), epsilon, candidates=NAMES[-k:], seed=3)
    found = {decision.model: decision.propensity for decision in decided(explore, 400)}
    assert all(0 < propensity <= 1 for propensity in found.values())
    others = dict.fromkeys(NAMES[-k:], epsilon / k)
    base = {"large": 1 - epsilon + others.get("large", 0.0)}
    assert found == pytest.approx({name: {**others, **base}[name] for name in found})
    assert sum({**others, **base}.values()) == pytest.approx(1)


def test_the_drawn_rows_are_a_share_of_epsilon_and_say_what_else_it_would_have_been() -> None:
    drawn = [decision for decision in decided(Explore(Threshold(0.0), 0.1, seed=0)) if decision.cause == "explore"]
    assert abs(len(drawn) / MANY - 0.1) < 4 * np.sqrt(0.09 / MANY)
    assert {decision.reason[:47] for decision in drawn} == {"explored: drawn from 3 models; else large: scor"}
    orders = {("large", "medium", "small"), ("medium", "large", "small"), ("small", "large", "medium")}
    assert {decision.candidates for decision in drawn} == orders


def test_inverse_propensity_weights_give_the_value_of_another_policy_without_bias() -> None:
    router = random_router(4000, seed=2)
    asked = queries(router.table)
    random = np.random.default_rng(0)
    target = Threshold(0.6)
    wanted = [decision.model for decision in router.route_batch(asked, target)]
    truth = float(np.mean([router.table[row, NAMES.index(name)] for row, name in enumerate(wanted)]))
    estimates = []
    for seed in range(40):
        log = router.route_batch(asked, Explore(Threshold(0.4), 0.3, seed=seed))
        outcome = random.random(4000) < [router.table[row, NAMES.index(d.model)] for row, d in enumerate(log)]
        weights = [(d.model == name) / d.propensity for d, name in zip(log, wanted, strict=True)]
        estimates.append(float(np.mean(outcome * np.array(weights))))
    error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - truth) < 4 * error
    naive = np.mean([router.table[row, NAMES.index(d.model)] for row, d in enumerate(log)])
    assert abs(naive - truth) > 4 * error  # what the log's mean says is another policy's value


def test_one_seed_gives_one_sequence_and_no_seed_another_each_time() -> None:
    models = [[d.model for d in decided(Explore(None, 0.5, seed=7), 200)] for _ in range(2)]
    assert models[0] == models[1]
    unseeded = [[d.model for d in decided(Explore(None, 0.5), 200)] for _ in range(2)]
    assert unseeded[0] != unseeded[1]


def test_epsilon_0_is_the_policy_itself() -> None:
    router = random_router(30)
    asked = queries(range(30))
    assert router.route_batch(asked, Explore(Objective(), 0.0)) == router.route_batch(asked, Objective())


def test_threads_share_one_sequence() -> None:
    explore = Explore(Threshold(0.0), 0.5, candidates=("large", "small"), seed=0)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda _: decided(explore, 500), range(40)))
    drawn = [decision.model == "small" for part in parts for decision in part]
    assert abs(np.mean(drawn) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / MANY)
    assert len({tuple(decision.model for decision in part) for part in parts}) == 40


def test_targets_follow_the_drawn_model() -> None:
    for decision in decided(Explore(TopK(2), 1.0, candidates=("small",)), 5):
        assert decision.targets == ("small", "large")


def test_exploration_within_exploration_is_refused() -> None:
    with pytest.raises(InputError, match="explores too"):
        decided(Explore(Explore(None, 0.5), 0.5), 10)


def test_settings_out_of_range_are_input_errors() -> None:
    with pytest.raises(InputError, match="epsilon is"):
        Explore(epsilon=1.5)
    with pytest.raises(InputError, match="each model once"):
        Explore(candidates=("large", "large"))
    with pytest.raises(InputError, match="not in the pool"):
        decided(Explore(candidates=("huge",)), 1)


def test_rules_rows_are_not_explored() -> None:
    assert_rules_rows_are_kept(Explore(None, 1.0, candidates=("medium",)))
