"""A thousand requests at once against real servers: every call and every token is accounted for."""

from __future__ import annotations

import asyncio
import math
import resource
from collections import Counter

import openai
import pytest
from helpers.openai_server import BareClient, OpenAIServer

from routelearn.cascade.accounts import Budget
from routelearn.cascade.backends import from_client
from routelearn.cascade.cascade import Cascade
from routelearn.cascade.self_evaluation import SelfEvaluation
from routelearn.cascade.tiers import CascadeError, CascadeResult, Tier
from routelearn.routers.decision import Model

REQUESTS = 1000
MODELS = {"weak": Model("weak", 1e6, 4e6), "strong": Model("strong", 8e6, 32e6)}  # a token costs whole dollars


@pytest.fixture(scope="module", autouse=True)
def enough_open_files() -> None:
    """Both ends of a thousand connections are in this process; the usual limit is 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if 0 <= soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def number_in(prompt: str) -> int:
    return int(prompt.split("number ")[1].split(maxsplit=1)[0])


def weak_answer(prompt: str) -> str:
    """Fails for every tenth number; is sure of four fifths of the others, and cannot say so for some."""
    number = number_in(prompt)
    if "How sure are you" in prompt:
        return ["95", "90%", "Confidence: high", "I would rather not say", "10"][number % 5]
    if number % 10 == 0:
        raise RuntimeError("overloaded")
    return "weak says " + "so " * (number % 7)


def strong_answer(prompt: str) -> str:
    if number_in(prompt) % 97 == 3:  # these were escalated for want of a confidence
        raise RuntimeError("overloaded")
    return "strong says so"


def expected_model(number: int) -> str:
    weak_fails, strong_fails = number % 10 == 0, number % 97 == 3
    weak_is_sure = not weak_fails and number % 5 in {0, 1, 2}
    if weak_fails and strong_fails:
        return ""
    return "weak" if weak_is_sure or strong_fails else "strong"


def check_accounts(results: list[CascadeResult], servers: dict[str, OpenAIServer], budget: Budget) -> None:
    """The servers' own counts are the sums over the results, to the call, the token and the dollar."""
    total = 0.0
    for name, server in servers.items():
        calls = [call for result in results for call in result.calls if call.model == name]
        counts, model = server.counts, MODELS[name]
        assert len(calls) == counts.calls
        assert sum(call.error is not None for call in calls) == counts.failed
        assert sum(call.input_tokens for call in calls) == counts.input_tokens
        assert sum(call.output_tokens for call in calls) == counts.output_tokens
        cost = (counts.input_tokens * (model.input_price or 0) + counts.output_tokens * (model.output_price or 0)) / 1e6
        assert sum(call.cost_usd or 0.0 for call in calls) == cost
        total += cost
    assert sum(result.cost_usd or 0.0 for result in results) == total == budget.spent_usd
    assert budget.reserved_usd == 0


def test_a_thousand_requests_at_once_are_accounted_for_to_the_token() -> None:
    seen: list[CascadeResult] = []
    budget = Budget(1e12)

    async def ask_all(urls: dict[str, str]) -> list[CascadeResult | BaseException]:
        tiers = [
            Tier(MODELS["weak"], from_client(BareClient(urls["weak"]), "w"), SelfEvaluation(), 0.8),
            Tier(MODELS["strong"], from_client(BareClient(urls["strong"]), "s")),
        ]
        cascade = Cascade(tiers, budget=budget, on_result=seen.append)
        asked = (cascade.arun(f"What of number {number} ?", use_case=str(number)) for number in range(REQUESTS))
        return await asyncio.gather(*asked, return_exceptions=True)

    with OpenAIServer(weak_answer) as weak, OpenAIServer(strong_answer) as strong:
        servers = {"weak": weak, "strong": strong}
        given = asyncio.run(ask_all({name: server.url for name, server in servers.items()}))

    results = sorted(seen, key=lambda result: int(result.use_case or -1))
    assert [result.use_case for result in results] == [str(number) for number in range(REQUESTS)]  # each was seen once
    assert [result.model for result in results] == [expected_model(number) for number in range(REQUESTS)]
    for mine, result in zip(given, results, strict=True):
        assert mine is result or (isinstance(mine, CascadeError) and mine.calls == result.calls)
    assert [number for number, mine in enumerate(given) if isinstance(mine, CascadeError)] == [100]
    check_accounts(results, servers, budget)
    # Nothing was asked twice: one answer from each server for a number, and one evaluation from weak.
    assert max(Counter(weak.counts.prompts).values()) == max(Counter(strong.counts.prompts).values()) == 1
    # Where strong failed: weak's answer, marked.
    degraded = [number for number, result in enumerate(results) if result.degraded == "failure"]
    assert degraded == [number for number in range(REQUESTS) if number % 97 == 3 and number % 5 in {3, 4}]


def test_requests_that_are_cancelled_in_the_crowd_are_accounted_for_as_well() -> None:
    """Half of the clients leave at once or in the midst of it; a call that was cut off counts, its tokens do not."""
    seen: list[CascadeResult] = []

    async def ask_all(url: str) -> None:
        client = openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0, timeout=60)
        tiers = [
            Tier(MODELS["weak"], from_client(client, "w"), SelfEvaluation(), 0.8),
            Tier(MODELS["strong"], from_client(client, "s")),
        ]
        cascade = Cascade(tiers, on_result=seen.append)
        tasks = [asyncio.create_task(cascade.arun(f"What of number {number} ?")) for number in range(1, 200)]
        for number, task in enumerate(tasks):
            if number % 2:
                asyncio.get_running_loop().call_later(number / 400, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)

    with OpenAIServer(weak_answer, delay_s=0.05) as server:
        asyncio.run(ask_all(server.url))

    assert len(seen) == 199
    cancelled = [result for result in seen if result.outcome == "cancelled"]
    assert len(cancelled) > 0
    for result in seen:
        assert result.cost_usd == math.fsum(call.cost_usd or 0.0 for call in result.calls)
    for result in cancelled:
        assert sum(call.error == "cancelled" for call in result.calls) <= 1
    calls = [call for result in seen for call in result.calls]
    # A call cut off before it reached the server is known to us alone.
    cut_off = sum(call.error == "cancelled" for call in calls)
    assert len(calls) - cut_off <= server.counts.calls <= len(calls)
    assert max(Counter(server.counts.prompts).values()) <= 2


@pytest.mark.parametrize("threads", [32])
def test_blocking_requests_of_many_threads_are_accounted_for(threads: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    budget = Budget(1e12)
    with OpenAIServer(weak_answer) as weak, OpenAIServer(strong_answer) as strong:
        servers = {"weak": weak, "strong": strong}
        back_ends = {
            name: from_client(openai.OpenAI(api_key="none", base_url=server.url, max_retries=0), name)
            for name, server in servers.items()
        }
        tiers = [
            Tier(MODELS["weak"], back_ends["weak"], SelfEvaluation(), 0.8),
            Tier(MODELS["strong"], back_ends["strong"]),
        ]
        cascade = Cascade(tiers, budget=budget)
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(cascade.run, [f"What of number {number} ?" for number in range(100)]))
        assert [result.model for result in results] == [expected_model(number) for number in range(100)]
        check_accounts(results, servers, budget)
