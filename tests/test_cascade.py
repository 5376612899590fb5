"""The cascade: what it accepts, escalates, gives up and accounts for; faults, deadlines, budgets, streams."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import numpy as np
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_server import OpenAIServer

from routelearn.routers.answers import Answer, from_client
from routelearn.routers.base import Floats, Model, Router
from routelearn.routers.budget import Budget
from routelearn.routers.cascade import Cascade
from routelearn.routers.confidence import Ask, Estimate, SelfConsistency, SelfEvaluation
from routelearn.routers.errors import CascadeError, InputError, RoutelearnError
from routelearn.routers.query import Query
from routelearn.routers.tiers import CascadeResult, Tier, UseCase

PRICES = {"weak": (1.0, 2.0), "middle": (3.0, 6.0), "strong": (10.0, 30.0)}
SLOW = 30.0  # never waited for


class Scripted:
    """A back end that does as it is told, and counts."""

    def __init__(
        self, does: str | Exception = "answer", delay_s: float = 0.0, tokens: tuple[int, int] | None = (100, 10)
    ) -> None:
        self.does = does
        self.delay_s = delay_s
        self.tokens = tokens
        self.asked: list[Query] = []
        self.cancelled = 0

    async def complete(self, query: Query) -> Answer:
        self.asked.append(query)
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)  # cleaning up takes time, and a second cancellation would disturb it
            self.cancelled += 1
            raise
        if isinstance(self.does, Exception):
            raise self.does
        return Answer(self.does, *(self.tokens or ()))

    async def stream(self, query: Query) -> AsyncIterator[str | Answer]:
        answer = await self.complete(query)
        for word in answer.text.split():
            yield word + " "
            await asyncio.sleep(0)
        yield answer


class Sure:
    """Gives the confidence it was made with; an exception is raised, a delay is waited for."""

    def __init__(self, confidence: float | Exception, delay_s: float = 0.0) -> None:
        self.confidence = confidence
        self.delay_s = delay_s
        self.priors: list[float | None] = []
        self.cancelled = threading.Event()

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        self.priors.append(prior)
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if isinstance(self.confidence, Exception):
            raise self.confidence
        return Estimate(self.confidence)


class Scores(Router):
    """A router whose score is the number in the query."""

    def __init__(self) -> None:
        super().__init__([Model("strong"), Model("weak")], "strong", "weak", threshold=0.6)

    def quality(self, queries: Sequence[Query]) -> Floats:
        scores = np.array([float(str(query).split()[-1]) for query in queries], np.float32)
        return np.stack([scores, 1 - scores], axis=1)


def tier(name: str, backend: Any, confidence: Any = None, **settings: Any) -> Tier:
    return Tier(Model(name, *PRICES[name]), backend, confidence, **settings)


def two(
    weak: Any,
    strong: Any,
    confidence: Any = 0.9,
    weak_settings: Any = None,
    strong_settings: Any = None,
    **settings: Any,
) -> Cascade:
    sure = Sure(confidence) if isinstance(confidence, (float, Exception)) else confidence
    return Cascade(
        [tier("weak", weak, sure, **(weak_settings or {})), tier("strong", strong, **(strong_settings or {}))],
        **settings,
    )


def wait_until(true: Callable[[], bool]) -> None:
    """What is cancelled ends soon, but not at once."""
    deadline = time.monotonic() + 5
    while not true() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert true()


def models(result: CascadeResult | CascadeError) -> list[str]:
    return [call.model for call in result.calls]


# What is accepted and what escalates


def test_a_confident_answer_is_accepted_and_strong_is_not_asked() -> None:
    weak, strong = Scripted("from weak"), Scripted()
    result = two(weak, strong, 0.5).run("hi")
    assert (result.answer, result.model, result.confidence, result.escalated) == ("from weak", "weak", 0.5, False)
    assert (len(weak.asked), len(strong.asked)) == (1, 0)
    assert result.cost_usd == pytest.approx((100 * 1 + 10 * 2) / 1e6)
    assert result.reason == "confidence in weak is 0.50, at or above 0.50"
    assert (result.degraded, result.outcome) == (None, "answered")


def test_an_unsure_answer_escalates() -> None:
    weak, strong = Scripted(), Scripted("from strong")
    result = two(weak, strong, 0.49).run("hi")
    assert (result.answer, result.model, result.confidence, result.escalated) == ("from strong", "strong", None, True)
    assert models(result) == ["weak", "strong"]
    assert result.reason == "strong answers: confidence in weak is 0.49, below 0.50"
    assert list(result.tier_latency_s) == ["weak", "strong"]
    assert result.cost_usd == pytest.approx((100 * 1 + 10 * 2 + 100 * 10 + 10 * 30) / 1e6)


def test_three_tiers_are_asked_in_their_order_until_one_is_sure() -> None:
    back_ends = [Scripted(name) for name in PRICES]
    cascade = Cascade(
        [
            tier("weak", back_ends[0], Sure(0.1)),
            tier("middle", back_ends[1], Sure(0.8), threshold=0.7),
            tier("strong", back_ends[2]),
        ]
    )
    result = cascade.run("hi")
    assert (result.answer, result.escalated, models(result)) == ("middle", True, ["weak", "middle"])
    assert not back_ends[2].asked


def test_the_result_is_plain_data() -> None:
    result = two(Scripted(), Scripted(), 0.2).run("hi")
    plain = json.loads(json.dumps(result.as_dict()))
    assert plain["calls"][1]["model"] == "strong"
    assert plain["tier_latency_s"].keys() == {"weak", "strong"}


def test_self_consistency_answers_with_the_majority_and_counts_its_samples() -> None:
    answers = iter(["41", "42", "42", "42"])
    result = two(lambda query: next(answers), Scripted(), SelfConsistency(5)).run("6 x 7?")
    assert (result.answer, result.confidence) == ("42", 0.75)
    assert [call.purpose for call in result.calls] == ["answer", "confidence", "confidence", "confidence"]


def test_self_evaluation_is_one_more_call() -> None:
    weak = Scripted("85")
    result = two(weak, Scripted(), SelfEvaluation()).run("hi")
    assert (result.confidence, [call.purpose for call in result.calls]) == (0.85, ["answer", "confidence"])


@pytest.mark.parametrize("confidence", [RuntimeError("no graph"), float("nan"), 1.5])
def test_a_confidence_that_cannot_be_had_escalates(confidence: Any) -> None:
    result = two(Scripted(), Scripted("from strong"), confidence).run("hi")
    assert (result.model, result.escalated, result.degraded) == ("strong", True, None)
    assert "no confidence in weak" in result.reason


# Callables and clients


def test_sync_and_async_functions_are_back_ends() -> None:
    async def strong(query: Query) -> Answer:
        return Answer(f"strong: {query}", 7, 3)

    result = two(lambda query: f"weak: {query}", strong, 0.0).run("hi")
    assert result.answer == "strong: hi"
    weak, strong_call = result.calls
    assert (weak.estimated, weak.input_tokens, weak.output_tokens) == (True, 1, 2)  # 2 and 8 characters
    assert (strong_call.estimated, strong_call.input_tokens, strong_call.output_tokens) == (False, 7, 3)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_openai_client_is_a_back_end(asynchronous: bool) -> None:
    kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    with OpenAIServer(lambda _: "I do not know") as weak, OpenAIServer(lambda _: "It is Paris") as strong:
        clients = [kind(api_key="none", base_url=server.url, max_retries=0) for server in (weak, strong)]
        back_ends = [from_client(client, "a-model", temperature=0.5) for client in clients]
        cascade = two(*back_ends, 0.1)
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which city?"}]
        result = cascade.run(chat)
        assert (result.answer, models(result)) == ("It is Paris", ["weak", "strong"])
        assert [(call.input_tokens, call.output_tokens) for call in result.calls] == [(4, 4), (4, 3)]
        assert not any(call.estimated for call in result.calls)
        with cascade.stream(chat) as stream:
            assert list(stream) == ["It ", "is ", "Paris"]
        streamed = stream.result.calls[1]
        assert (streamed.input_tokens, streamed.output_tokens, streamed.estimated) == (4, 3, False)
        assert (weak.counts.calls, strong.counts.calls) == (2, 2)


def test_a_client_whose_async_nature_is_hidden_is_awaited() -> None:
    class Completions:
        def create(self, **options: Any) -> Any:  # no coroutine function, but gives an awaitable
            return self._create(**options)

        async def _create(self, **options: Any) -> Any:
            message = type("Message", (), {"content": options["messages"][0]["content"].upper()})
            return type("Reply", (), {"choices": [type("Choice", (), {"message": message})], "usage": None})

    client = type("Client", (), {"chat": type("Chat", (), {"completions": Completions()})})()
    assert two(from_client(client, "m"), Scripted()).run("hi").answer == "HI"


def test_a_server_error_of_a_real_client_escalates() -> None:
    def fail(prompt: str) -> str:
        raise RuntimeError("overloaded")

    with OpenAIServer(fail) as weak, OpenAIServer(lambda _: "fine") as strong:
        back_ends = [
            from_client(openai.OpenAI(api_key="none", base_url=server.url, max_retries=0), "m")
            for server in (weak, strong)
        ]
        result = two(*back_ends).run("hi")
        assert (result.answer, result.escalated, weak.counts.calls, strong.counts.calls) == ("fine", True, 1, 1)
        assert "InternalServerError" in (result.calls[0].error or "")


def test_usage_that_is_not_reported_is_estimated_and_marked() -> None:
    with OpenAIServer(lambda _: "12345678", usage=False) as server:
        back_end = from_client(openai.OpenAI(api_key="none", base_url=server.url), "m")
        [call] = two(back_end, Scripted()).run("a" * 41).calls
        assert (call.estimated, call.input_tokens, call.output_tokens) == (True, 11, 2)


def test_run_works_inside_a_running_loop() -> None:
    async def service() -> str:
        return two(Scripted("fine"), Scripted()).run("hi").answer

    assert asyncio.run(service()) == "fine"


def test_run_on_its_own_loop_is_refused_and_does_not_hang() -> None:
    errors: list[Exception] = []
    cascade: Cascade

    def hook(result: CascadeResult) -> None:
        try:
            cascade.run("again")
        except RoutelearnError as error:
            errors.append(error)

    cascade = two(Scripted(), Scripted(), on_result=hook)
    cascade.run("hi")
    assert "own event loop" in str(errors[0])


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
    assert (result.calls[0].error, result.calls[0].cost_usd) == ("ValueError: bad day", 0.0)


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
from routelearn.routers.cascade import Cascade
from routelearn.routers.tiers import Tier
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
    assert stubborn.refused == "the request is over"
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
    spent = 0.0 if where == "weak" else (100 * 1 + 10 * 2) / 1e6
    assert result.cost_usd == budget.spent_usd == pytest.approx(spent)
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

    with pytest.raises(KeyboardInterrupt):
        two(interrupted, Scripted(), on_result=seen.append).run("hi")
    wait_until(lambda: weak.cancelled == 1)
    assert [result.outcome for result in seen] == ["cancelled"]


# The hook


def test_the_hook_sees_every_request_once_and_its_errors_are_not_the_requests(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[CascadeResult] = []

    def hook(result: CascadeResult) -> None:
        seen.append(result)
        raise RuntimeError("monitor down")

    assert two(Scripted("fine"), Scripted(), on_result=hook).run("hi").answer == "fine"
    with pytest.raises(CascadeError):
        two(Scripted(RuntimeError()), Scripted(RuntimeError()), on_result=hook).run("hi", use_case="legal")
    assert [result.outcome for result in seen] == ["answered", "failed"]
    assert seen[1].use_case == "legal"
    assert caplog.text.count("on_result raised") == 2


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


class OnceQuick(Scripted):
    """Answers the first time at once, then never."""

    async def complete(self, query: Query) -> Answer:
        self.delay_s = SLOW if self.asked else 0
        return await super().complete(query)


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
    assert (budget.reserved_usd, budget.spent_usd) == (0, result.cost_usd)


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


# The joint policy: router and use cases


def test_plainly_hard_queries_go_straight_to_strong_and_the_rest_is_verified() -> None:
    weak, strong, sure = Scripted("from weak"), Scripted("from strong"), Sure(0.9)
    cascade = two(weak, strong, sure, router=Scores(), direct_threshold=0.8)
    hard, easy = cascade.run("score 0.875"), cascade.run("score 0.25")
    assert (hard.model, hard.escalated, hard.score, models(hard)) == ("strong", False, 0.875, ["strong"])
    assert hard.reason == "strong answers: its score 0.88 is at or above 0.80"
    assert (easy.model, easy.score, sure.priors) == ("weak", 0.25, [0.25])


def test_when_strong_fails_on_a_hard_query_a_weaker_one_answers_marked() -> None:
    weak, strong, sure = Scripted("from weak"), Scripted(RuntimeError("down")), Sure(0.9)
    result = two(weak, strong, sure, router=Scores(), direct_threshold=0.8).run("score 0.875")
    assert (result.answer, result.degraded, result.escalated) == ("from weak", "failure", False)
    assert models(result) == ["strong", "weak"]
    assert not sure.priors  # nothing is verified: there is nowhere to escalate to
    with pytest.raises(CascadeError, match="no tier gave an answer"):
        two(Scripted(RuntimeError("down")), strong, sure, router=Scores(), direct_threshold=0.8).run("score 0.875")


@pytest.mark.parametrize("query", ["no number", "nan", "7"])
def test_a_router_that_fails_is_as_no_router(query: str) -> None:
    result = two(Scripted("from weak"), Scripted(), router=Scores(), direct_threshold=0.1).run(query)
    assert (result.model, result.score, result.confidence) == ("weak", None, 0.9)


def test_a_hard_query_is_not_sent_to_a_strong_that_cannot_finish_in_time() -> None:
    cascade = two(
        Scripted("from weak"),
        Scripted(),
        0.1,
        router=Scores(),
        direct_threshold=0.5,
        strong_settings={"expected_s": 50},
    )
    result = cascade.run("0.75", deadline_s=20)
    assert (result.answer, result.degraded) == ("from weak", "deadline")


def test_use_cases_have_rules_of_their_own() -> None:
    cascade = two(
        Scripted("from weak"),
        Scripted("from strong"),
        0.6,
        router=Scores(),
        use_cases={
            "medical": UseCase("cascade", threshold=0.9),
            "legal": UseCase("cascade", direct_threshold=0.3),
            "audit": UseCase("strong"),
            "chat": UseCase("weak"),
        },
        default_use_case=UseCase("route"),
    )

    def of(query: str, use_case: str | None) -> tuple[str, bool, float | None]:
        result = cascade.run(query, use_case=use_case)
        assert result.use_case == use_case
        return result.model, result.escalated, result.confidence

    assert of("0.25", "medical") == ("strong", True, None)  # 0.6 is below 0.9
    assert of("0.25", "legal") == ("weak", False, 0.6)
    assert of("0.5", "legal") == ("strong", False, None)
    assert of("0.1", "audit") == ("strong", False, None)
    assert of("0.9", "chat") == ("weak", False, None)
    assert of("0.5", "anything else") == ("weak", False, None)  # routed at the router's own threshold
    assert of("0.75", None) == ("strong", False, None)


def test_a_routed_weak_that_fails_escalates() -> None:
    cascade = two(Scripted(RuntimeError()), Scripted("from strong"), router=Scores(), default_use_case=UseCase("route"))
    result = cascade.run("0.1")
    assert (result.answer, result.escalated) == ("from strong", True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cascade([tier("strong", Scripted())]),
        lambda: Cascade([tier("weak", Scripted()), tier("strong", Scripted())]),
        lambda: Cascade([tier("weak", Scripted(), Sure(1.0)), tier("weak", Scripted())]),
        lambda: two(Scripted(), Scripted(), direct_threshold=0.5),
        lambda: two(Scripted(), Scripted(), use_cases={"a": UseCase("route")}),
        lambda: two(Scripted(), Scripted(), deadline_s=-1),
        lambda: two(Scripted(), Scripted(), max_cost_usd=-1),
        lambda: Cascade([Tier(Model("a"), Scripted(), Sure(1.0)), Tier(Model("b"), Scripted())], budget=Budget(1)),
        lambda: tier("weak", "no back end"),
        lambda: tier("weak", Scripted(), 0.5),
        lambda: tier("weak", Scripted(), timeout_s=0),
        lambda: tier("weak", Scripted(), expected_output_tokens=-1),
        lambda: UseCase("cheap"),  # type: ignore[arg-type]
        lambda: Budget(math.inf),
        lambda: Budget(1, window_s=0),
        lambda: from_client(object(), "m"),
    ],
)
def test_parts_that_do_not_fit_are_input_errors(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"expected|need"):
        make()


# Streams


def collect(cascade: Cascade, query: Query = "hi", **settings: Any) -> tuple[list[str], CascadeResult]:
    async def read() -> tuple[list[str], CascadeResult]:
        stream = cascade.astream(query, **settings)
        return [piece async for piece in stream], stream.result

    return asyncio.run(read())


def test_an_accepted_answer_is_streamed_whole_and_strong_piece_by_piece() -> None:
    pieces, result = collect(two(Scripted("from weak"), Scripted(), 0.9))
    assert (pieces, result.model) == (["from weak"], "weak")
    pieces, result = collect(two(Scripted("from weak"), Scripted("now from strong"), 0.1))
    assert (pieces, result.answer, result.calls[1].cost_usd) == (
        ["now ", "from ", "strong "],
        "now from strong",
        pytest.approx((100 * 10 + 10 * 30) / 1e6),
    )


def test_a_routed_answer_streams_from_weak_as_it_comes() -> None:
    cascade = two(Scripted("a b c"), Scripted(), default_use_case=UseCase("weak"))
    assert collect(cascade)[0] == ["a ", "b ", "c "]


def test_pieces_come_before_the_answer_is_complete() -> None:
    go_on = threading.Event()

    async def strong_stream(query: Query) -> AsyncIterator[str | Answer]:
        yield "first"
        while not go_on.is_set():
            await asyncio.sleep(0.001)
        yield " last"

    strong = Scripted()
    strong.stream = strong_stream  # type: ignore[method-assign]
    stream = two(Scripted(), strong, 0.1).stream("hi")
    assert next(stream) == "first"
    with pytest.raises(InputError, match="read to the end"):
        _ = stream.result
    go_on.set()
    assert list(stream) == [" last"]
    assert stream.result.answer == "first last"
    assert stream.result.calls[1].estimated


def test_a_stream_that_fails_before_its_first_piece_gives_the_weak_answer() -> None:
    pieces, result = collect(two(Scripted("from weak"), Scripted(RuntimeError("down")), 0.1))
    assert (pieces, result.degraded) == (["from weak"], "failure")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_that_breaks_off_raises_and_costs_what_came(asynchronous: bool) -> None:
    kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    seen: list[CascadeResult] = []
    with OpenAIServer(lambda _: "one two three four", break_after=2) as server:
        strong = from_client(kind(api_key="none", base_url=server.url, max_retries=0), "m")
        stream = two(Scripted("from weak"), strong, 0.1, on_result=seen.append).stream("hi")
        pieces = []
        with pytest.raises(CascadeError, match="broke off after part"):
            for piece in stream:
                pieces.append(piece)
        assert pieces == ["one ", "two "]
        assert (seen[0].outcome, seen[0].calls[1].estimated, seen[0].calls[1].output_tokens) == ("failed", True, 2)
        assert server.counts.calls == 1


def test_leaving_a_stream_early_cancels_what_runs() -> None:
    seen: list[CascadeResult] = []
    strong = Scripted("from strong", delay_s=0)

    async def endless(query: Query) -> AsyncIterator[str | Answer]:
        strong.asked.append(query)
        try:
            while True:
                yield "more "
                await asyncio.sleep(0.001)
        finally:
            strong.cancelled += 1

    strong.stream = endless  # type: ignore[method-assign]
    cascade = two(Scripted(), strong, 0.1, on_result=seen.append)

    async def leave() -> None:
        async with cascade.astream("hi") as stream:
            async for piece in stream:
                assert piece == "more "
                break
        assert [piece async for piece in stream] == []

    asyncio.run(leave())
    with cascade.stream("hi") as stream:
        next(stream)
    assert [result.outcome for result in seen] == ["cancelled", "cancelled"]
    assert all(result.calls[1].output_tokens > 0 for result in seen)
    wait_until(lambda: strong.cancelled == 2)


def test_leaving_the_stream_of_a_blocking_client_stops_and_closes_it() -> None:
    closed = threading.Event()

    class Endless:
        def __iter__(self) -> Iterator[Any]:
            delta = type("Delta", (), {"content": "more "})
            while not closed.is_set():
                yield type("Chunk", (), {"choices": [type("Choice", (), {"delta": delta})]})

        def close(self) -> None:
            closed.set()

    completions = type("Completions", (), {"create": lambda self, **options: Endless()})()
    client = type("Client", (), {"chat": type("Chat", (), {"completions": completions})})()
    with two(Scripted(), from_client(client, "m"), 0.1).stream("hi") as stream:
        assert next(stream) == "more "
    assert closed.wait(5)


def test_a_reader_that_is_cancelled_cancels_the_request() -> None:
    seen: list[CascadeResult] = []
    weak = Scripted(delay_s=SLOW)

    async def read() -> None:
        cascade = two(weak, Scripted(), on_result=seen.append)
        task = asyncio.create_task(anext(cascade.astream("hi")))
        while not weak.asked:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen[0].outcome == "cancelled"

    asyncio.run(read())


def test_a_deadline_ends_a_stream_that_has_begun() -> None:
    async def slow(query: Query) -> AsyncIterator[str | Answer]:
        yield "begun"
        await asyncio.sleep(SLOW)

    strong = Scripted()
    strong.stream = slow  # type: ignore[method-assign]
    with pytest.raises(CascadeError, match="broke off"):
        collect(two(Scripted(), strong, 0.1, deadline_s=0.1))


# Properties

ANSWERS = st.sampled_from(["fine", RuntimeError("down")])
TIERS = st.lists(
    st.tuples(
        ANSWERS,
        st.floats(0, 1) | st.just(RuntimeError("unsure")),
        st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
    ),
    min_size=2,
    max_size=4,
)


def build(tiers: list[Any], threshold: float, **settings: Any) -> tuple[Cascade, list[Scripted]]:
    back_ends = [Scripted(does, tokens=tokens) for does, _, tokens in tiers]
    made = [
        Tier(Model(f"m{i}", 2.0 + i, 5.0 + i), back_end, Sure(sure), threshold=threshold)
        for i, (back_end, (_, sure, _)) in enumerate(zip(back_ends, tiers, strict=True))
    ]
    return Cascade(made, **settings), back_ends


def outcome(cascade: Cascade) -> tuple[Any, CascadeResult]:
    seen: list[CascadeResult] = []
    cascade._on_result = seen.append
    try:
        raised = None
        cascade.run("hi")
    except CascadeError as error:
        raised = error
    [result] = seen
    return raised, result


@given(TIERS, st.floats(0, 1), st.none() | st.floats(0, 0.2))
def test_cost_is_the_sum_of_the_calls_and_nothing_is_lost_or_asked_twice(
    tiers: list[Any], threshold: float, max_cost_usd: float | None
) -> None:
    budget = Budget(1e6)
    cascade, back_ends = build(tiers, threshold, budget=budget, max_cost_usd=max_cost_usd)
    raised, result = outcome(cascade)
    assert result.cost_usd == math.fsum(call.cost_usd or 0.0 for call in result.calls)
    assert result.cost_usd == pytest.approx(budget.spent_usd)
    assert budget.reserved_usd == 0
    assert sorted(models(result)) == [f"m{i}" for i, back_end in enumerate(back_ends) if back_end.asked]
    assert all(len(back_end.asked) <= 1 for back_end in back_ends)
    for call in result.calls:
        i = int(call.model[1:])
        tokens = (0, 0) if call.error else tiers[i][2]
        assert (call.input_tokens, call.output_tokens) == tokens
        assert call.cost_usd == pytest.approx((tokens[0] * (2.0 + i) + tokens[1] * (5.0 + i)) / 1e6)
    assert (raised is None) == (result.outcome == "answered") == bool(result.answer)
    assert result.escalated == (len(result.calls) > 1)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12), st.lists(st.floats(0, 1.1), min_size=2, max_size=4).map(sorted)
)
def test_the_escalation_rate_rises_with_the_threshold(confidences: list[float], thresholds: list[float]) -> None:
    def rate(threshold: float) -> float:
        results = [
            two(Scripted(), Scripted(), sure, weak_settings={"threshold": threshold}).run("hi") for sure in confidences
        ]
        return sum(result.escalated for result in results) / len(results)

    rates = [rate(threshold) for threshold in thresholds]
    assert rates == sorted(rates)
    assert rate(0.0) == 0
    assert rate(1.01) == 1
