"""The batcher: concurrent requests become batches, and every request gets a decision."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.policies.threshold import Threshold
from routelearn.routers.assessment import Assessment
from routelearn.routers.base import Policy, Router
from routelearn.routers.decision import Context, Decision, Floats, Model
from routelearn.routers.errors import InferenceError, InputError
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.query import Query, turns
from routelearn.service.batcher import Batcher, safe_decision
from routelearn.service.defaults import BatchLimits


class Lengths(Router):
    """The longer, the harder; keeps the batches it was given, and waits in each for the gate."""

    def __init__(self) -> None:
        super().__init__([Model("weak"), Model("strong"), Model("other")], "strong", "weak")
        self.batches: list[list[Query]] = []
        self.contexts: list[Context] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.failing: Callable[[Query], Exception | None] = lambda _: None

    def quality(self, queries: Sequence[Query]) -> Floats:
        hard = np.asarray([min(1.0, len("".join(turns(query))) / 100) for query in queries], np.float32)
        return np.stack([1 - hard, np.ones_like(hard) / 2 + hard / 2, np.zeros_like(hard)], 1)

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        self.batches.append(list(queries))
        self.contexts += contexts or []
        self.threads.add(threading.get_ident())
        assert self.gate.wait(20)
        for query in queries:
            error = self.failing(query)
            if error is not None:
                raise error
        assessment = Router.assess(self, queries, contexts)
        assessment.novelty = np.arange(len(queries), dtype=np.float32)
        return assessment


@pytest.fixture
def slow() -> Iterator[Lengths]:
    """A router whose gate is shut."""
    router = Lengths()
    router.gate.clear()
    yield router
    router.gate.set()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(4000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that")


async def blocked(batcher: Batcher, router: Lengths, queries: Sequence[Query]) -> list[asyncio.Task[Decision]]:
    """A first request that holds the router, and the others behind it."""
    tasks = [asyncio.create_task(batcher.route("the first"))]
    await until(lambda: len(router.batches) == 1)
    tasks += [asyncio.create_task(batcher.route(query)) for query in queries]
    await until(lambda: batcher.waiting == len(queries))
    return tasks


def test_requests_that_arrive_while_a_batch_runs_form_the_next_one_in_order(slow: Lengths) -> None:
    batcher = Batcher(slow, limits=BatchLimits(max_batch=4))

    async def run() -> list[Decision]:
        tasks = await blocked(batcher, slow, [f"query {number}" for number in range(6)])
        slow.gate.set()
        return await asyncio.gather(*tasks)

    decisions = asyncio.run(run())
    assert slow.batches == [["the first"], [f"query {n}" for n in range(4)], ["query 4", "query 5"]]
    assert [decision.cause for decision in decisions] == ["threshold"] * 7


def test_the_event_loop_goes_on_while_the_router_works(slow: Lengths) -> None:
    batcher = Batcher(slow)

    async def run() -> int:
        task = asyncio.create_task(batcher.route("x"))
        turns_of_loop = 0
        while not task.done():
            await asyncio.sleep(0)
            turns_of_loop += 1
            if turns_of_loop == 1000:
                slow.gate.set()
        return turns_of_loop

    assert asyncio.run(run()) >= 1000
    assert threading.get_ident() not in slow.threads


@given(st.lists(st.text(max_size=200), min_size=1, max_size=20), st.integers(1, 7))
def test_a_batched_decision_is_the_routers_own(queries: list[str], max_batch: int) -> None:
    router = Lengths()
    batcher = Batcher(router, limits=BatchLimits(max_batch=max_batch))

    async def run() -> list[Decision]:
        return await asyncio.gather(*(batcher.route(query) for query in queries))

    assert asyncio.run(run()) == router.route_batch(queries)
    batcher.close()


def test_a_learned_router_decides_in_the_batcher_as_it_does_alone(router: LearnedRouter, texts: list[str]) -> None:
    batcher = Batcher(router, Threshold(0.4))

    async def run() -> list[Decision]:
        return await asyncio.gather(*(batcher.route(text) for text in texts[:100]))

    decisions = asyncio.run(run())
    for got, alone in zip(decisions, router.route_batch(texts[:100], Threshold(0.4)), strict=True):
        assert (got.model, got.threshold) == (alone.model, 0.4)
        assert got.score == pytest.approx(alone.score, abs=1e-5)


def test_each_request_keeps_its_own_policy_and_context(slow: Lengths) -> None:
    batcher = Batcher(slow, Threshold(0.0))
    policies: list[Policy | None] = [Threshold(2.0), None, Threshold(0.0), Threshold(2.0)]

    async def run() -> list[Decision]:
        first = asyncio.create_task(batcher.route("the first"))
        await until(lambda: len(slow.batches) == 1)
        tasks = [
            asyncio.create_task(batcher.route("x", {"tier": str(number)}, policy))
            for number, policy in enumerate(policies)
        ]
        await until(lambda: batcher.waiting == 4)
        slow.gate.set()
        await first
        return await asyncio.gather(*tasks)

    assert [decision.model for decision in asyncio.run(run())] == ["weak", "strong", "strong", "weak"]
    assert sorted(context["tier"] for context in slow.contexts if context) == ["0", "1", "2", "3"]
    assert len(slow.batches) == 3  # the first alone, then one for each of two policies


def test_a_full_queue_gives_the_strong_model_at_once(slow: Lengths) -> None:
    batcher = Batcher(slow, limits=BatchLimits(max_waiting=2))

    async def run() -> Decision:
        tasks = await blocked(batcher, slow, ["a", "b"])
        decision = await batcher.route("one too many")
        slow.gate.set()
        await asyncio.gather(*tasks)
        return decision

    decision = asyncio.run(run())
    assert (decision.model, decision.source, decision.cause) == ("strong", "default", "busy")
    assert decision.candidates == ("strong", "weak", "other")
    assert "too many requests wait" in decision.reason
    assert ["one too many"] not in slow.batches


def test_a_router_that_hangs_gives_the_strong_model_after_the_time_limit_and_later_its_own_again(slow: Lengths) -> None:
    batcher = Batcher(slow, limits=BatchLimits(timeout_s=0.2))

    async def run() -> tuple[list[Decision], Decision]:
        late = await asyncio.gather(batcher.route("a"), batcher.route("b"))
        slow.gate.set()
        await until(lambda: batcher.waiting == 0)
        return late, await batcher.route("c")

    late, after = asyncio.run(run())
    assert {(decision.model, decision.cause) for decision in late} == {("strong", "timeout")}
    assert after.cause == "threshold"


def test_requests_that_ran_out_of_time_are_not_scored(slow: Lengths) -> None:
    batcher = Batcher(slow, limits=BatchLimits(timeout_s=0.2))

    async def run() -> None:
        tasks = await blocked(batcher, slow, ["late 1", "late 2"])
        await asyncio.gather(*tasks)
        slow.gate.set()
        await batcher.route("on time")

    asyncio.run(run())
    assert slow.batches == [["the first"], ["on time"]]


def test_a_router_that_fails_gives_the_strong_model() -> None:
    router = Lengths()
    router.failing = lambda _: InferenceError("broken graph")
    decision = asyncio.run(Batcher(router).route("x"))
    assert (decision.model, decision.source, decision.cause) == ("strong", "default", "error")
    assert "InferenceError" in decision.reason


def test_one_query_that_fails_does_not_decide_for_its_neighbours(slow: Lengths) -> None:
    errors: dict[Any, Exception] = {"bad": InferenceError("no"), "unusable": InputError("no query")}
    slow.failing = errors.get
    batcher = Batcher(slow)

    async def run() -> list[Decision | BaseException]:
        tasks = await blocked(batcher, slow, ["good", "bad", "unusable", "good too"])
        slow.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, good, bad, unusable, good_too = asyncio.run(run())
    assert [getattr(result, "cause", None) for result in (first, good, bad, good_too)] == [
        "threshold",
        "threshold",
        "error",
        "threshold",
    ]
    assert isinstance(unusable, InputError)


def test_an_unusable_query_is_the_callers_error() -> None:
    with pytest.raises(InputError, match="expected a mapping"):
        asyncio.run(Batcher(Lengths()).route([{"role": "user"}]))


def test_a_cancelled_request_is_dropped_and_the_others_are_answered(slow: Lengths) -> None:
    seen: list[Query] = []
    batcher = Batcher(slow, on_decision=lambda query, decision, **_: seen.append(query))

    async def run() -> Decision:
        first, cancelled, kept = await blocked(batcher, slow, ["cancelled", "kept"])
        cancelled.cancel()
        first.cancel()  # while it is being scored
        await asyncio.gather(cancelled, first, return_exceptions=True)
        slow.gate.set()
        return await kept

    assert asyncio.run(run()).cause == "threshold"
    assert slow.batches == [["the first"], ["kept"]]
    assert seen == ["kept"]


def test_every_answered_request_is_reported_once_with_what_is_known_of_it(slow: Lengths) -> None:
    seen: list[tuple[Query, str, float | None, float]] = []

    def report(query: Query, decision: Decision, *, novelty: float | None, vector: Any, latency_s: float) -> None:
        seen.append((query, decision.cause, novelty, latency_s))
        raise RuntimeError("of the observer")

    batcher = Batcher(slow, limits=BatchLimits(max_waiting=2), on_decision=report)

    async def run() -> None:
        tasks = await blocked(batcher, slow, ["a", "b"])
        await batcher.route("c")
        await asyncio.sleep(0.05)
        slow.gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert [row[:3] for row in seen] == [
        ("c", "busy", None),
        ("the first", "threshold", 0.0),
        ("a", "threshold", 0.0),
        ("b", "threshold", 1.0),
    ]
    assert all(row[3] >= 0.05 for row in seen[1:])


def test_several_event_loops_share_a_batcher() -> None:
    router = Lengths()
    batcher = Batcher(router, limits=BatchLimits(max_waiting=2000, timeout_s=60))
    decisions_of: dict[int, list[Decision]] = {}

    def loop(number: int) -> None:
        async def run() -> list[Decision]:
            return await asyncio.gather(*(batcher.route("x" * number * 10) for _ in range(200)))

        decisions_of[number] = asyncio.run(run())

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {number: {decision.score for decision in decisions} for number, decisions in decisions_of.items()} == {
        number: {router.route("x" * number * 10).score} for number in range(8)
    }
    assert len(router.threads) == 1 + 1  # the worker, and this thread just now


def test_a_loop_that_is_closed_early_does_not_stop_the_others(slow: Lengths) -> None:
    batcher = Batcher(slow)

    async def leave() -> None:
        task = asyncio.create_task(batcher.route("left behind"))
        await until(lambda: len(slow.batches) == 1)
        del task

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.stop()
    loop.close()
    slow.gate.set()
    assert asyncio.run(batcher.route("x")).cause == "threshold"


def test_closing_answers_what_waits_and_stops_the_worker(slow: Lengths) -> None:
    batcher = Batcher(slow)
    workers = {thread for thread in threading.enumerate() if thread.name == "routelearn-batcher"}

    async def run() -> list[Decision]:
        tasks = await blocked(batcher, slow, ["a", "b"])
        threading.Timer(0.05, slow.gate.set).start()
        batcher.close()
        return [*await asyncio.gather(*tasks), await batcher.route("after")]

    assert [decision.cause for decision in asyncio.run(run())] == ["threshold", "closed", "closed", "closed"]
    left = {thread for thread in threading.enumerate() if thread.name == "routelearn-batcher"} - workers
    assert not left


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_died_is_replaced() -> None:
    router = Lengths()
    router.failing = lambda query: SystemExit() if query == "kill" else None  # type: ignore[return-value]
    batcher = Batcher(router, limits=BatchLimits(timeout_s=0.3))

    async def run() -> list[str]:
        killed = await batcher.route("kill")
        return [killed.cause, (await batcher.route("x")).cause]

    assert asyncio.run(run()) == ["timeout", "threshold"]


def test_the_router_can_be_exchanged_while_requests_run(slow: Lengths) -> None:
    batcher = Batcher(slow)
    other = Lengths()

    async def run() -> None:
        tasks = await blocked(batcher, slow, ["b"])
        batcher.router = other
        slow.gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert (slow.batches, other.batches) == ([["the first"]], [["b"]])


@pytest.mark.parametrize("limit", ["max_batch", "max_waiting", "timeout_s"])
def test_limits_must_be_above_zero(limit: str) -> None:
    with pytest.raises(InputError, match=limit):
        BatchLimits(**{limit: 0})  # type: ignore[arg-type]


def test_the_safe_decision_names_the_strong_model_first_and_says_why() -> None:
    decision = safe_decision(Lengths(), "error", "InferenceError")
    assert decision.candidates == ("strong", "weak", "other")
    assert decision.reason == "the router failed (InferenceError); strong is the safe answer"
    assert decision.score >= decision.threshold


def test_a_thousand_requests_at_once_are_all_answered() -> None:
    router = Lengths()
    batcher = Batcher(router, limits=BatchLimits(max_waiting=2000))

    async def run() -> list[Decision]:
        return await asyncio.gather(*(batcher.route(f"query {number}") for number in range(1000)))

    assert {decision.cause for decision in asyncio.run(run())} == {"threshold"}
    assert len(router.batches) < 1000
