"""A forked child answers: gunicorn with preload, multiprocessing and the workers of a DataLoader all fork."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import routelearn
from routelearn.routers.forks import new_lock
from routelearn.routers.loading import TokenizerName
from routelearn.service import Batcher, Lane

pytestmark = pytest.mark.slow

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "version-3"
MANY = [f"question number {number} about things " * (1 + number % 7) for number in range(3000)]
#: A child that hangs is killed after so many seconds.
PATIENCE_S = 60


def in_child(action: Callable[[], bool]) -> str:
    """What becomes of an action in a forked child."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            code = 0 if action() else 1
        finally:
            os._exit(code)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return {0: "right", 1: "wrong"}.get(os.waitstatus_to_exitcode(status), "failed")
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


@pytest.fixture(params=["auto", "tokenizers"])
def router(request: pytest.FixtureRequest) -> routelearn.LearnedRouter:
    tokenizer: TokenizerName = request.param
    return routelearn.load(BUNDLE, tokenizer=tokenizer, threads=2)


def test_a_child_scores_after_a_batch_of_the_parent(router: routelearn.LearnedRouter) -> None:
    expected = router.score(MANY).tolist()
    assert in_child(lambda: router.score(MANY).tolist() == expected) == "right"
    assert in_child(lambda: router.score(MANY[:1]).tolist() == expected[:1]) == "right"


def test_a_child_scores_while_the_parent_scores(router: routelearn.LearnedRouter) -> None:
    expected = router.score(MANY).tolist()
    stop = threading.Event()

    def score() -> None:
        while not stop.is_set():
            router.score(MANY)

    busy = threading.Thread(target=score)
    busy.start()
    try:
        for _ in range(5):
            assert in_child(lambda: router.score(MANY).tolist() == expected) == "right"
    finally:
        stop.set()
        busy.join()


def test_a_child_of_a_child_scores(router: routelearn.LearnedRouter) -> None:
    expected = router.score(MANY).tolist()

    def child() -> bool:
        router.score(MANY)
        return in_child(lambda: router.score(MANY).tolist() == expected) == "right"

    assert in_child(child) == "right"


def test_a_fallback_router_with_a_time_limit_answers_in_a_child_as_before() -> None:
    safe = routelearn.FallbackRouter(BUNDLE, timeout_s=30)
    before = safe.route_batch(MANY[:50])
    assert in_child(lambda: safe.route_batch(MANY[:50]) == before) == "right"


def test_a_general_router_that_stands_in_answers_in_a_child_loaded_or_not() -> None:
    def decided() -> list[routelearn.Decision]:
        return routelearn.FallbackRouter(BUNDLE, novelty_bound=-1.0).route_batch(MANY[:50])

    safe = routelearn.FallbackRouter(BUNDLE, novelty_bound=-1.0)
    before = decided()
    assert "general" in {decision.source for decision in before}
    assert in_child(lambda: safe.route_batch(MANY[:50]) == before) == "right"
    assert safe.route_batch(MANY[:50]) == before
    assert in_child(lambda: safe.route_batch(MANY[:50]) == before) == "right"


def test_a_fallback_router_that_hangs_in_the_parent_answers_in_a_child() -> None:
    """What is stuck in the parent is not stuck in the child."""
    stop = threading.Event()

    class Hanging(routelearn.RulesRouter):
        def assess(self, queries: object, contexts: object = None) -> object:  # type: ignore[override]
            stop.wait()
            return super().assess(queries, contexts)  # type: ignore[arg-type]

    safe = routelearn.FallbackRouter(Hanging("large", "small"), timeout_s=0.01)
    assert [safe.route("hi").cause for _ in range(20)][-1] == "busy"

    def child() -> bool:
        stop.set()
        safe._timeout_s = 30
        return safe.route("hi").cause not in {"busy", "timeout"}

    try:
        assert in_child(child) == "right"
    finally:
        stop.set()


def test_a_lane_answers_in_a_child_and_leaves_what_waits_to_the_parent() -> None:
    worked: list[str] = []
    go = threading.Event()

    def work(items: object) -> list[str]:
        go.wait()
        worked.extend(items)  # type: ignore[call-overload]
        return list(items)  # type: ignore[call-overload]

    lane: Lane[str, str] = Lane(work, max_items=1, name="test")

    def child() -> bool:
        go.set()
        return asyncio.run(lane.submit("child", 30)) == "child" and worked == ["child"]

    async def both() -> None:
        waiting = [asyncio.create_task(lane.submit(name, 30)) for name in ("first", "second")]
        await asyncio.sleep(0.05)
        found = await asyncio.to_thread(in_child, child)
        go.set()
        assert await asyncio.gather(*waiting) == ["first", "second"]
        assert found == "right"

    asyncio.run(both())
    lane.close(finish=True)


def test_a_batcher_that_has_routed_routes_in_a_child() -> None:
    batcher = Batcher(routelearn.load(BUNDLE))
    expected = asyncio.run(batcher.route("Prove it."))
    assert in_child(lambda: asyncio.run(batcher.route("Prove it.")) == expected) == "right"
    batcher.close()


def test_a_lock_that_the_parent_holds_is_free_in_a_child() -> None:
    lock = new_lock()
    with lock:
        assert in_child(lambda: lock.acquire(timeout=1)) == "right"
        assert lock.locked()
