"""Sessions: what it costs to switch, how many are kept and for how long, threads, propensities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from helpers.availability import Clock, by_policy, by_threshold, run_threads
from hypothesis import given
from hypothesis import strategies as st

from routelearn.policies.composed import Explore
from routelearn.policies.conversation import KEPT, Conversations
from routelearn.policies.session_state import MemorySessions
from routelearn.policies.switch_price import margin_of_cost, switch_cost
from routelearn.routers.base import Router
from routelearn.routers.decision import Floats, Model
from routelearn.routers.errors import InputError
from routelearn.routers.query import Query

# The cost of switching.


def test_a_switch_costs_reading_the_history_at_full_price() -> None:
    assert switch_cost(100_000, Model("m", 3.0, 15.0), 0.1) == pytest.approx(0.27)
    assert switch_cost(100_000, Model("m", 3.0, 15.0), 1.0) == 0
    assert switch_cost(100_000, Model("m"), 0.1) is None
    assert switch_cost(100_000, Model("m", 3.0, 15.0, cached_input_price=0.3)) == pytest.approx(0.27)
    assert switch_cost(100_000, Model("m", 3.0, 15.0)) == 0
    assert switch_cost(100_000, Model("m", 0.0, 0.0, cached_input_price=0.0)) == 0
    for history, share in ((-1, 0.1), (1, -0.1), (1, 1.1), (1, float("nan"))):
        with pytest.raises(InputError, match="cached_price_share"):
            switch_cost(history, Model("m", 1.0), share)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5), st.floats(0.01, 10))
def test_at_the_margin_of_a_cost_a_session_switches_exactly_when_the_gain_is_worth_it(
    kept: float, new: float, usd: float, value: float
) -> None:
    conversations = Conversations()
    conversations.decide("s", by_policy("a"))
    margin = margin_of_cost(usd, value)
    found = conversations.decide("s", by_policy("b"), margin=margin, utility={"a": kept, "b": new})
    gain = (new - kept) * value - usd
    if abs(gain) > 1e-9 and margin > 0:
        assert found.model == ("b" if gain > 0 else "a")


@pytest.mark.parametrize("numbers", [(-1.0, 1.0), (float("nan"), 1.0), (1.0, 0.0), (float("inf"), 1.0)])
def test_a_cost_or_value_out_of_its_range_is_an_input_error(numbers: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="value_per_quality_usd"):
        margin_of_cost(*numbers)


# Bounds.


def test_beyond_the_bound_the_session_not_heard_of_for_longest_is_forgotten() -> None:
    conversations = Conversations(0.1, max_sessions=2)
    for session in ("s", "t", "s", "u"):  # t goes
        conversations.decide(session, by_threshold(0.6))
    assert conversations.decide("s", by_threshold(0.45)).cause == KEPT
    assert conversations.decide("u", by_threshold(0.45)).cause == KEPT
    assert conversations.decide("t", by_threshold(0.45)).model == "weak"
    told = conversations.as_dict()
    assert (told["sessions"], told["evicted"], told["begun"]) == (2, 2, 4)


def test_a_session_that_is_silent_for_too_long_is_forgotten() -> None:
    clock = Clock()
    conversations = Conversations(0.1, ttl_s=60, clock=clock)
    conversations.decide("s", by_threshold(0.6))
    conversations.decide("t", by_threshold(0.6))
    for _ in range(3):
        clock.now += 59
        assert conversations.decide("s", by_threshold(0.45)).model == "strong"
    assert conversations.as_dict()["expired"] == 1
    clock.now += 61
    assert conversations.decide("s", by_threshold(0.45)).model == "weak"
    assert conversations.as_dict()["sessions"] == 1


def test_without_a_time_to_live_no_silence_is_too_long() -> None:
    clock = Clock()
    conversations = Conversations(0.1, ttl_s=None, clock=clock)
    conversations.decide("s", by_threshold(0.6))
    clock.now += 1e9
    assert conversations.decide("s", by_threshold(0.45)).model == "strong"


def test_session_ids_are_not_kept_and_may_be_any_text() -> None:
    store = MemorySessions()
    conversations = Conversations(0.1, clock=lambda: 5.0, store=store)
    ids = ["user-4711@example.org", "\ud800 lone surrogate", "x" * 100_000, "\0"]
    for session in ids:
        conversations.decide(session, by_threshold(0.6))
        assert conversations.decide(session, by_threshold(0.45)).cause == KEPT
    assert {len(key) for key in store._sessions} == {32}
    others = MemorySessions()
    Conversations(0.1, store=others).decide(ids[0], by_threshold(0.6))
    assert not set(others._sessions) & set(store._sessions)  # another key: no ids found by trying them
    assert not any("user-4711" in repr(entry) for entry in store._sessions.items())


@pytest.mark.parametrize(
    "arguments",
    [{"margin": -0.1}, {"margin": 1.1}, {"margin": float("nan")}, {"max_sessions": 0}, {"ttl_s": 0.0}],
)
def test_a_setting_out_of_its_range_is_an_input_error(arguments: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        Conversations(**arguments)  # type: ignore[arg-type]
    if "margin" in arguments:
        with pytest.raises(InputError, match="margin"):
            Conversations().decide("s", by_threshold(0.5), margin=arguments["margin"])


def test_threads_lose_no_count_and_no_session_leaves_the_band_without_cause() -> None:
    conversations = Conversations(0.1, max_sessions=40)
    seen: list[tuple[int, str]] = []

    def work(number: int) -> None:
        generator = np.random.default_rng(number)
        for i in range(600):
            session = i % 40
            score = 0.7 if i < 40 else float(generator.uniform(0.41, 0.59))
            seen.append((session, conversations.decide(f"s{session}", by_threshold(score)).model))

    run_threads(8, work)
    told = conversations.as_dict()
    assert {model for _, model in seen} == {"strong"}
    assert (told["sessions"], told["begun"], told["switched"], told["evicted"]) == (40, 40, 0, 0)
    assert told["same"] + told["kept"] + told["begun"] == 4800


def test_under_threads_the_bound_holds() -> None:
    conversations = Conversations(0.1, max_sessions=10)
    run_threads(8, lambda number: [conversations.decide(f"{number} {i % 30}", by_threshold(0.6)) for i in range(300)])
    told = conversations.as_dict()
    assert told["sessions"] == 10
    assert told["begun"] - told["evicted"] == 10


# Propensities.


class Fixed(Router):
    """A router whose queries are their scores."""

    def quality(self, queries: Sequence[Query]) -> Floats:
        scores = np.array([float(str(query)) for query in queries], np.float32)
        return np.stack([scores, 1 - scores], axis=1)


def test_propensities_are_the_frequencies_with_which_a_session_gets_each_model() -> None:
    router = Fixed([Model("strong"), Model("weak")], "strong", "weak")
    policy = Explore(epsilon=0.4, seed=0)
    for first, second in ((0.3, 0.52), (0.3, 0.9), (0.9, 0.45), (0.45, 0.1)):
        counts: Counter[str] = Counter()
        told: dict[str, float] = {}
        for _ in range(1500):
            conversations = Conversations(0.1)
            conversations.decide("s", router.route(str(first)))
            found = conversations.decide("s", router.route(str(second), policy))
            counts[found.model] += 1
            assert told.setdefault(found.model, found.propensity) == found.propensity
        assert sum(told.values()) == pytest.approx(1)
        for model, propensity in told.items():
            assert counts[model] / 1500 == pytest.approx(propensity, abs=0.05)
