"""Choice by quality less cost and latency, over all models."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from helpers.policies import NAMES, PRICED, QUALITIES, TableRouter, assert_rules_rows_are_kept, queries, random_router
from hypothesis import given
from hypothesis import strategies as st

from routelearn.policies.objective import Objective, cost_aware
from routelearn.routers.decision import Model
from routelearn.routers.errors import InputError

COST = {"large": 10.0 * 500 + 30.0 * 300, "medium": 2.0 * 500 + 6.0 * 300, "small": 0.5 * 500 + 1.0 * 300}


@given(QUALITIES)
def test_without_weights_the_best_model_is_chosen_and_candidates_fall_in_quality(quality: list[list[float]]) -> None:
    router = TableRouter(quality)
    for row, decision in zip(quality, router.route_batch(queries(quality), Objective()), strict=True):
        assert row[NAMES.index(decision.model)] == max(row)
        ranked = [row[NAMES.index(name)] for name in decision.candidates]
        assert ranked == sorted(row, reverse=True)


@given(QUALITIES)
def test_a_very_large_cost_weight_chooses_the_cheapest(quality: list[list[float]]) -> None:
    decisions = TableRouter(quality).route_batch(queries(quality), Objective(cost_weight=1e9))
    assert {decision.candidates for decision in decisions} == {("small", "medium", "large")}


@given(QUALITIES, st.lists(st.floats(0, 1000), min_size=2, max_size=6))
def test_the_cost_never_rises_with_the_cost_weight(quality: list[list[float]], weights: list[float]) -> None:
    router = TableRouter(quality)
    spent = [
        [COST[decision.model] for decision in router.route_batch(queries(quality), Objective(cost_weight=weight))]
        for weight in sorted(weights)
    ]
    for before, after in pairwise(spent):
        assert all(b >= a for b, a in zip(before, after, strict=True))


@given(QUALITIES, st.floats(0, 100), st.floats(0, 1))
def test_the_chosen_model_has_the_largest_utility(quality: list[list[float]], cost: float, seconds: float) -> None:
    latency = {"large": 4.0, "medium": 1.0, "small": 2.0}
    policy = Objective(cost, seconds, latency_s=latency)
    for row, decision in zip(quality, TableRouter(quality).route_batch(queries(quality), policy), strict=True):
        utility = {name: row[i] - cost * COST[name] / 1e6 - seconds * latency[name] for i, name in enumerate(NAMES)}
        assert utility[decision.model] == pytest.approx(max(utility.values()), abs=1e-6)
        assert decision.cause == "utility"


def test_the_reason_states_quality_cost_and_lambda() -> None:
    decision = TableRouter([[0.9, 0.5, 0.2]]).route("0", Objective(cost_weight=10))
    assert decision.model == "large"
    assert decision.reason == "utility 0.7600 = quality 0.9000 - 10 x 0.014000 USD"


def test_cost_aware_trades_quality_at_its_value() -> None:
    router = TableRouter([[0.9, 0.5, 0.2]])
    # Large costs 0.0112 USD more than medium and is 0.4 better: worth it from 0.028 USD a perfect answer.
    assert router.route("0", cost_aware(0.029)).model == "large"
    assert router.route("0", cost_aware(0.027)).model == "medium"


def test_prices_at_call_time_change_the_choice() -> None:
    router = TableRouter([[0.9, 0.5, 0.2]])
    assert router.route("0", cost_aware(0.027, [Model("large", 1.0, 3.0)])).model == "large"


def test_the_length_of_a_query_comes_from_its_context() -> None:
    router = TableRouter([[0.9, 0.5, 0.2]])
    policy = cost_aware(0.03)
    assert router.route("0", policy).model == "large"
    assert router.route("0", policy, {"input_tokens": "20000"}).model == "small"
    assert router.route("0", policy, {"tier": "pro"}).model == "large"
    with pytest.raises(InputError, match="number of tokens"):
        router.route("0", policy, {"input_tokens": "many"})


def test_models_without_a_price_are_named_only_where_cost_counts() -> None:
    router = TableRouter([[0.9, 0.5, 0.2]], [Model("large", 1.0, 2.0), Model("medium"), Model("small", 1.0)])
    with pytest.raises(InputError, match=r"no prices are known for \['medium', 'small'\]"):
        router.route("0", Objective(cost_weight=1))
    assert router.route("0", Objective()).model == "large"


def test_latencies_come_from_a_mapping_or_a_function() -> None:
    router = TableRouter([[0.9, 0.8, 0.2]])
    p95 = {"large": 5.0, "medium": 1.0, "small": 1.0}
    assert router.route("0", Objective(latency_weight=0.1, latency_s=p95)).model == "medium"
    assert router.route("0", Objective(latency_weight=0.1, latency_s=p95.get)).model == "medium"
    with pytest.raises(InputError, match=r"latency_s has the models \['lrage'\]; expected some of"):
        router.route("0", Objective(latency_weight=0.1, latency_s={"lrage": 1.0}))
    with pytest.raises(InputError, match="latency_s is None"):
        Objective(latency_weight=0.1)


def test_a_latency_not_measured_yet_counts_as_the_mean_of_the_others() -> None:
    measured: dict[str, float | None] = {"large": None, "medium": 3.0, "small": 1.0}
    for latency_s in (measured.get, measured, {"medium": 3.0, "small": 1.0}):
        decision = TableRouter([[0.9, 0.2, 0.2]]).route("0", Objective(latency_weight=0.1, latency_s=latency_s))  # type: ignore[arg-type]
        assert decision.model == "large"
        assert decision.reason.endswith("- 0.1 x 2.00 s")
    nothing = Objective(latency_weight=0.1, latency_s=lambda name: None)
    assert TableRouter([[0.1, 0.2, 0.3]]).route("0", nothing).model == "small"


def test_latencies_that_are_none_are_refused_and_unknown_ones_are_the_same_in_a_mapping() -> None:
    router = TableRouter([[0.9, 0.2, 0.2]])
    unknown = {"large": None, "medium": 3.0, "small": 1.0}
    assert router.route("0", Objective(latency_weight=0.1, latency_s=unknown)).model == "large"
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="expected seconds from 0"):
            router.route("0", Objective(latency_weight=0.1, latency_s={**unknown, "large": wrong}))


def test_models_that_are_down_rank_last_and_the_reason_says_so() -> None:
    router = TableRouter([[0.9, 0.5, 0.2], [0.1, 0.5, 0.2]])
    first, second = router.route_batch(["0", "1"], Objective(available=lambda name: name != "large"))
    assert first.candidates == ("medium", "small", "large")
    assert first.reason.endswith("; down: large")
    assert second.candidates == ("medium", "small", "large")
    assert "down" not in second.reason
    assert router.route("0", Objective(available=lambda name: False)).model == "large"


def test_candidates_can_be_some_models_of_the_pool() -> None:
    router = random_router(20)
    for decision in router.route_batch(queries(range(20)), Objective(models=("small", "medium"))):
        assert set(decision.candidates) == {"small", "medium"}
    with pytest.raises(InputError, match="not in the pool"):
        router.route("0", Objective(models=("huge",)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Objective(cost_weight=-1),
        lambda: Objective(cost_weight=float("nan")),
        lambda: Objective(latency_weight=float("inf"), latency_s={}),
        lambda: cost_aware(0),
        lambda: random_router(1).route("0", Objective(1, prices=[Model("large", -1.0, 2.0)])),
        lambda: random_router(1).route("0", Objective(1, input_tokens=float("nan"))),
    ],
)
def test_a_setting_out_of_range_is_an_input_error(make: object) -> None:
    with pytest.raises(InputError):
        make()  # type: ignore[operator]


def test_rules_rows_keep_their_own_decision() -> None:
    assert_rules_rows_are_kept(Objective(cost_weight=1e6))
    assert_rules_rows_are_kept(Objective(cost_weight=1e6), {"input_tokens": "9"})


def test_an_empty_batch_gives_no_decisions() -> None:
    assert random_router(3).route_batch([], Objective(1.0, 1.0, PRICED, latency_s=dict.fromkeys(NAMES, 1.0))) == []


def test_one_by_one_is_as_in_a_batch() -> None:
    router = random_router(50)
    policy = Objective(20.0)
    batch = router.route_batch(queries(range(50)), policy)
    assert batch == [router.route(str(row), policy) for row in range(50)]
    assert len({decision.model for decision in batch}) > 1
    assert np.all([decision.candidates[0] == decision.model for decision in batch])
