"""Sessions whose model is down or cannot answer: escalated ones, explored ones, and after a change of the pool."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from helpers.availability import by_threshold
from hypothesis import given, settings
from hypothesis import strategies as st

from routelearn.policies.conversation import DIVERTED, ESCALATED, Conversations
from routelearn.policies.switch_price import SwitchPrices
from routelearn.routers.decision import Decision, Model

POOL = [Model("strong", 3.0, 15.0, cached_input_price=0.3), Model("weak", 0.3, 1.5, cached_input_price=0.03)]
ONLY_WEAK = replace(by_threshold(0.4), candidates=("weak",))


@pytest.fixture(params=["prices", "margin"])
def sessions(request: pytest.FixtureRequest) -> Conversations:
    return Conversations(prices=SwitchPrices(models=POOL)) if request.param == "prices" else Conversations(0.1)


def looping(sessions: Conversations, decision: Decision, strong: str = "strong", down: str = "") -> Decision:
    return sessions.decide(
        "s", decision, tokens=2000, escalate_to=strong, why="a loop", available=lambda name: name != down
    )


def test_a_session_that_was_escalated_while_strong_was_down_goes_to_strong_when_it_is_back(
    sessions: Conversations,
) -> None:
    sessions.decide("s", by_threshold(0.4), tokens=2000)
    assert looping(sessions, by_threshold(0.4), down="strong").model == "weak"
    later = [sessions.decide("s", by_threshold(score), tokens=2000).model for score in (0.4, 0.9, 0.1)]
    assert later == ["strong", "strong", "strong"]


def test_a_session_is_not_escalated_to_a_model_that_cannot_answer_the_request(sessions: Conversations) -> None:
    found = looping(sessions, ONLY_WEAK)
    assert (found.model, found.candidates, found.cause) == ("weak", ("weak",), "threshold")
    assert looping(sessions, by_threshold(0.4)).cause == ESCALATED


def test_an_escalated_session_keeps_its_model_over_a_request_that_the_model_cannot_answer(
    sessions: Conversations,
) -> None:
    looping(sessions, by_threshold(0.4))
    found = sessions.decide("s", ONLY_WEAK, tokens=2000)
    assert (found.model, found.candidates, found.cause) == ("weak", ("weak",), DIVERTED)
    assert "cannot answer" in found.reason
    assert sessions.decide("s", by_threshold(0.4), tokens=2000).model == "strong"


def test_an_escalated_session_follows_a_router_whose_models_have_other_names(sessions: Conversations) -> None:
    looping(sessions, by_threshold(0.4))
    renamed = replace(by_threshold(0.4), model="small", candidates=("small", "large"))
    assert sessions.decide("s", renamed, tokens=2000).candidates == ("small", "large")
    assert looping(sessions, renamed, strong="large").model == "large"
    assert sessions.decide("s", renamed, tokens=2000).model == "large"


@pytest.mark.parametrize("drawn", ["strong", "weak"])
def test_the_only_model_that_is_up_answers_with_probability_one(sessions: Conversations, drawn: str) -> None:
    other = "weak" if drawn == "strong" else "strong"
    explored = replace(by_threshold(0.4), model=drawn, candidates=(drawn, other), cause="explore", propensity=0.05)
    found = sessions.decide("s", explored, tokens=2000, available=lambda name: name == "strong")
    assert (found.model, found.propensity) == ("strong", 1.0)
    assert sessions.decide("t", explored, tokens=2000).propensity == 0.05


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), st.booleans())
def test_whatever_is_down_or_unable_a_candidate_that_is_up_answers(chance: Random, by_prices: bool) -> None:
    prices = SwitchPrices(models=[*POOL, Model("middle", 1.0, 5.0)])
    sessions = Conversations(prices=prices) if by_prices else Conversations(0.1)
    for _ in range(12):
        names = tuple(chance.sample(["strong", "weak", "middle"], chance.choice([1, 2, 3, 3])))
        decision = replace(by_threshold(chance.random()), model=names[0], candidates=names)
        down = chance.choice(["", "strong", "weak"])
        found = sessions.decide(
            "s",
            replace(decision, cause=chance.choice(["threshold", "explore", "skipped", "utility"])),
            tokens=chance.choice([0, 500, 60_000]),
            step=chance.random() < 0.3,
            available=lambda name, down=down: name != down,  # type: ignore[misc]
            escalate_to="strong" if chance.random() < 0.1 else None,
            why="a loop",
        )
        assert sorted(found.candidates) == sorted(names)
        assert found.candidates[0] == found.model
        assert found.model != down or names == (down,)
