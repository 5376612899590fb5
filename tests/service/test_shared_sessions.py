"""Sessions that replicas share in a real Redis: replicas agree, whatever stands in the store."""

from __future__ import annotations

import logging
import math
import multiprocessing
import random
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.availability import Clock, by_threshold, run_threads
from helpers.redis_server import RedisServer

from routelearn.policies.conversation import Conversations
from routelearn.policies.session_lengths import SessionLengths
from routelearn.policies.session_state import SessionState
from routelearn.policies.switch_price import SwitchPrices
from routelearn.routers.decision import Decision, Model
from routelearn.routers.errors import InputError
from routelearn.service.redis_link import RedisLink
from routelearn.service.shared_sessions import SharedSessions, shared_salt

redis = pytest.importorskip("redis")
pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parents[2] / "docs" / "availability.md"
POOL = (Model("strong", 10.0, 30.0, cached_input_price=1.0), Model("weak", 0.5, 1.0, cached_input_price=0.05))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4().hex}:"


def replica(server: RedisServer, prefix: str, clock: Any, **options: Any) -> Conversations:
    # A busy machine must not make the store seem down.
    store = SharedSessions(RedisLink(server.url, prefix=prefix, timeout_s=10), **options)
    return conversations(clock, store=store, salt=b"one")


def conversations(clock: Any, **options: Any) -> Conversations:
    lengths = SessionLengths(weight=1e12)  # what replicas learn by themselves does not matter
    return Conversations(0.1, prices=SwitchPrices(models=POOL), lengths=lengths, clock=clock, **options)


def requests_of_agents(count: int, seed: int) -> Iterator[tuple[str, Decision, dict[str, Any], str | None]]:
    """Requests of so many sessions in turns: the session's id, the decision, the rest, and another id from now on."""
    rng = random.Random(seed)
    left = {f"session {number}": rng.randint(1, 12) for number in range(count)}
    names = dict.fromkeys(left, "")
    tokens = dict.fromkeys(left, 0)
    while left:
        session = rng.choice(list(left))
        left[session] -= 1
        tokens[session] += rng.randint(50, 20_000)
        down = rng.choice(["", "", "", "", "strong", "weak"])
        rest = {
            "tokens": tokens[session],
            "step": rng.random() < 0.3,
            "escalate_to": "strong" if rng.random() < 0.03 else None,
            "why": "a loop",
            "available": lambda model, down=down: model != down,
        }
        source = rng.choice(["learned", "learned", "learned", "rules"])
        other = f"{session}, response {left[session]}" if rng.random() < 0.2 else None
        yield names[session] or session, by_threshold(round(rng.random(), 3), source=source), rest, other
        names[session] = other or names[session]
        if not left[session]:
            del left[session]


def test_replicas_that_take_turns_decide_as_one_replica_would(server: RedisServer, prefix: str) -> None:
    clock = Clock()
    one, replicas = conversations(clock), [replica(server, prefix, clock) for _ in range(2)]
    asked = causes = 0
    for number, (session, decision, rest, other) in enumerate(requests_of_agents(500, seed=7)):
        clock.now += 0.5
        expected = one.decide(session, decision, **rest)
        assert replicas[number % 2].decide(session, decision, **rest) == expected, session
        if other is not None:
            one.also_named(session, other)
            replicas[number % 2].also_named(session, other)
        asked += 1
        causes += expected.cause in {"kept", "diverted", "escalated"}
    assert asked > 2500
    assert causes > 500
    begun = sum(one.as_dict()["begun"] for one in replicas)
    assert begun == one.as_dict()["begun"]


def begin(url: str, prefix: str, score: float, start: Any, answers: Any) -> None:
    """Begin sessions in a process of its own, each at the same moment as another process."""
    sessions = Conversations(1.0, store=SharedSessions(RedisLink(url, prefix=prefix, timeout_s=10)), salt=b"one")
    models = []
    for number in range(200):
        start.wait(60)
        models.append(sessions.decide(f"session {number}", by_threshold(score)).model)
    answers.put(models)


