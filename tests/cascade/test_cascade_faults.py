"""The cascade: tiers that fail or hang, and clients that cancel."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from typing import Any

import openai
import pytest
from helpers.cascades import SLOW, OnceQuick, Scripted, Sure, models, tier, two, wait_until
from helpers.openai_server import OpenAIServer

from routelearn.cascade.accounts import Budget
from routelearn.cascade.backends import Answer, from_client
from routelearn.cascade.cascade import Cascade
from routelearn.cascade.confidence import Ask, Estimate, SelfConsistency
from routelearn.cascade.tiers import CascadeError, CascadeResult
from routelearn.routers.errors import InputError
from routelearn.routers.query import Query

# Faults


def test_a_weak_that_times_out_escalates() -> None:
    weak, strong = Scripted(delay_s=SLOW), Scripted("from strong")
    result = two(weak, strong, weak_settings={"timeout_s": 0.05}).run("hi")
    assert (result.answer, result.escalated, result.degraded) == ("from strong", True, None)
    assert result.calls[0].error == "no answer within 0.05 s"
    assert "weak failed (no answer within 0.05 s)" in result.reason
    wait_until(lambda: weak.cancelled == 1)
    assert (len(weak.asked), len(strong.asked)) == (1, 1)


def test_a_weak_that_raises_escalates_and_is_accounted_for() -> None:
    result = two(Scripted(ValueError("bad day")), Scripted("from strong")).run("hi")
    assert (result.answer, result.escalated) == ("from strong", True)
    assert (result.calls[0].error, result.calls[0].cost_usd) == ("ValueError: bad day", 1 * 1 / 1e6)  # it read "hi"


@pytest.mark.parametrize("strong", [Scripted(RuntimeError("down")), Scripted(delay_s=SLOW)])
def test_a_strong_that_fails_gives_back_the_weak_answer_marked(strong: Scripted) -> None:
    result = two(Scripted("from weak"), strong, 0.3, strong_settings={"timeout_s": 0.05}).run("hi")
    assert (result.answer, result.model, result.confidence) == ("from weak", "weak", 0.3)
    assert (result.degraded, result.escalated) == ("failure", True)
    assert "strong failed" in result.reason


def test_the_most_confident_of_the_earlier_answers_is_kept() -> None:
    cascade = Cascade(
        [
            tier("weak", Scripted("from weak"), Sure(0.4)),
            tier("middle", Scripted("from middle"), Sure(0.3)),
            tier("strong", Scripted(RuntimeError("down"))),
        ]
    )
    result = cascade.run("hi")
    assert (result.answer, result.confidence, result.degraded) == ("from weak", 0.4, "failure")


def test_when_every_tier_fails_all_errors_and_calls_are_told() -> None:
    cascade = two(Scripted(RuntimeError("one")), Scripted(RuntimeError("two")))
    with pytest.raises(CascadeError, match=r"no tier gave an answer.*one.*two") as caught:
        cascade.run("hi")
    assert caught.value.errors == ("weak failed (RuntimeError: one)", "strong failed (RuntimeError: two)")
    assert models(caught.value) == ["weak", "strong"]


@pytest.mark.parametrize("bad", [7, None])
def test_a_back_end_that_gives_no_answer_is_a_failure(bad: Any) -> None:
    class Bad(Scripted):
        async def complete(self, query: Query) -> Answer:
            return bad  # type: ignore[no-any-return]

    for back_end in (lambda query: bad, Bad()):
        result = two(back_end, Scripted("from strong")).run("hi")
        assert result.answer == "from strong"
        assert "expected" in (result.calls[0].error or "")


def test_a_back_end_that_cancels_itself_is_a_failure_not_a_cancellation() -> None:
    async def weak(query: Query) -> str:
        raise asyncio.CancelledError

    assert two(weak, Scripted("from strong")).run("hi").answer == "from strong"


def test_stop_iteration_and_system_exit_in_a_function_are_failures() -> None:
    def stop(query: Query) -> str:
        return next(iter(()))

    def leave(query: Query) -> str:
        sys.exit(3)

    for function in (stop, leave):
        assert two(function, Scripted("from strong")).run("hi").answer == "from strong"


def test_a_hanging_function_hangs_neither_the_call_nor_the_interpreter() -> None:
    code = """
import time
from routelearn.cascade.cascade import Cascade
from routelearn.cascade.tiers import Tier
from routelearn.routers.base import Model
class Sure:
    async def estimate(self, query, answer, ask, prior=None): ...
weak = Tier(Model("weak"), lambda query: time.sleep(600), Sure(), timeout_s=0.05)
print(Cascade([weak, Tier(Model("strong"), lambda query: "fine")]).run("hi").answer)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "fine"


def test_a_query_that_is_none_is_the_callers_mistake() -> None:
    seen: list[CascadeResult] = []
    cascade = two(Scripted(), Scripted(), on_result=seen.append)
    with pytest.raises(InputError):
        cascade.run(7)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="deadline_s"):
        cascade.run("hi", deadline_s=0)
    assert not seen


