"""Sessions keep their models: hysteresis around a threshold, with other policies, with rules, in an outage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from helpers.availability import Clock, by_policy, by_threshold, opened
from hypothesis import given
from hypothesis import strategies as st

from routelearn.policies.conversation import DIVERTED, KEPT, Conversations
from routelearn.routers.decision import Decision, Source

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=60)
MARGINS = st.floats(0.01, 0.5)


def path(conversations: Conversations, scores: Sequence[float], session: str = "s") -> list[str]:
    return [conversations.decide(session, by_threshold(score)).model for score in scores]


def switches(models: Sequence[str]) -> int:
    return sum(before != after for before, after in pairwise(models))


# Hysteresis.


@given(SCORES, MARGINS)
def test_a_session_switches_exactly_where_the_score_passes_the_threshold_by_the_margin(
    scores: list[float], margin: float
) -> None:
    expected = "strong" if scores[0] >= 0.5 else "weak"
    for score, model in zip(scores, path(Conversations(margin), scores), strict=True):
        if score - 0.5 >= margin:
            expected = "strong"
        elif score - 0.5 < -margin:
            expected = "weak"
        assert model == expected


@given(st.floats(0, 1), MARGINS, st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_a_path_within_a_band_of_one_margin_never_switches_and_of_two_at_most_once(
    lowest: float, margin: float, places: list[float]
) -> None:
    for width, most in ((0.999, 0), (1.999, 1)):
        models = path(Conversations(margin), [lowest + width * margin * place for place in places])
        assert switches(models) <= most


def test_the_general_router_in_a_routers_place_moves_a_session_by_its_own_score_and_threshold() -> None:
    def stood_in(score: float) -> Decision:
        model = "strong" if score >= 0.7 else "weak"
        return replace(
            by_threshold(score),
            model=model,
            threshold=0.7,
            source="general",
            cause="novel",
            candidates=("strong", "weak"),
        )

    conversations = Conversations(0.1)
    conversations.decide("s", by_threshold(0.9))
    assert conversations.decide("s", stood_in(0.65)).cause == KEPT
    assert conversations.decide("s", stood_in(0.55)).model == "weak"
    assert conversations.decide("s", stood_in(0.75)).cause == KEPT


@given(SCORES)
def test_with_margin_0_every_decision_is_taken_as_it_is(scores: list[float]) -> None:
    conversations = Conversations(0.0)
    for score in scores:
        decision = by_threshold(score)
        assert conversations.decide("s", decision).model == decision.model


@given(SCORES, MARGINS)
def test_a_caller_without_a_session_gets_the_decision_itself(scores: list[float], margin: float) -> None:
    conversations = Conversations(margin)
    for score in scores:
        decision = by_threshold(score)
        assert conversations.decide(None, decision) is decision
        assert conversations.decide("", decision) is decision
    assert conversations.as_dict()["sessions"] == 0


@given(st.lists(st.tuples(st.sampled_from(["s", "t", "u"]), st.floats(0, 1)), max_size=60), MARGINS)
def test_sessions_do_not_know_of_each_other(requests: list[tuple[str, float]], margin: float) -> None:
    together = Conversations(margin)
    found = [(session, together.decide(session, by_threshold(score)).model) for session, score in requests]
    for name in ("s", "t", "u"):
        alone = path(Conversations(margin), [score for session, score in requests if session == name])
        assert [model for session, model in found if session == name] == alone


def test_a_kept_decision_says_so_and_has_the_kept_model_first() -> None:
    conversations = Conversations(0.1)
    conversations.decide("s", by_threshold(0.41))
    decision = by_threshold(0.52)
    kept = conversations.decide("s", decision)
    assert kept == replace(
        decision,
        model="weak",
        candidates=("weak", "strong"),
        cause=KEPT,
        reason="kept weak, chosen at 0.4100: score 0.5200 is within 0.1 of threshold 0.5000",
    )
    switched = conversations.decide("s", by_threshold(0.61))
    assert (switched.model, switched.cause) == ("strong", "threshold")
    assert switched.reason == "by the threshold; the session leaves weak, chosen at 0.4100"
    assert conversations.decide("s", by_threshold(0.45)).reason.startswith("kept strong, chosen at 0.6100")
    assert conversations.as_dict() == {
        "sessions": 1,
        "begun": 1,
        "same": 0,
        "kept": 2,
        "switched": 1,
        "escalated": 0,
        "diverted": 0,
        "evicted": 0,
        "expired": 0,
    }


def test_the_margin_of_one_request_stands_in_for_the_general_one() -> None:
    conversations = Conversations(0.0)
    conversations.decide("s", by_threshold(0.4))
    assert conversations.decide("s", by_threshold(0.6), margin=0.3).model == "weak"
    assert conversations.decide("s", by_threshold(0.6), margin=0.05).model == "strong"
    assert conversations.decide("s", by_threshold(0.49)).model == "weak"


# Policies that choose among all models.


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=40), MARGINS)
def test_with_utilities_a_model_is_left_for_one_that_is_ahead_by_two_margins(
    rows: list[tuple[float, float, float]], margin: float
) -> None:
    conversations, kept = Conversations(margin), None
    for row in rows:
        utility = dict(zip("abc", row, strict=True))
        best = max(utility, key=lambda name: utility[name])
        found = conversations.decide("s", by_policy(best), utility=utility).model
        if kept is None or (utility[best] - utility[kept]) / 2 > margin:
            kept = best
        assert found == kept


def test_without_utilities_a_model_is_left_when_the_score_has_moved() -> None:
    conversations = Conversations(0.1)
    conversations.decide("s", by_policy("a", 0.3))
    assert conversations.decide("s", by_policy("b", 0.39)).model == "a"
    assert conversations.decide("s", by_policy("b", 0.22)).model == "a"
    assert conversations.decide("s", by_policy("b", 0.41)).model == "b"
    assert conversations.decide("s", by_policy("a", 0.33)).model == "b"


def test_a_model_that_is_no_longer_a_candidate_is_left() -> None:
    conversations = Conversations(0.5)
    conversations.decide("s", by_policy("gone"))
    assert conversations.decide("s", by_policy("a")).model == "a"


def test_an_ensemble_is_left_alone() -> None:
    conversations = Conversations(0.5)
    conversations.decide("s", by_policy("a"))
    decision = replace(by_policy("b"), targets=("b", "c"))
    assert conversations.decide("s", decision) is decision
    assert conversations.decide("s", by_policy("b")).model == "a"


# Rules in the place of the learned router.


@pytest.mark.parametrize("source", ["rules", "default"])
def test_a_fallback_moves_a_session_to_strong_at_once(source: Source) -> None:
    conversations = Conversations(0.4)
    conversations.decide("s", by_threshold(0.45))
    assert conversations.decide("s", by_threshold(0.55, source=source)).model == "strong"
    assert conversations.decide("s", by_threshold(0.45)).model == "strong"


def test_a_fallback_never_moves_a_session_to_weak() -> None:
    conversations = Conversations(0.1)
    conversations.decide("s", by_threshold(0.6))
    kept = conversations.decide("s", by_threshold(0.0, source="rules"))
    assert (kept.model, kept.cause) == ("strong", KEPT)
    assert kept.reason.endswith(
        "rules chose weak, and rules may only move this session to strong, because the router began it"
    )


def test_where_rules_are_the_router_a_session_moves_in_both_directions() -> None:
    conversations = Conversations(0.1)

    def ask(score: float, source: Source = "rules") -> str:
        return conversations.decide("s", by_threshold(score, source=source)).model

    assert [ask(score) for score in (0.2, 0.5, 0.41, 0.39, 0.49)] == ["weak", "strong", "strong", "weak", "weak"]
    assert ask(0.5, "default") == "strong"
    assert [ask(0.41), ask(0.39)] == ["strong", "weak"]


# Outages.


def test_while_its_model_is_down_a_session_is_diverted_and_returns() -> None:
    conversations, down = Conversations(0.1), {"strong"}

    def up(model: str) -> bool:
        return model not in down

    conversations.decide("s", by_threshold(0.7))
    diverted = conversations.decide("s", by_threshold(0.7), available=up)
    assert (diverted.model, diverted.candidates, diverted.cause) == ("weak", ("weak", "strong"), DIVERTED)
    assert diverted.reason == "strong, the session's model, is down"
    assert conversations.decide("s", by_threshold(0.45), available=up).model == "weak"
    down.clear()
    assert conversations.decide("s", by_threshold(0.45), available=up).model == "strong"
    down.update({"strong", "weak"})
    assert conversations.decide("s", by_threshold(0.45), available=up).cause == KEPT
    assert conversations.as_dict()["diverted"] == 2


def test_a_new_session_does_not_begin_with_a_model_that_is_down() -> None:
    conversations = Conversations(0.1)
    assert conversations.decide("s", by_threshold(0.7), available=lambda model: model == "weak").model == "weak"
    assert conversations.decide("s", by_threshold(0.55)).model == "strong"


def test_with_breakers_a_session_leaves_a_model_that_is_down_and_its_return_is_the_probe() -> None:
    clock, conversations = Clock(), Conversations(0.1)
    conversations.decide("s", by_threshold(0.7))
    availability = opened(clock, model="strong")

    def ask() -> tuple[str, bool]:
        decision = conversations.decide("s", by_threshold(0.45), available=availability.is_available)
        choice = availability.choose(decision)
        availability.record(choice, ok=True)
        return choice.model, choice.probe

    assert ask() == ("weak", False)
    clock.now += 30
    assert ask() == ("strong", True)
    assert ask() == ("strong", False)
