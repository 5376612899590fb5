"""What calls cost that were sent and gave no answer, and token counts that cannot be: no budget is ever lifted."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from helpers.cascades import SLOW, OnceQuick, Scripted, two
from hypothesis import given
from hypothesis import strategies as st

from routelearn.cascade.accounts import Budget
from routelearn.cascade.backends import Answer
from routelearn.cascade.charges import refused_unread
from routelearn.cascade.confidence import SelfConsistency
from routelearn.cascade.tiers import CascadeError, Tier
from routelearn.routers.decision import Model
from routelearn.routers.errors import InputError
from routelearn.routers.query import Query

REQUEST = httpx.Request("POST", "https://models.invalid/v1/chat/completions")
QUERY = "q" * 400  # 100 tokens
WEAK_READ = 100 * 1 / 1e6
WEAK_RESERVE = WEAK_READ + 500 * 2 / 1e6


@pytest.mark.parametrize(
    "weak", [Scripted(delay_s=SLOW), Scripted(RuntimeError("connection reset")), Scripted(httpx.ReadTimeout("slow"))]
)
def test_a_call_that_was_sent_is_booked_and_the_budget_keeps_its_reserve(weak: Scripted) -> None:
    budget = Budget(1.0)
    result = two(weak, lambda query: "no", budget=budget, weak_settings={"timeout_s": 0.05}).run(QUERY)
    failed, answered = result.calls
    assert (failed.input_tokens, failed.output_tokens, failed.estimated) == (100, 0, True)
    assert failed.cost_usd == pytest.approx(WEAK_READ)
    assert answered.cost_usd is not None
    assert budget.spent_usd == pytest.approx(WEAK_RESERVE + answered.cost_usd)
    assert budget.reserved_usd == 0


def test_calls_that_time_out_use_a_budget_up() -> None:
    budget = Budget(3.5 * WEAK_RESERVE)
    weak = Scripted(delay_s=SLOW)
    cascade = two(weak, Scripted(delay_s=SLOW), budget=budget, weak_settings={"timeout_s": 0.01})
    for _ in range(6):
        with pytest.raises(CascadeError):
            cascade.run(QUERY)
    assert len(weak.asked) == 3
    assert budget.spent_usd <= budget.max_usd


def test_samples_that_the_deadline_cuts_off_are_booked() -> None:
    budget = Budget(1.0)
    result = two(OnceQuick("42"), Scripted(), SelfConsistency(5), deadline_s=0.1, budget=budget).run(QUERY)
    cut = [call for call in result.calls if call.error]
    assert len(cut) == 2
    assert all((call.input_tokens, call.estimated) == (100, True) for call in cut)
    assert budget.spent_usd >= 2 * WEAK_RESERVE


def test_a_stream_that_breaks_off_is_booked_with_its_pieces_and_keeps_the_reserve() -> None:
    strong = Scripted()

    async def breaks(query: Query) -> AsyncIterator[str | Answer]:
        yield "12345678"
        raise RuntimeError("connection reset")

    strong.stream = breaks  # type: ignore[method-assign]
    budget = Budget(1.0)
    with pytest.raises(CascadeError) as caught:
        list(two(Scripted(RuntimeError("down")), strong, budget=budget).stream(QUERY))
    call = caught.value.calls[1]
    assert (call.input_tokens, call.output_tokens, call.estimated) == (100, 2, True)
    assert budget.spent_usd == pytest.approx(WEAK_RESERVE + (100 * 10 + 500 * 30) / 1e6)


def wrapped(error: Exception) -> Exception:
    """The error as the clients raise it: with the library's own as its cause."""
    try:
        raise openai.APIConnectionError(request=REQUEST) from error
    except openai.APIConnectionError as outer:
        return outer


