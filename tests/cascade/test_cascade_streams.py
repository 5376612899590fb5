"""The cascade: answers in pieces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from helpers.cascades import SLOW, Scripted, two, wait_until
from helpers.openai_server import OpenAIServer

from routelearn.cascade.backends import Answer, from_client
from routelearn.cascade.cascade import Cascade
from routelearn.cascade.tiers import CascadeError, CascadeResult, UseCase
from routelearn.routers.errors import InputError
from routelearn.routers.query import Query

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
    pieces, result = collect(two(Scripted("from weak"), strong, 0.1, deadline_s=0.1))
    assert pieces == ["begun"]
    assert (result.answer, result.model, result.degraded) == ("from weak", "weak", "deadline")
    assert "after part of its answer was sent" in result.reason
    assert result.calls[1].output_tokens == 2
    with pytest.raises(CascadeError, match="broke off"):  # there is no earlier answer
        collect(two(Scripted(), strong, 0.1, deadline_s=0.1, default_use_case=UseCase("strong")))
