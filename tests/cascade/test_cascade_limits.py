"""The cascade: deadlines and budgets."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from helpers.cascades import SLOW, OnceQuick, Scores, Scripted, Sure, tier, two

from routelearn.cascade.accounts import Budget
from routelearn.cascade.cascade import Cascade
from routelearn.cascade.confidence import SelfConsistency
from routelearn.cascade.tiers import CascadeError, CascadeResult
from routelearn.routers.errors import InputError

# Deadlines


def test_at_the_deadline_the_weak_answer_is_given_marked() -> None:
    strong = Scripted(delay_s=SLOW)
    started = time.monotonic()
    result = two(Scripted("from weak"), strong, 0.1, deadline_s=0.2).run("hi")
    assert 0.2 <= time.monotonic() - started < 5
    assert (result.answer, result.degraded, result.escalated) == ("from weak", "deadline", True)
    assert (len(strong.asked), result.calls[1].error is None) == (1, False)


def test_an_escalation_that_cannot_finish_in_time_is_not_started() -> None:
    strong = Scripted()
    cascade = two(Scripted("from weak"), strong, 0.1, strong_settings={"expected_s": 10})
    result = cascade.run("hi", deadline_s=5)
    assert (result.answer, result.degraded, result.escalated) == ("from weak", "deadline", False)
    assert not strong.asked
    assert "no time is left for strong" in result.reason
    assert cascade.run("hi", deadline_s=15).model == "strong"


def test_a_verification_that_outlasts_the_deadline_gives_the_weak_answer() -> None:
    strong, sure = Scripted(), Sure(0.9, delay_s=SLOW)
    result = two(Scripted("from weak"), strong, sure, deadline_s=0.1).run("hi")
    assert (result.answer, result.confidence, result.degraded) == ("from weak", None, "deadline")
    assert not strong.asked
    assert sure.cancelled.wait(5)


def test_samples_that_outlast_the_deadline_are_cut_off_and_accounted_for() -> None:
    budget = Budget(1.0)
    weak = OnceQuick("42")

    async def ask() -> CascadeResult:
        result = await two(weak, Scripted(), SelfConsistency(5), deadline_s=0.1, budget=budget).arun("hi")
        await asyncio.sleep(0.01)
        return result

    result = asyncio.run(ask())
    assert weak.cancelled == 2
    assert (result.answer, result.degraded) == ("42", "deadline")
    assert len(result.calls) == len(weak.asked) == 3
    assert result.cost_usd is not None
    assert budget.reserved_usd == 0
    assert budget.spent_usd == pytest.approx(result.cost_usd + 2 * 500 * 2 / 1e6)  # the reserve of the two samples


def test_a_deadline_with_no_answer_at_all_is_an_error() -> None:
    strong = Scripted()
    with pytest.raises(CascadeError, match="deadline has passed"):
        two(Scripted(delay_s=SLOW), strong, deadline_s=0.05).run("hi")
    assert not strong.asked


# Budgets


def test_a_request_over_its_own_cap_keeps_the_weak_answer() -> None:
    strong = Scripted()
    result = two(Scripted("from weak"), strong, 0.1, max_cost_usd=0.01).run("hi")  # strong is expected at 0.015
    assert (result.answer, result.degraded, result.escalated) == ("from weak", "budget", False)
    assert not strong.asked
    assert two(Scripted("from weak"), strong, 0.1, max_cost_usd=0.02).run("hi").model == "strong"


def test_a_query_sent_straight_to_a_strong_that_does_not_fit_is_answered_by_the_cheapest() -> None:
    middle, strong = Scripted("from middle"), Scripted()
    tiers = [tier("weak", Scripted("from weak"), Sure(0.9)), tier("middle", middle, Sure(0.9)), tier("strong", strong)]
    # The shared budget refuses strong; what the request's own had set aside for it is free again.
    cascade = Cascade(tiers, max_cost_usd=0.0155, budget=Budget(0.01), router=Scores(), direct_threshold=0.9)
    result = cascade.run("0.95")
    assert (result.answer, result.degraded, result.escalated) == ("from weak", "budget", False)
    assert not middle.asked
    assert not strong.asked


def test_a_budget_that_nothing_fits_into_is_an_error_and_nothing_is_asked() -> None:
    weak, strong = Scripted(), Scripted()
    with pytest.raises(CascadeError, match="no tier fits into the budget"):
        two(weak, strong, budget=Budget(0)).run("hi")
    assert not weak.asked
    assert not strong.asked


def test_a_shared_budget_is_not_overrun_by_requests_at_the_same_time() -> None:
    expected = tier("strong", Scripted()).expected_cost("hi")
    assert expected is not None
    budget = Budget(3.5 * expected)
    exact = Scripted(delay_s=0.02, tokens=(1, 500))  # as expected
    cascade = two(Scripted(tokens=(0, 0)), exact, 0.1, budget=budget, weak_settings={"expected_output_tokens": 0})

    async def many() -> list[CascadeResult]:
        return await asyncio.gather(*(cascade.arun("hi") for _ in range(40)))

    results = asyncio.run(many())
    assert sum(result.model == "strong" for result in results) == len(exact.asked) == 3
    assert sum(result.degraded == "budget" for result in results) == 37
    assert budget.spent_usd == pytest.approx(3 * expected)
    assert budget.reserved_usd == 0


def test_a_rolling_window_forgets_what_is_old() -> None:
    now = [0.0]
    budget = Budget(1.0, window_s=60, clock=lambda: now[0])
    ticket = budget.reserve(0.9)
    assert ticket is not None
    assert budget.reserve(0.2) is None
    budget.settle(ticket, 0.5)
    assert (budget.spent_usd, budget.reserved_usd) == (0.5, 0)
    now[0] = 59.9
    assert budget.reserve(0.6) is None
    now[0] = 60.0
    assert budget.reserve(1.0) is not None
    assert budget.spent_usd == 0
    with pytest.raises(InputError, match="settled once"):
        budget.settle(ticket, 0.5)


def test_threads_share_a_budget() -> None:
    budget = Budget(50)
    fitted: list[int] = []

    def work() -> None:
        for _ in range(50):
            ticket = budget.reserve(1.0)
            if ticket is not None:
                fitted.append(ticket)
                budget.settle(ticket, 1.0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fitted) == len(set(fitted)) == budget.spent_usd == 50