def with_status(status: int) -> Exception:
    return openai.APIStatusError("no", response=httpx.Response(status, request=REQUEST), body=None)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        socket.gaierror("unknown host"),
        ssl.SSLCertVerificationError(1, "certificate has expired"),
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        wrapped(httpx.ConnectError("refused")),
        wrapped(ConnectionRefusedError()),
        *map(with_status, (400, 401, 404, 429, 500, 503, 529)),
    ],
    ids=repr,
)
def test_a_call_that_no_model_read_costs_nothing(error: Exception) -> None:
    assert refused_unread(error)
    budget = Budget(1.0)
    call = two(Scripted(error), Scripted(tokens=(0, 0)), budget=budget).run(QUERY).calls[0]
    assert (call.input_tokens, call.cost_usd, call.estimated, budget.spent_usd) == (0, 0.0, False, 0.0)


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("the server left"),
        wrapped(httpx.ReadError("reset")),
        openai.APITimeoutError(request=REQUEST),
        openai.APIResponseValidationError(httpx.Response(200, request=REQUEST), body="<html>"),
        *map(with_status, (408, 499, 504, 524)),
        KeyError("choices"),
    ],
    ids=repr,
)
def test_a_call_that_a_model_may_have_read_costs(error: Exception) -> None:
    assert not refused_unread(error)
    assert two(Scripted(error), Scripted()).run(QUERY).calls[0].input_tokens == 100


ODD = [math.nan, math.inf, -math.inf, -5, -0.5, 10**30, None, "many", [], {}]


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("which", ["input_tokens", "output_tokens"])
def test_a_token_count_that_cannot_be_is_estimated(odd: Any, which: str) -> None:
    budget = Budget(1.0)
    answer = Answer("12345678", **{"input_tokens": 50, "output_tokens": 3, which: odd})
    [call] = two(lambda query: answer, Scripted(), budget=budget).run(QUERY).calls
    assert (call.input_tokens, call.output_tokens) == ((100, 3) if which == "input_tokens" else (50, 2))
    assert call.estimated
    assert budget.spent_usd == pytest.approx(call.cost_usd)


@given(st.lists(st.sampled_from([*ODD, 0, 10, 1000.0]), min_size=2, max_size=2))
def test_no_token_counts_lift_a_budget(tokens: list[Any]) -> None:
    budget = Budget(0.01)
    weak = Scripted("x" * 4000, tokens=(tokens[0], tokens[1]))
    cascade = two(weak, Scripted(), budget=budget)
    spent = [0.0]
    for _ in range(12):
        try:
            cascade.run(QUERY)
        except CascadeError:
            break
        spent.append(budget.spent_usd)
    assert spent == sorted(spent)
    assert 0 <= budget.spent_usd <= budget.max_usd + 1e-2


@pytest.mark.parametrize("usd", [math.nan, math.inf, -0.1])
def test_a_budget_refuses_costs_that_cannot_be_and_keeps_the_reserve(usd: float) -> None:
    budget = Budget(1.0)
    ticket = budget.reserve(0.5)
    assert ticket is not None
    with pytest.raises(InputError, match="expected a finite number of 0 or more"):
        budget.settle(ticket, usd)
    with pytest.raises(InputError, match="expected a finite number of 0 or more"):
        budget.reserve(usd)
    assert (budget.reserved_usd, budget.spent_usd) == (0.5, 0.0)
    budget.settle(ticket, 0.25)
    assert budget.spent_usd == 0.25


@pytest.mark.parametrize("price", [-1.0, math.nan, math.inf])
def test_a_price_that_would_lift_a_budget_is_refused(price: float) -> None:
    with pytest.raises(InputError, match="a price of 'weak'"):
        Tier(Model("weak", price, 2.0), Scripted())


def test_a_request_that_is_cancelled_in_a_call_has_spent_its_reserve() -> None:
    budget = Budget(1.0)
    weak = Scripted(delay_s=SLOW)

    async def leave() -> None:
        task = asyncio.create_task(two(weak, Scripted(), budget=budget).arun(QUERY))
        while not weak.asked:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(leave())
    assert budget.spent_usd == pytest.approx(WEAK_RESERVE)
