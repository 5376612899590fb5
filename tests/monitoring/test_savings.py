"""What calls cost and what always-strong would have cost: figures by hand, and properties of any calls."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from routelearn.monitoring.prometheus import register
from routelearn.monitoring.savings import LEAST_CALLS, Savings, savings_of
from routelearn.monitoring.savings_report import SavingsReport
from routelearn.monitoring.served_call import ServedCall
from routelearn.policies.prompt_cache import cacheable
from routelearn.routers.decision import Model
from routelearn.routers.errors import InputError

STRONG = Model("strong", 10.0, 30.0, cached_input_price=1.0)
WEAK = Model("weak", 1.0, 3.0, cached_input_price=0.1)
POOL = [STRONG, WEAK]


def call(model: str = "weak", tokens: int = 1000, out: int = 100, **more: Any) -> ServedCall:
    return ServedCall(
        **{"model": model, "strong": "strong", "input_tokens": tokens, "output_tokens": out, "time": 0.0, **more}
    )


def report_of(*calls: ServedCall, pool: list[Model] = POOL, **settings: Any) -> SavingsReport:
    savings = Savings(pool, **settings)
    for one in calls:
        savings.add(one)
    return savings.report()


def test_a_call_of_weak_is_compared_with_the_same_tokens_at_strong() -> None:
    found = report_of(call())
    assert found.spent_usd == pytest.approx(0.0013)
    assert found.always_strong_usd == pytest.approx(0.013)
    assert found.saved_usd == pytest.approx(0.0117)
    assert found.saved_share == pytest.approx(0.9)
    assert found.assumed_ratios == ("weak",)


def test_traffic_that_strong_answered_saves_nothing_whatever_its_bill() -> None:
    calls = [call("strong", 3000, session="s", time=float(n), cost_usd=0.5, cached_tokens=0) for n in range(5)]
    found = report_of(*calls)
    assert (found.always_strong_usd, found.saved_usd, found.saved_share) == (2.5, 0.0, 0.0)
    assert found.why_no_interval == "strong answered every request, so nothing had to be estimated"


def test_what_floats_leave_of_equal_sums_is_neither_saved_nor_lost() -> None:
    found = report_of(*(call("strong", cost_usd=cost) for cost in (0.1, 0.2, 0.7, 0.004716, 0.0039) * 20))
    assert (found.saved_usd, found.saved_share) == (0.0, 0.0)


def test_a_bill_goes_before_the_prices_and_the_routers_own_cost_is_deducted() -> None:
    found = report_of(call(cost_usd=0.002), call(cost_usd=0.002, router_usd=0.001), router_usd=0.0005)
    assert found.spent_usd == 0.004
    assert found.router_usd == 0.0015
    assert found.saved_usd == pytest.approx(0.026 - 0.004 - 0.0015)


def test_the_cache_of_strong_holds_what_the_session_had_in_whole_steps_and_nothing_short() -> None:
    assert [cacheable(tokens) for tokens in (0, 1023, 1024, 1151, 1152)] == [0, 0, 1024, 1024, 1152]
    first = call(tokens=2000, out=0, session="s")
    second = call(tokens=3000, out=0, session="s", time=10.0)
    found = report_of(first, second)
    assert found.always_strong_usd == pytest.approx((2000 * 10 + 1080 * 10 + 1920 * 1) / 1e6)
    late = report_of(first, replace(second, time=301.0))
    alone = report_of(replace(first, session=None), replace(second, session=None))
    assert late.always_strong_usd == alone.always_strong_usd == pytest.approx(0.05)
    shorter = report_of(second, replace(first, time=20.0))
    assert shorter.always_strong_usd == pytest.approx((3000 * 10 + 80 * 10 + 1920) / 1e6)


def test_a_prefix_that_weak_had_cached_would_be_in_the_cache_of_strong_too() -> None:
    found = report_of(call(tokens=2000, out=0, cached_tokens=1920))
    assert found.always_strong_usd == pytest.approx((80 * 10 + 1920 * 1) / 1e6)


def test_a_switch_costs_what_the_new_model_reads_at_full_price() -> None:
    first = call("weak", 2000, session="s")
    stays = call("weak", 2500, session="s", time=1.0, cached_tokens=1920)
    moves = call("strong", 2500, session="s", time=1.0)
    assert report_of(first, stays).cache_penalty_usd == 0
    assert report_of(first, moves).cache_penalty_usd == pytest.approx(1920 * 9 / 1e6)
    assert report_of(first, replace(stays, cached_tokens=0)).cache_penalty_usd == 0  # the provider's own miss
    assert report_of(first, replace(moves, time=301.0)).cache_penalty_usd == 0  # every cache had forgotten
    # strong would have had it cached, had it answered from the first
    assert report_of(first, moves).modelled_usd == pytest.approx(0.023 + (580 * 10 + 1920 + 100 * 30) / 1e6)


def test_the_ratio_of_output_lengths_is_learned_from_enough_calls_of_both_models() -> None:
    savings = Savings(POOL)
    for _ in range(LEAST_CALLS):
        savings.add(call("weak", 100, 100))
        savings.add(call("strong", 100, 170))
    before = savings.report()
    assert before.output_ratios == {"weak": pytest.approx(1.7)}
    savings.add(call("weak", 0, 1000))
    grown = savings.report().modelled_usd - before.modelled_usd
    assert 0.03 < grown < 1.7 * 0.03  # the long call changes the mean of weak itself


def test_a_log_is_counted_with_the_ratios_of_all_its_calls() -> None:
    calls = [call("weak", 0, 100) for _ in range(40)] + [call("strong", 0, 200) for _ in range(40)]
    found = savings_of(calls, POOL)
    assert found.output_ratios == {"weak": 2.0}
    assert found.always_strong_usd == pytest.approx(80 * 200 * 30 / 1e6)


def test_the_further_call_of_a_cascade_costs_and_always_strong_would_not_have_made_it() -> None:
    found = report_of(call("weak"), call("strong", further=True))
    assert (found.requests, found.further) == (1, 1)
    assert found.spent_usd == pytest.approx(0.0143)
    assert found.always_strong_usd == pytest.approx(0.013)
    assert found.saved_usd == pytest.approx(-0.0013)


def test_calls_without_a_price_are_counted_and_compared_with_nothing() -> None:
    found = report_of(call("other"), call("weak"), pool=POOL)
    assert (found.unpriced, found.spent_usd) == (1, pytest.approx(0.0013))
    billed = report_of(call("other", cost_usd=0.1), pool=[WEAK])
    assert (billed.unpriced, billed.spent_usd, billed.uncompared_usd, billed.saved_usd) == (1, 0.1, 0.1, 0.0)
    own = report_of(call("strong", cost_usd=0.1), pool=[])
    assert (own.unpriced, own.always_strong_usd) == (0, 0.1)


CALLS = st.builds(
    ServedCall,
    model=st.sampled_from(["strong", "weak", "other"]),
    chosen=st.sampled_from(["strong", "weak"]),
    strong=st.just("strong"),
    session=st.sampled_from([None, "a", "b", "c"]),
    input_tokens=st.integers(5000, 10**6),
    cached_tokens=st.integers(0, 5000),
    output_tokens=st.integers(0, 10**5),
    cost_usd=st.none() | st.floats(0, 1000),
    propensity=st.floats(0.001, 1.0),
    router_usd=st.none() | st.floats(0, 1),
    time=st.floats(-1e9, 1e10),
    further=st.booleans(),
)


@given(st.lists(CALLS, max_size=40), st.randoms(use_true_random=False))
def test_totals_add_up_are_finite_and_what_was_spent_does_not_depend_on_the_order(
    calls: list[ServedCall], random: Any
) -> None:
    found = report_of(*calls, max_sessions=2)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["requests"] == found.requests
    assert found.requests + found.further == len(calls) == sum(one.requests for one in found.by_model.values())
    assert sum(one.usd for one in found.by_model.values()) == pytest.approx(found.spent_usd)
    assert sum(one.input_tokens for one in found.by_model.values()) == sum(one.input_tokens for one in calls)
    assert found.saved_usd == pytest.approx(
        found.always_strong_usd - (found.spent_usd - found.uncompared_usd) - found.router_usd
    )
    assert found.always_strong_usd >= 0 and found.cache_penalty_usd >= 0
    shuffled = list(calls)
    random.shuffle(shuffled)
    again = report_of(*shuffled, max_sessions=2)
    assert again.spent_usd == found.spent_usd
    assert {name: one.usd for name, one in again.by_model.items()} == {
        name: one.usd for name, one in found.by_model.items()
    }


def test_a_share_of_next_to_nothing_is_no_number() -> None:
    call = {"model": "strong", "chosen": "strong", "strong": "strong", "input_tokens": 0, "output_tokens": 0}
    found = report_of(ServedCall(**call, cost_usd=5e-324, time=0.0, router_usd=1.0))
    assert found.saved_share is None
    assert json.dumps(found.as_dict(), allow_nan=False)


@given(st.lists(CALLS, max_size=30))
def test_a_call_survives_json(calls: list[ServedCall]) -> None:
    for one in calls:
        assert ServedCall.from_dict(json.loads(json.dumps(one.as_dict()))) == one


def test_threads_share_one_and_sessions_and_names_are_bounded() -> None:
    savings = Savings(POOL, max_sessions=50)

    def work(worker: int) -> None:
        for number in range(500):
            savings.add(call("weak", session=f"{worker}-{number}", cost_usd=0.01))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(1000):
        savings.add(call(f"model-{number}"))
    found = savings.report()
    assert found.spent_usd == 20.0
    assert len(found.by_model) <= 201
    assert found.by_model["other"].requests == 1000 - 199
    assert len(savings._sessions) == 50


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": ""}, "model is ''; expected the name of a model"),
        ({"input_tokens": -1}, "input_tokens is -1; expected a whole number of 0 or more"),
        ({"cached_tokens": 2000}, "cached_tokens is 2000; expected at most input_tokens, which is 1000"),
        ({"cost_usd": math.inf}, "cost_usd is inf; expected USD, 0 or more, or None"),
        ({"cost_usd": -0.1}, "cost_usd is -0.1; expected USD, 0 or more, or None"),
        ({"time": math.nan}, "time is nan; expected a time in seconds"),
        ({"propensity": 0}, "propensity is 0; expected a probability above 0, and at most 1"),
    ],
)
def test_a_broken_call_is_refused_by_its_field(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(call(), **wrong)
    with pytest.raises(InputError, match="is no call"):
        ServedCall.from_dict({"model": "weak"})


def test_the_metrics_are_those_of_the_report() -> None:
    registry, savings = CollectorRegistry(), Savings(POOL, router_usd=0.0001)
    register(savings, registry)
    savings.add(call(session="s", tokens=2000))
    savings.add(call("strong", 2000, session="s"))
    found = savings.report()
    for name, value in (
        ("spent_usd_total", found.spent_usd),
        ("always_strong_usd_total", found.modelled_usd),
        ("cache_penalty_usd_total", found.cache_penalty_usd),
        ("router_usd_total", 0.0002),
        ("unpriced_calls_total", 0),
    ):
        assert registry.get_sample_value(f"routelearn_{name}") == pytest.approx(value)
    assert registry.get_sample_value("routelearn_saved_usd", {"bound": "estimate"}) == found.saved_usd
    assert registry.get_sample_value("routelearn_saved_usd", {"bound": "low"}) is None
