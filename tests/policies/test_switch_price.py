"""What a switch costs and gains, and sessions that follow it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.availability import Clock, by_threshold
from hypothesis import given
from hypothesis import strategies as st

from routelearn.policies.conversation import DIVERTED, ESCALATED, KEPT, Conversations
from routelearn.policies.session_lengths import SessionLengths
from routelearn.policies.session_state import SessionState
from routelearn.policies.switch_price import SwitchPrices, request_cost
from routelearn.routers.decision import Decision, Model
from routelearn.routers.errors import InputError

STRONG = Model("strong", 3.0, 15.0, cached_input_price=0.3)
WEAK = Model("weak", 0.3, 1.5, cached_input_price=0.03)
PRICES = SwitchPrices(models=[STRONG, WEAK])
TRIED = (0.55, 0.58, 0.62, 0.65, 0.7)


def decision(score: float, threshold: float = 0.6) -> Decision:
    model = "strong" if score >= threshold else "weak"
    others = ("strong", "weak") if model == "strong" else ("weak", "strong")
    return replace(by_threshold(score), model=model, candidates=others, threshold=threshold)


def sessions(**options: object) -> Conversations:
    clock = options.pop("clock", Clock())
    return Conversations(prices=options.pop("prices", PRICES), clock=clock, **options)  # type: ignore[arg-type]


def test_a_request_with_a_warm_cache_costs_the_cached_price_for_what_is_cached() -> None:
    assert request_cost(STRONG, 10_000, 8_000, 100) == pytest.approx((2_000 * 3 + 8_000 * 0.3 + 100 * 15) / 1e6)
    assert request_cost(replace(STRONG, cached_input_price=None), 10_000, 8_000, 0) == pytest.approx(0.03)
    assert request_cost(Model("unknown"), 10, 0, 0) is None


def test_a_long_session_stays_with_weak_for_a_score_that_would_move_a_short_one() -> None:
    def after(tokens: int, score: float) -> str:
        conversations = sessions()
        conversations.decide("s", decision(0.5), tokens=tokens)
        return conversations.decide("s", decision(score), tokens=tokens + 200).model

    assert after(500, 0.601) == "strong"  # nothing is cached of so short a text, so the switch has no price
    assert after(100_000, 0.601) == "weak"
    assert after(100_000, 1.0) == "strong"


def test_a_kept_decision_names_the_gain_and_the_price() -> None:
    conversations = sessions()
    conversations.decide("s", decision(0.5), tokens=50_000)
    kept = conversations.decide("s", decision(0.601), tokens=50_500)
    assert (kept.model, kept.cause, kept.candidates) == ("weak", KEPT, ("weak", "strong"))
    assert "strong gains" in kept.reason
    assert "the switch costs 0.13 USD" in kept.reason  # 49,920 tokens at 2.7 USD a million


def test_once_both_models_have_read_the_conversation_the_threshold_decides() -> None:
    conversations = sessions()
    conversations.decide("s", decision(0.5), tokens=50_000)
    assert conversations.decide("s", decision(0.95), tokens=50_100).model == "strong"
    for number, score in enumerate((0.3, 0.9, 0.4, 0.8)):
        asked = decision(score)
        assert conversations.decide("s", asked, tokens=50_200 + 100 * number).model == asked.model


def test_when_the_caches_are_empty_after_a_pause_the_threshold_decides() -> None:
    clock = Clock()
    conversations = sessions(clock=clock)
    conversations.decide("s", decision(0.5), tokens=50_000)
    assert conversations.decide("s", decision(0.62), tokens=50_100).model == "weak"
    clock.now += 301
    # Both would have to read everything, at prices that differ tenfold: the price is the dearer reading alone.
    after = conversations.decide("s", decision(0.95), tokens=50_200)
    assert after.model == "strong"


def test_more_expected_requests_make_a_switch_worth_more() -> None:
    state = SessionState("weak", 0.5, "learned", seen=0.0, requests=1, context=20_000, read={"weak": (20_000, 0.0)})
    gains = [
        switch.gain
        for left in (1, 5, 20)
        if (
            switch := PRICES.switch(
                state, "strong", tokens=20_100, score=0.7, threshold=0.6, requests_left=left, now=0.0
            )
        )
    ]
    assert len(gains) == 3
    assert gains == sorted(gains)
    assert gains[0] < gains[-1]


@given(
    st.floats(0.51, 0.95),
    st.floats(0, 1),
    st.integers(0, 200_000),
    st.integers(0, 2_000),
    st.floats(1, 50),
    st.sampled_from(["strong", "weak"]),
)
def test_with_warm_caches_a_switch_is_worth_it_exactly_where_the_threshold_says_so(
    threshold: float, score: float, tokens: int, more: int, left: float, kept: str
) -> None:
    read = {"strong": (tokens, 0.0), "weak": (tokens, 0.0)}
    other = "weak" if kept == "strong" else "strong"
    state = SessionState(kept, 0.5, "learned", seen=0.0, requests=3, context=tokens, read=read)
    switch = PRICES.switch(
        state, other, tokens=tokens + more, score=score, threshold=threshold, requests_left=left, now=1.0
    )
    assert switch is not None
    assert switch.price == 0
    if score != threshold:
        assert (switch.gain > 0) == ((score > threshold) == (other == "strong"))


def test_with_a_given_value_of_an_answer_a_dear_context_needs_a_higher_score() -> None:
    prices = SwitchPrices(models=[STRONG, WEAK], value_usd=0.1)
    read = {"strong": (200_000, 0.0), "weak": (200_000, 0.0)}
    long = SessionState("weak", 0.5, "learned", seen=0.0, requests=3, context=200_000, read=read)
    short = replace(long, context=2_000, read={"strong": (2_000, 0.0), "weak": (2_000, 0.0)})

    def gain(state: SessionState, tokens: int) -> float:
        found = prices.switch(state, "strong", tokens=tokens, score=0.7, threshold=0.6, requests_left=1, now=0.0)
        assert found is not None
        return found.gain

    assert gain(short, 2_100) > 0 > gain(long, 200_100)


def test_a_session_between_models_without_prices_follows_the_margin() -> None:
    conversations = sessions(prices=SwitchPrices(models=[Model("strong"), WEAK]), margin=0.1)
    conversations.decide("s", decision(0.55), tokens=5_000)
    assert conversations.decide("s", decision(0.65), tokens=5_100).cause == KEPT
    assert conversations.decide("s", decision(0.75), tokens=5_200).model == "strong"


def test_a_tool_step_never_changes_the_model_of_a_session() -> None:
    conversations = sessions()
    conversations.decide("s", decision(0.7), tokens=100)
    for score in (0.0, 0.3, 1.0, 0.1):
        assert conversations.decide("s", decision(score), tokens=100, step=True).model == "strong"
    assert conversations.decide("s", decision(0.1), tokens=100).model == "weak"


def test_an_escalated_session_stays_with_its_model_to_the_end() -> None:
    conversations = sessions()
    conversations.decide("s", decision(0.1), tokens=100)
    moved = conversations.decide(
        "s", decision(0.1), tokens=200, step=True, escalate_to="strong", why="a tool call was repeated 3 times"
    )
    assert (moved.model, moved.cause, moved.reason) == ("strong", ESCALATED, "a tool call was repeated 3 times")
    later = conversations.decide("s", decision(0.0), tokens=300)
    assert (later.model, later.cause) == ("strong", ESCALATED)
    again = conversations.decide("s", decision(0.0), tokens=300, escalate_to="strong", why="again")
    assert again.model == "strong"
    assert conversations.as_dict()["escalated"] == 1


def test_after_an_outage_sessions_return_when_that_is_worth_its_price_and_not_all_at_once() -> None:
    conversations = sessions(max_sessions=1000)
    names = [f"session {number}" for number in range(200)]
    sizes = [2_000 + 1_000 * number for number in range(200)]
    for name, size in zip(names, sizes, strict=True):
        conversations.decide(name, decision(0.65), tokens=size)
    down = [
        conversations.decide(name, decision(0.65), tokens=size + 100, available=lambda model: model != "strong")
        for name, size in zip(names, sizes, strict=True)
    ]
    assert {one.cause for one in down} == {DIVERTED}
    assert {one.model for one in down} == {"weak"}
    back = [
        conversations.decide(name, decision(TRIED[number % 5]), tokens=size + 200).model
        for number, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    # Strong has read all but the last request, so its cache is warm: those return whose score asks for it.
    assert back == ["strong" if TRIED[number % 5] >= 0.62 else "weak" for number in range(200)]


def test_a_conversation_that_was_shortened_is_in_no_cache_so_a_switch_has_no_price() -> None:
    conversations = sessions()
    conversations.decide("s", decision(0.1), tokens=90_000)
    assert conversations.decide("s", decision(0.61), tokens=90_100).model == "weak"
    assert conversations.decide("s", decision(0.61), tokens=20_000).model == "strong"


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_expected_requests_are_at_least_one_and_bounded(reached: list[int]) -> None:
    lengths = SessionLengths(expected=4, longest=30)
    for request in reached:
        lengths.reached(request)
    assert all(1 <= lengths.left(request) <= 30 for request in range(1, 40))


def test_lengths_are_learned_from_the_sessions_that_came() -> None:
    lengths = SessionLengths(expected=3)
    for _ in range(640):
        for request in range(1, 11):  # every session has ten requests
            lengths.reached(request)
    assert lengths.left(1) == pytest.approx(10, rel=0.05)
    assert lengths.left(10) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    "settings",
    [{"cache_ttl_s": -1}, {"output_tokens": -1}, {"value_usd": float("nan")}, {"models": [Model("a", -1.0, 1.0)]}],
)
def test_prices_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InputError):
        SwitchPrices(**{"models": [STRONG], **settings})  # type: ignore[arg-type]


def test_lengths_that_do_not_learn_stay_as_they_are() -> None:
    lengths = SessionLengths(expected=7, learns=False)
    for _ in range(200):
        lengths.reached(1)
    assert {lengths.left(request) for request in (1, 5, 400, 1000)} == {7.0}


def test_expected_lengths_out_of_range_are_refused() -> None:
    with pytest.raises(InputError):
        SessionLengths(expected=0.5)


def test_a_state_survives_json_and_a_broken_text_is_no_state() -> None:
    state = SessionState("strong", 0.7, "general", 12.5, 3, 2, 1.25, 4000, {"strong": (4000, 12.5)}, "a loop")
    assert SessionState.from_json(state.as_json()) == state
    for text in ("", "{}", "[]", b"\xff", '{"model": 3, "read": {}}', "null"):
        assert SessionState.from_json(text) is None


#: Strong's cache makes it cheaper than weak in a long conversation.
CHEAP_WHEN_WARM = [Model("strong", 1.0, 8.0, cached_input_price=0.05), Model("weak", 0.3, 0.6)]


@pytest.mark.parametrize("value_usd", [None, 0.001])
def test_a_better_model_that_is_cheaper_with_its_warm_cache_is_gone_to_and_stayed_with(value_usd: float | None) -> None:
    prices = SwitchPrices(models=CHEAP_WHEN_WARM, value_usd=value_usd)
    both = {"weak": (100_000, 0.0), "strong": (100_000, 0.0)}

    def switch(kept: str, to: str, score: float) -> float:
        session = SessionState(kept, score, "learned", 0.0, 3, 3, 3 * score, context=100_000, read=both)
        found = prices.switch(session, to, tokens=101_000, score=score, threshold=0.6, requests_left=10, now=1.0)
        assert found is not None
        return found.gain - found.price

    assert switch("weak", "strong", 0.9) > 0
    assert switch("weak", "strong", 0.55) > 0
    assert switch("strong", "weak", 0.2) < 0
    assert switch("strong", "weak", 0.9) < 0
