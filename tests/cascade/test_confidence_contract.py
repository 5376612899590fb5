"""What a cascade asks of a confidence: its signature, what it returns; and code that wants to end the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np
import pytest
from helpers.cascades import Scores, Scripted, Sure, two

from routelearn.cascade.backends import Answer, from_client
from routelearn.cascade.confidence import Estimate, Joint, SelfConsistency
from routelearn.cascade.tiers import CascadeResult
from routelearn.routers.errors import InputError


def returning(value: Any, asynchronous: bool = True) -> Any:
    class Returns:
        async def estimate(self, query: Any, answer: Any, ask: Any, prior: Any = None) -> Any:
            return value

    class ReturnsAtOnce:
        def estimate(self, query: Any, answer: Any, ask: Any, prior: Any = None) -> Any:
            return value

    return Returns() if asynchronous else ReturnsAtOnce()


class TwoArguments:
    async def estimate(self, query: Any, answer: Any) -> Estimate: ...


class FiveArguments:
    async def estimate(self, query: Any, answer: Any, ask: Any, prior: Any, more: Any) -> Estimate: ...


class KeywordOnly:
    async def estimate(self, query: Any, answer: Any, *, ask: Any, prior: Any = None) -> Estimate: ...


@pytest.mark.parametrize(
    "wrong", [TwoArguments(), FiveArguments(), KeywordOnly()], ids=lambda wrong: type(wrong).__name__
)
def test_an_estimate_with_another_signature_is_refused_when_the_cascade_is_made(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"tier 'weak' has estimate.*expected estimate\(query, answer, ask, prior\)"):
        two(Scripted(), Scripted(), wrong)
    with pytest.raises(InputError, match="expected estimate"):
        Joint(wrong, Scores())


@pytest.mark.parametrize(
    "wrong", [SelfConsistency, Sure, "sure", 7, object(), Namespace(estimate=0.5)], ids=lambda wrong: repr(wrong)[:20]
)
def test_what_is_no_confidence_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="expected an object"):
        two(Scripted(), Scripted(), wrong)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    "value", [0.75, np.float32(0.75), np.float64(0.75), Estimate(0.75), Estimate(np.float32(0.75))]
)  # type: ignore[arg-type]
def test_a_confidence_may_return_an_estimate_or_a_number(value: Any, asynchronous: bool) -> None:
    result = two(Scripted("from weak"), Scripted(), returning(value, asynchronous)).run("hi")
    assert (result.model, result.confidence, type(result.confidence)) == ("weak", 0.75, float)


@pytest.mark.parametrize("value", [0, 1, True])
def test_whole_numbers_are_numbers(value: Any) -> None:
    assert two(Scripted(), Scripted(), returning(value)).run("hi").model == ("weak" if value else "strong")


@pytest.mark.parametrize(
    "nonsense",
    [None, "high", "0.9", (0.9, "why"), {"confidence": 0.9}, [0.9], Answer("0.9"), 85, -1, 1.5, Estimate("high"),  # type: ignore[arg-type]
     Estimate(None), Estimate(0.9, "a better answer"), np.array([0.9])],  # type: ignore[arg-type]
    ids=repr,
)  # fmt: skip
def test_a_confidence_that_returns_nonsense_is_refused_at_the_first_call(nonsense: Any) -> None:
    seen: list[CascadeResult] = []
    strong = Scripted()
    with pytest.raises(InputError, match=r"the confidence of tier 'weak' returned .*; expected"):
        two(Scripted(), strong, returning(nonsense), on_result=seen.append).run("hi")
    assert not strong.asked
    assert [(result.outcome, len(result.calls)) for result in seen] == [("failed", 1)]


def test_a_confidence_that_is_not_a_number_once_escalates() -> None:
    for value in (float("nan"), Estimate(float("nan")), Estimate(1.5)):
        result = two(Scripted(), Scripted("from strong"), returning(value)).run("hi")
        assert (result.model, result.degraded) == ("strong", None)


def test_joint_takes_a_number_and_refuses_nonsense() -> None:
    result = two(Scripted(), Scripted(), Joint(returning(0.75), Scores()), router=Scores()).run("0.25")
    assert result.confidence == pytest.approx(0.5 + (0.75 - 0.25) / 2)
    with pytest.raises(InputError, match="returned 'high'"):
        two(Scripted(), Scripted(), Joint(returning("high"), Scores()), router=Scores()).run("0.25")


# Code that wants to end the process


class Leaves:
    """Wants to leave wherever it is asked."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    async def complete(self, query: Any) -> Answer:
        raise self.error

    async def stream(self, query: Any) -> Any:
        yield "begun"
        raise self.error

    async def estimate(self, query: Any, answer: Any, ask: Any, prior: Any = None) -> Estimate:
        raise self.error


class PanicError(BaseException):
    """As the panics of Rust are."""


def in_time(work: Callable[[], Any]) -> Any:
    """What some work gives; a loop that hangs fails the test, and does not hang it."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert found, "the event loop hangs"
    return found[0]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, PanicError])
def test_async_code_that_leaves_fails_its_call_and_the_next_request_is_answered(error: type[BaseException]) -> None:
    leaves = Leaves(error)
    assert in_time(lambda: two(leaves, Scripted("from strong")).run("hi")).answer == "from strong"
    assert in_time(lambda: two(Scripted(), Scripted("from strong"), leaves).run("hi")).answer == "from strong"
    broken = in_time(lambda: list(two(Scripted(), leaves, 0.1).stream("hi")))
    assert "broke off" in str(broken)

    def hook(result: CascadeResult) -> None:
        raise error

    assert in_time(lambda: two(Scripted("fine"), Scripted(), on_result=hook).run("hi")).answer == "fine"
    assert in_time(lambda: two(Scripted("fine"), Scripted()).run("hi")).answer == "fine"


def test_a_task_of_the_user_that_leaves_does_not_end_the_loop() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    class Forgets(Scripted):
        async def complete(self, query: Any) -> Answer:
            self.task = asyncio.ensure_future(leave())
            await asyncio.sleep(0.01)
            return Answer("fine")

    assert in_time(lambda: two(Forgets(), Scripted()).run("hi")).answer == "fine"
    assert in_time(lambda: two(Scripted("fine"), Scripted()).run("hi")).answer == "fine"


def test_a_service_of_the_user_goes_on_when_a_back_end_leaves() -> None:
    async def serve() -> list[str]:
        return [(await two(Leaves(SystemExit), Scripted("from strong")).arun("hi")).answer for _ in range(2)]

    assert asyncio.run(serve()) == ["from strong", "from strong"]


def test_a_blocking_stream_that_leaves_is_not_taken_for_whole() -> None:
    def chunks(**options: Any) -> Iterator[Any]:
        yield Namespace(choices=[Namespace(delta=Namespace(content="begun"), finish_reason=None)])
        raise SystemExit

    strong = from_client(Namespace(chat=Namespace(completions=Namespace(create=chunks))), "m")
    broken = in_time(lambda: list(two(Scripted(), strong, 0.1).stream("hi")))
    assert "broke off" in str(broken)


@pytest.mark.slow
def test_a_process_whose_back_end_leaves_answers_the_next_request() -> None:
    code = """
import sys
from routelearn.cascade import Cascade, Tier
from routelearn import Model
class Sure:
    async def estimate(self, query, answer, ask, prior): return 1.0
async def leave(query): sys.exit(3)
strong = Tier(Model("strong"), lambda query: "fine")
for weak in (leave, lambda query: "again"):
    print(Cascade([Tier(Model("weak"), weak, Sure()), strong]).run("hi").answer)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["fine", "again"]
