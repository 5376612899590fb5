"""Sessions through real LiteLLM proxies: tool loops, outages, replicas with one Redis, what weak cannot serve."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from helpers.billing_upstream import BillingUpstream
from helpers.litellm_proxy import NEWEST
from helpers.redis_server import RedisServer
from helpers.session_load import (
    Answer,
    Ask,
    ask_sessions,
    changes_in_loops,
    errors,
    mixed_requests,
    tool_sessions,
)
from helpers.session_proxies import MOST_TOKENS, STRONG, WEAK, SessionProxy, billing_upstreams, session_proxies

pytestmark = pytest.mark.slow

Pair = tuple[BillingUpstream, BillingUpstream]


@pytest.fixture(scope="module")
def models() -> Iterator[Pair]:
    with billing_upstreams() as pair:
        yield pair


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def replicas(models: Pair, store: RedisServer) -> Iterator[list[SessionProxy]]:
    with session_proxies(NEWEST, 2, models, ROUTELEARN_REDIS_URL=store.url, ROUTELEARN_SESSION_REQUESTS="6") as proxies:
        yield proxies


def renamed(sessions: dict[str, list[Ask]], mark: str) -> dict[str, list[Ask]]:
    """The same sessions under other ids."""
    return {f"{mark}-{name}": requests for name, requests in sessions.items()}


def asked(
    proxies: list[SessionProxy], sessions: dict[str, list[Ask]], progress: Callable[[int], None] = lambda _: None
) -> dict[str, list[Answer]]:
    return asyncio.run(ask_sessions([one.url for one in proxies], "auto", sessions, 8, progress))


def test_replicas_that_take_turns_decide_as_one_does_and_no_loop_changes_its_model(
    replicas: list[SessionProxy],
) -> None:
    sessions = tool_sessions(25, seed=1)
    together = asked(replicas, renamed(sessions, "together"))
    alone = asked(replicas[:1], renamed(sessions, "alone"))
    assert not errors(together) and not errors(alone)
    assert [[one.text for one in turns] for turns in together.values()] == [
        [one.text for one in turns] for turns in alone.values()
    ]
    assert {one.text for turns in together.values() for one in turns} == {STRONG, WEAK}
    assert changes_in_loops(together) == 0


def test_no_request_is_lost_while_the_store_is_killed_and_restarted(
    replicas: list[SessionProxy], store: RedisServer
) -> None:
    sessions = tool_sessions(30, seed=2)
    total = sum(map(len, sessions.values()))
    steps: list[tuple[float, Callable[[], object]]] = [(0.25, store.kill), (0.6, store.start)]

    def progress(done: int) -> None:
        if steps and done >= steps[0][0] * total:
            threading.Thread(target=steps.pop(0)[1]).start()

    answers = asked(replicas, sessions, progress)
    assert not steps
    assert errors(answers) == []


def test_no_request_is_lost_while_strong_is_killed_and_only_diverted_loops_change_their_model(
    models: Pair, replicas: list[SessionProxy]
) -> None:
    sessions, strong = tool_sessions(30, seed=3), models[0]
    total = sum(map(len, sessions.values()))
    steps: list[tuple[float, Callable[[], object]]] = [(0.3, strong.kill), (0.5, strong.start)]

    def progress(done: int) -> None:
        if steps and done >= steps[0][0] * total:
            steps.pop(0)[1]()

    answers = asked(replicas, sessions, progress)
    assert errors(answers) == []
    time.sleep(2)  # the breakers probe
    after = asked(replicas, tool_sessions(10, seed=4))
    assert changes_in_loops(after) == 0
    assert STRONG in {one.text for turns in after.values() for one in turns}


def test_no_request_goes_to_a_model_that_cannot_serve_it(models: Pair, replicas: list[SessionProxy]) -> None:
    for upstream in models:
        upstream.clear()
    sessions = mixed_requests(120, MOST_TOKENS, seed=5)
    answers = asked(replicas, sessions)
    assert errors(answers) == []
    got = models[1].lines()
    assert got, "weak answered nothing, so nothing was tried"
    assert not [line for line in got if line["image"] or line["tools"] or line["input"] > MOST_TOKENS]
    assert {name.split("-")[0] for name, turns in answers.items() if turns[0].text == STRONG} >= {
        "image",
        "long",
        "tools",
    }