def test_processes_that_begin_a_session_at_the_same_moment_agree(server: RedisServer, prefix: str) -> None:
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=begin, args=(server.url, prefix, score, start, answers)) for score in (0.9, 0.1)
    ]
    for process in processes:
        process.start()
    first, second = answers.get(timeout=120), answers.get(timeout=120)
    for process in processes:
        process.join(60)
    assert first == second
    assert len(first) == 200


def test_threads_of_two_replicas_lose_no_request(server: RedisServer, prefix: str) -> None:
    stores = [SharedSessions(RedisLink(server.url, prefix=prefix, timeout_s=10)) for _ in range(2)]

    def work(number: int) -> None:
        for turn in range(40):
            stores[number % 2].update(f"session {turn % 3}", 0.0, one_more)

    run_threads(6, work)
    noted = sum(stores[0].update(f"session {turn}", 0.0, one_more).requests for turn in range(3))
    assert noted - 3 + sum(store.as_dict()["store_conflicts"] for store in stores) == 6 * 40
    assert sum(store.as_dict()["store_errors"] for store in stores) == 0


def one_more(state: SessionState | None) -> SessionState:
    after = SessionState("m", 0.5, "learned", 0.0) if state is None else state
    after.requests += 1
    return after


@pytest.mark.parametrize("what", [b"", b"not json", b"\xff\x00", b"[1]", b'["m",1,2,3]', b"null", b'{"model":"m"}'])
def test_what_is_no_session_in_the_store_is_written_over(server: RedisServer, prefix: str, what: bytes) -> None:
    client = redis.Redis.from_url(server.url)
    store = SharedSessions(RedisLink(server.url, prefix=prefix, timeout_s=10))
    client.set(f"{prefix}s:a", what)
    assert [store.update("a", 0.0, one_more).requests for _ in range(2)] == [1, 2]
    client.set(f"{prefix}s:a", what)  # what this replica knows of the session goes on
    assert store.update("a", 0.0, one_more).requests == 3
    assert SharedSessions(RedisLink(server.url, prefix=prefix, timeout_s=10)).update("a", 0.0, one_more).requests == 4
    assert store.note == ""


def test_a_key_of_another_type_is_written_over(server: RedisServer, prefix: str) -> None:
    client = redis.Redis.from_url(server.url)
    store = SharedSessions(RedisLink(server.url, prefix=prefix, timeout_s=10))
    for spoil in (lambda: client.hset(f"{prefix}s:a", "x", "y"), lambda: client.rpush(f"{prefix}s:a", "x")):
        client.delete(f"{prefix}s:a")
        spoil()
        store.alias("a", "b")
        store.update("a", 0.0, one_more)
        assert client.type(f"{prefix}s:a") == b"string"
    assert store.as_dict()["store_errors"] == 0


def test_a_session_expires_by_the_rule_and_in_the_store(server: RedisServer, prefix: str) -> None:
    client = redis.Redis.from_url(server.url)
    clock = Clock()
    a, b = (replica(server, prefix, clock, ttl_s=60) for _ in range(2))
    assert a.decide("s", by_threshold(0.9)).model == "strong"
    (key,) = client.keys(f"{prefix}s:*")
    assert 50_000 < client.pttl(key) <= 60_000
    clock.now += 61
    assert b.decide("s", by_threshold(0.45)).model == "weak"  # begun anew, although the key is still there
    client.delete(key)  # as the server does when the time is over
    clock.now += 61
    assert b.decide("s", by_threshold(0.9)).cause == "threshold"
    assert b.as_dict()["begun"] == 2
    forever = SharedSessions(RedisLink(server.url, prefix=prefix, timeout_s=10), ttl_s=None)
    forever.update("f", 0.0, one_more)
    assert client.pttl(f"{prefix}s:f") == -1


def test_another_id_finds_the_session_at_every_replica(server: RedisServer, prefix: str) -> None:
    clock = Clock()
    a, b = (replica(server, prefix, clock) for _ in range(2))
    a.decide("s", by_threshold(0.9), tokens=5000)
    a.also_named("s", "response 1")
    b.also_named("s", "response 2")  # which b knows from the store alone
    a.also_named("nobody", "response 3")
    for session in ("response 1", "response 2"):
        assert b.decide(session, by_threshold(0.45), tokens=5000, step=True).cause == "kept"
    assert b.decide("response 3", by_threshold(0.45), tokens=5000, step=True).cause == "threshold"