def test_samples_in_flight_are_cut_off_when_the_estimator_fails() -> None:
    class Careless:
        async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
            self.forgotten = asyncio.ensure_future(ask("forgotten"))
            await asyncio.sleep(0.01)
            raise RuntimeError("careless")

    class Weak(Scripted):
        async def complete(self, query: Query) -> Answer:
            self.delay_s = SLOW if query == "forgotten" else 0.0
            return await super().complete(query)

    weak = Weak()

    async def ask() -> CascadeResult:
        result = await two(weak, Scripted("from strong"), Careless()).arun("hi")
        await asyncio.sleep(0.01)
        return result

    result = asyncio.run(ask())
    assert result.answer == "from strong"
    assert (len(weak.asked), weak.cancelled, len(result.calls)) == (2, 1, 3)
    assert "the request was over" in (result.calls[2].error or "")


def test_an_estimator_that_will_not_stop_asks_nobody_when_the_request_is_over() -> None:
    class Stubborn:
        refused = ""

        async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
            try:
                await asyncio.sleep(SLOW)
            except asyncio.CancelledError:
                await asyncio.sleep(0.01)
                try:
                    await ask("once more")
                except Exception as error:  # noqa: BLE001 - looked at below
                    self.refused = str(error)
            return Estimate(1.0)

    weak, stubborn = Scripted("from weak"), Stubborn()

    async def leave() -> None:
        task = asyncio.create_task(two(weak, Scripted(), stubborn).arun("hi"))
        while not weak.asked:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.05)

    asyncio.run(leave())
    assert stubborn.refused == "the request has ended"
    assert weak.asked == ["hi"]


# Cancellation


@pytest.mark.parametrize("where", ["weak", "confidence", "strong"])
def test_a_client_that_cancels_stops_the_running_call_and_starts_no_other(where: str) -> None:
    weak = Scripted(delay_s=SLOW if where == "weak" else 0)
    strong = Scripted(delay_s=SLOW)
    seen: list[CascadeResult] = []
    sure = Sure(0.1, delay_s=SLOW if where == "confidence" else 0)
    budget = Budget(1.0)

    async def ask() -> None:
        task = asyncio.create_task(two(weak, strong, sure, on_result=seen.append, budget=budget).arun("hi"))
        running = {"weak": lambda: weak.asked, "confidence": lambda: sure.priors, "strong": lambda: strong.asked}[where]
        while not running():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.01)

    asyncio.run(ask())
    [result] = seen
    assert (result.outcome, result.answer) == ("cancelled", "")
    assert (len(weak.asked), len(strong.asked)) == (1, 1 if where == "strong" else 0)
    assert weak.cancelled + strong.cancelled == (0 if where == "confidence" else 1)
    assert len(result.calls) == len(weak.asked) + len(strong.asked)
    weak_usd = (100 * 1 + 10 * 2) / 1e6
    # A call that was cut off has read "hi" at least, and the budget keeps what was reserved for its 500 tokens.
    spent, kept = {
        "weak": (1 * 1 / 1e6, 500 * 2 / 1e6),
        "confidence": (weak_usd, 0.0),
        "strong": (weak_usd + 1 * 10 / 1e6, 500 * 30 / 1e6),
    }[where]
    assert result.cost_usd == pytest.approx(spent)
    assert budget.spent_usd == pytest.approx(spent + kept)
    assert budget.reserved_usd == 0


def test_a_client_that_cancels_stops_all_running_samples() -> None:
    seen: list[CascadeResult] = []
    weak = OnceQuick("42")

    async def leave() -> None:
        task = asyncio.create_task(two(weak, Scripted(), SelfConsistency(5), on_result=seen.append).arun("hi"))
        while len(weak.asked) < 3:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert (len(weak.asked), weak.cancelled) == (3, 2)
    assert [call.error is None for call in seen[0].calls] == [True, False, False]


def test_a_cancelled_request_closes_the_connection_to_the_server() -> None:
    with OpenAIServer(delay_s=10) as server:

        async def ask() -> None:
            client = openai.AsyncOpenAI(api_key="none", base_url=server.url, max_retries=0)
            task = asyncio.create_task(two(from_client(client, "m"), Scripted()).arun("hi"))
            while not server.counts.calls:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while not server.counts.dropped:
                await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(ask(), 9))
        assert (server.counts.calls, server.counts.dropped) == (1, 1)


def test_an_interrupted_blocking_request_is_cancelled() -> None:
    seen: list[CascadeResult] = []
    weak = Scripted(delay_s=SLOW)

    async def interrupted(query: Query) -> Answer:
        await asyncio.sleep(0.05)  # until the main thread waits
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return await weak.complete(query)

    # A background job of a shell starts with the signal ignored, and then nothing would be raised.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            two(interrupted, Scripted(), on_result=seen.append).run("hi")
    finally:
        signal.signal(signal.SIGINT, before)
    wait_until(lambda: weak.cancelled == 1)
    assert [result.outcome for result in seen] == ["cancelled"]
