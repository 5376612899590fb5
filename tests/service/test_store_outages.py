"""The store of the sessions goes down, hangs, refuses to write, and comes back: requests go on, and say so."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers.availability import Clock, by_threshold, run_threads
from helpers.redis_server import RedisServer

from routelearn.policies.conversation import Conversations
from routelearn.policies.session_state import SessionState
from routelearn.policies.switch_price import SwitchPrices
from routelearn.routers.decision import Model
from routelearn.service.redis_link import RedisLink, StoreDownError
from routelearn.service.shared_sessions import DOWN, SharedSessions

redis = pytest.importorskip("redis")
pytestmark = pytest.mark.slow


def replica(server: RedisServer, timeout_s: float = 1.0) -> tuple[SharedSessions, Conversations]:
    store = SharedSessions(RedisLink(server.url, timeout_s=timeout_s))
    return store, Conversations(store=store, salt=b"one")


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def written(requests: int, seen: float) -> Callable[[SessionState | None], SessionState]:
    return lambda state: SessionState("m", 0.5, "learned", seen, requests + (0 if state is None else state.requests))


def test_decisions_go_on_and_say_so_and_the_store_is_used_again() -> None:
    with RedisServer() as server:
        (a, of_a), (b, of_b) = replica(server), replica(server)
        assert of_a.decide("s", by_threshold(0.9)).reason == "by the threshold"
        server.kill()
        for _ in range(3):
            kept = of_a.decide("s", by_threshold(0.45))  # which a wrote, so that it knows it
            assert (kept.model, kept.cause) == ("strong", "kept")
            assert kept.reason.endswith(f"; {DOWN}")
        of_a.also_named("s", "another id")
        assert of_a.decide("another id", by_threshold(0.45)).cause == "kept"
        assert of_a.decide("begun alone", by_threshold(0.9)).cause == "threshold"
        counts = of_a.as_dict()
        assert (counts["store_down"], counts["store_errors"], counts["decided_alone"]) == (1, 1, 5)
        server.start()
        eventually(lambda: a.note == "")
        eventually(lambda: b.note == "")
        # What went on without the store is written back with the next request; then b knows it.
        for session in ("s", "another id", "begun alone"):
            assert of_a.decide(session, by_threshold(0.45)).model == "strong"
            at_b = of_b.decide(session, by_threshold(0.45))
            assert (at_b.model, at_b.cause) == ("strong", "kept")
            assert DOWN not in at_b.reason
        assert of_a.as_dict()["store_down"] == 0


def test_one_replica_decides_as_in_memory_whatever_befalls_the_store() -> None:
    rng = random.Random(11)
    with RedisServer() as server:
        clock = Clock()
        prices = SwitchPrices(models=[Model("strong", 10.0, 30.0), Model("weak", 0.5, 1.0)])
        store = SharedSessions(RedisLink(server.url, timeout_s=10))
        with_store = Conversations(prices=prices, store=store, clock=clock)
        in_memory = Conversations(prices=prices, clock=clock)
        client = redis.Redis.from_url(server.url)
        marked = 0
        for step in range(3000):
            clock.now += 1
            if step % 500 == 250:
                client.replicaof("127.0.0.1", 1)  # which refuses to write
            elif step % 500 == 300:
                client.replicaof("NO", "ONE")
                eventually(lambda: store.note == "")
            elif step % 97 == 0 and not 250 < step % 500 < 300:
                client.flushall()
            elif step % 89 == 0:
                client.client_kill_filter(_type="normal", skipme=True)
            session, other = (f"session {rng.randrange(40)}" for _ in range(2))
            decision, tokens = by_threshold(round(rng.random(), 3)), rng.randrange(50_000)
            expected = in_memory.decide(session, decision, tokens=tokens)
            found = with_store.decide(session, decision, tokens=tokens)
            marked += found.reason.endswith(f"; {DOWN}")
            assert replace(found, reason=found.reason.removesuffix(f"; {DOWN}")) == expected
            if rng.random() < 0.05:
                in_memory.also_named(session, other)
                with_store.also_named(session, other)
        assert marked >= 6 * 50
        assert with_store.as_dict()["switched"] == in_memory.as_dict()["switched"] > 50


def test_the_later_state_stands_where_both_went_on_alone() -> None:
    with RedisServer("--save", "3600 1") as server:
        (a, _), (b, _) = replica(server), replica(server)
        a.update("s", 10, written(1, 10))
        server.kill()
        a.update("s", 20, written(1, 20))
        eventually(lambda: b.update("other", 20, written(1, 20)) is not None and b.note == DOWN)
        b.update("s", 30, written(7, 30))
        server.start()
        eventually(lambda: a.note == b.note == "")
        assert b.update("s", 40, written(1, 40)).requests == 8
        assert a.update("s", 50, written(1, 50)).requests == 9
        assert b.update("s", 60, written(1, 60)).requests == 10


def test_no_request_fails_while_the_server_is_killed_and_started_under_load() -> None:
    with RedisServer() as server:
        replicas = [replica(server)[1] for _ in range(2)]
        stop = threading.Event()

        def outages() -> None:
            try:
                for _ in range(3):
                    time.sleep(0.3)
                    server.kill()
                    time.sleep(0.3)
                    server.start()
                eventually(lambda: not any(sessions.as_dict()["store_down"] for sessions in replicas))
            finally:
                stop.set()

        operator = threading.Thread(target=outages)
        operator.start()
        decided = [0] * 4

        def work(number: int) -> None:
            while not stop.is_set():
                turn = decided[number]
                session = f"session {number}, {turn // 4}"
                began = time.monotonic()
                sessions = replicas[turn % 2]
                decision = sessions.decide(session, by_threshold(0.9 if turn % 4 == 0 else 0.45), tokens=turn)
                assert decision.model in {"strong", "weak"}
                sessions.also_named(session, f"response {turn}")
                assert time.monotonic() - began < 20
                decided[number] += 1

        run_threads(4, work)
        operator.join()
        assert min(decided) > 10
        for sessions in replicas:
            counts = sessions.as_dict()
            assert counts["decided_alone"] > 0
            assert counts["store_errors"] >= 1
        # After the last start both agree again.
        assert replicas[0].decide("after", by_threshold(0.9)).model == "strong"
        assert replicas[1].decide("after", by_threshold(0.45)).model == "strong"


def test_a_server_that_hangs_costs_one_request_its_time_limit() -> None:
    with RedisServer() as server:
        store, sessions = replica(server, timeout_s=0.1)
        sessions.decide("s", by_threshold(0.9))
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            for _ in range(200):
                assert sessions.decide("s", by_threshold(0.45)).model == "strong"
            assert time.monotonic() - began < 10  # 200 time limits would be 20 s and more
            assert store.note == DOWN
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        eventually(lambda: store.note == "")
        assert DOWN not in sessions.decide("s", by_threshold(0.45)).reason


def test_a_server_that_refuses_to_write_is_down() -> None:
    with RedisServer() as server:
        store, sessions = replica(server)
        sessions.decide("s", by_threshold(0.9))
        client = redis.Redis.from_url(server.url)
        for spoil, mend in (
            (lambda: client.replicaof("127.0.0.1", 1), lambda: client.replicaof("NO", "ONE")),
            (lambda: client.config_set("maxmemory", "1"), lambda: client.config_set("maxmemory", "0")),
        ):
            spoil()
            for _ in range(3):
                kept = sessions.decide("s", by_threshold(0.45))
                assert kept.cause == "kept"
                assert DOWN in kept.reason
            mend()
            eventually(lambda: store.note == "")
            assert DOWN not in sessions.decide("s", by_threshold(0.45)).reason


def test_a_server_that_is_down_at_the_start_is_used_when_it_comes() -> None:
    with RedisServer() as server:
        server.kill()
        store, sessions = replica(server)
        assert DOWN in sessions.decide("s", by_threshold(0.9)).reason
        server.start()
        eventually(lambda: store.note == "")
        assert sessions.decide("s", by_threshold(0.45)).reason.startswith("kept strong")
        assert redis.Redis.from_url(server.url).dbsize() >= 1


def test_a_host_that_cannot_be_found_is_down_and_raises_nothing() -> None:
    store = SharedSessions("redis://no-such-host.invalid:6379/0")
    assert store.note == DOWN
    assert store.update("s", 0.0, written(1, 0.0)).requests == 1
    store.alias("s", "t")
    assert store.as_dict()["sessions"] == 2
    store.close()


def test_a_closed_store_asks_nobody_any_more() -> None:
    with RedisServer() as server:
        store, sessions = replica(server)
        store.close()
        assert DOWN in sessions.decide("s", by_threshold(0.9)).reason
        link = RedisLink(server.url)
        link.close()
        with pytest.raises(StoreDownError):
            link.ask(lambda client: client.ping())
        time.sleep(0.7)  # longer than until the next try
        assert link.down
        assert store.note == DOWN