def test_a_forked_child_shares_the_sessions_over_connections_of_its_own(server: RedisServer, prefix: str) -> None:
    store = SharedSessions(RedisLink(server.url, prefix=prefix, timeout_s=10))
    assert store.update("a", 0.0, one_more).requests == 1
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def work() -> None:
        for _ in range(50):
            store.update("a", 0.0, one_more)
        answers.put(store.as_dict())

    children = [context.Process(target=work) for _ in range(2)]
    for child in children:
        child.start()
    for _ in range(50):
        store.update("a", 0.0, one_more)
    found = [answers.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
    counts = [store.as_dict(), *found]
    assert sum(one["store_errors"] for one in counts) == 0
    noted = store.update("a", 0.0, one_more).requests - 1
    assert noted + sum(one["store_conflicts"] for one in counts) == 1 + 3 * 50


@pytest.mark.parametrize("options", ["", "?db=3", "?decode_responses=true", "?protocol=3"])
def test_a_unix_socket_and_options_in_the_url_are_understood(options: str) -> None:
    with RedisServer("--unixsocket", "redis.sock") as server:
        url = f"unix://{server.folder}/redis.sock{options}"
        stores = [SharedSessions(RedisLink(url, timeout_s=10)) for _ in range(2)]
        assert [store.update("a", 0.0, one_more).requests for store in (*stores, *stores)] == [1, 2, 3, 4]
        stores[0].alias("a", "b")
        assert stores[1].update("b", 0.0, one_more).requests == 5
        assert [store.note for store in stores] == ["", ""]


def test_a_url_with_a_password_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with RedisServer("--requirepass", "right") as locked:
        wrong = RedisLink(f"redis://user:geheim@127.0.0.1:{locked.port}/0")
        store = SharedSessions(wrong)
        assert store.update("a", 0.0, one_more).requests == 1
        assert store.note
        assert wrong.down
        right = SharedSessions(RedisLink(f"redis://:right@127.0.0.1:{locked.port}/0?password=right", timeout_s=10))
        right.update("a", 0.0, one_more)
        assert right.note == ""
    for url in ("redis://u:7/geheim@host", "redis://u:7#geheim@host", "unix://u:7/geheim@/x.sock"):
        with pytest.raises(InputError, match="percent-encoded") as refused:
            RedisLink(url)
        assert "geheim" not in str(refused.value)
    for url in ("redis://:geheim@[::1", "redis://:geheim@host:port/0", "http://:geheim@host", "geheim", 7, None, ""):
        with pytest.raises(InputError, match="the URL of the store is not shown") as refused:
            RedisLink(url)  # type: ignore[arg-type]
        assert "geheim" not in str(refused.value)
        assert refused.value.__cause__ is None
        assert refused.value.__suppress_context__ or refused.value.__context__ is None
    with pytest.raises(InputError, match="options that redis-py knows"):
        RedisLink("redis://:geheim@host/0?socket_timeout=geheim")
    assert "geheim" not in caplog.text
    assert f"redis://127.0.0.1:{locked.port} is down (" in caplog.text


def test_replicas_with_one_secret_have_one_salt() -> None:
    assert shared_salt("a") == shared_salt("a") != shared_salt(None) == shared_salt(None)
    assert len(shared_salt(None)) <= 64


def test_the_recipe_of_the_docs_runs(server: RedisServer) -> None:
    (recipe,) = re.findall(r"```py\n(.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(recipe.replace("redis://localhost:6379/0", server.url), names)
    assert names["sessions"].decide("s", by_threshold(0.9)).reason == "by the threshold"
    names["shared"].close()


@pytest.mark.parametrize("ttl_s", [None, math.inf, 1e300])
def test_sessions_that_are_never_forgotten_are_kept_in_the_store(
    server: RedisServer, prefix: str, ttl_s: float | None
) -> None:
    link = RedisLink(server.url, prefix=prefix)
    store = SharedSessions(link, ttl_s=ttl_s)
    store.update("key", 1.0, lambda _: SessionState("strong", 0.9, "learned", 1.0))
    assert not link.down
    assert link.ask(lambda client: client.pttl(link.key("s", "key"))) == -1
    store.close()
