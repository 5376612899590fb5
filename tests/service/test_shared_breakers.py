"""Breakers that replicas share in a real Redis: one replica finds a model down, all skip it, and one of them probes."""

from __future__ import annotations

import gc
import multiprocessing
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from helpers.availability import Clock
from helpers.redis_server import RedisServer

from routelearn.availability.availability import Availability
from routelearn.availability.breaker import BreakerLimits
from routelearn.service.redis_link import RedisLink
from routelearn.service.shared_breakers import SharedBreakers

redis = pytest.importorskip("redis")
pytestmark = pytest.mark.slow
LIMITS = BreakerLimits(failures=3, reset_timeout_s=30)
PAIR = ("a", "b")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4().hex}:"


class Replica:
    """Breakers on a clock that is set by hand; states are exchanged when the test says so."""

    def __init__(self, server: RedisServer, prefix: str, clock: Clock) -> None:
        self.availability = Availability(PAIR, LIMITS, clock=clock)
        self.shared = SharedBreakers(RedisLink(server.url, prefix=prefix, timeout_s=10), self.availability)
        self.shared.close()  # the thread, which would exchange by itself

    def fails(self) -> None:
        for _ in range(3):
            self.availability.record("a", ok=False, error="HTTP 529")

    @property
    def state(self) -> str:
        return self.availability.status("a").state


def exchange(*replicas: Replica) -> None:
    for replica in replicas:
        replica.shared.exchange()


def test_a_model_that_one_replica_finds_down_is_skipped_by_all_until_its_probe_succeeds(
    server: RedisServer, prefix: str
) -> None:
    clock = Clock()
    first, second, third = replicas = [Replica(server, prefix, clock) for _ in range(3)]
    first.fails()
    assert second.availability.choose(PAIR).model == "a"
    exchange(*replicas)
    for replica in (second, third):
        choice = replica.availability.choose(PAIR)
        assert choice.model == "b"
        assert "another replica: 3 failures in a row" in choice.reason
        assert replica.availability.status("a").skipped["held"] == 1
    clock.now += 29.5
    exchange(*replicas)
    clock.now += 0.6
    probe = first.availability.choose(PAIR)
    assert (probe.model, probe.probe) == ("a", True)
    for replica in (second, third):  # it is the turn of the replica whose breaker opened first
        assert replica.availability.choose(PAIR).model == "b"
    first.availability.record(probe, ok=True)
    exchange(*replicas)
    assert [replica.state for replica in replicas] == ["closed"] * 3
    assert [replica.availability.choose(PAIR).probe for replica in replicas] == [False] * 3


def test_a_probe_that_fails_keeps_the_model_out_everywhere(server: RedisServer, prefix: str) -> None:
    clock = Clock()
    first, second = replicas = [Replica(server, prefix, clock) for _ in range(2)]
    first.fails()
    exchange(*replicas)
    for _ in range(3):
        clock.now += 29.5
        exchange(*replicas)
        clock.now += 0.6
        probe = first.availability.choose(PAIR)
        assert probe.probe
        exchange(*replicas)  # while the probe runs
        first.availability.record(probe, ok=False, error="HTTP 529")
        exchange(*replicas)
        assert not second.availability.is_available("a")
        assert second.availability.wait_s("a") > 25
        assert second.availability.status("a").requests == 0  # no request of its own went there


def test_a_replica_that_sends_no_probe_loses_its_turn(server: RedisServer, prefix: str) -> None:
    clock = Clock()
    first, second = replicas = [Replica(server, prefix, clock) for _ in range(2)]
    first.fails()
    exchange(*replicas)
    clock.now += 30
    exchange(*replicas)
    assert not second.availability.choose(PAIR).probe
    assert redis.Redis.from_url(server.url).delete(f"{prefix}p:a") == 1  # as the server does when the time is over
    clock.now += 1
    exchange(second, first)
    probe = second.availability.choose(PAIR)
    assert probe.probe
    second.availability.record(probe, ok=True)
    exchange(second, first)
    assert first.state == second.state == "closed"


def test_two_replicas_that_find_a_model_down_at_once_send_one_probe(server: RedisServer, prefix: str) -> None:
    clock = Clock()
    replicas = [Replica(server, prefix, clock) for _ in range(4)]
    for replica in replicas:
        replica.fails()
    exchange(*replicas)
    exchange(*replicas)
    for _ in range(3):
        clock.now += 29.5
        exchange(*replicas)
        clock.now += 0.6
        choices = [replica.availability.choose(PAIR) for replica in replicas]
        assert sum(choice.probe for choice in choices) == 1
        for replica, choice in zip(replicas, choices, strict=True):
            replica.availability.record(choice, ok=choice.model == "b")
        exchange(*replicas)
        exchange(*replicas)
        assert {replica.state for replica in replicas} == {"open"}


def test_a_replica_that_starts_later_takes_over_what_is_known(server: RedisServer, prefix: str) -> None:
    clock = Clock()
    first = Replica(server, prefix, clock)
    first.fails()
    exchange(first)
    late = Replica(server, prefix, clock)
    exchange(late)
    assert 25 < late.availability.wait_s("a") <= 30
    assert late.availability.wait_s("b") == 0


@pytest.mark.parametrize("what", [b"", b"x", b"7", b"[]", b'{"by":"x"}', b'{"by":1,"id":2,"state":3,"why":4}', b"\xff"])
def test_what_is_no_news_in_the_store_is_left_alone(server: RedisServer, prefix: str, what: bytes) -> None:
    client = redis.Redis.from_url(server.url)
    replica = Replica(server, prefix, Clock())
    client.set(f"{prefix}b:a", what)
    client.hset(f"{prefix}b:b", "of another", "type")
    exchange(replica)
    assert replica.state == "closed"
    replica.fails()
    exchange(replica)
    assert client.get(f"{prefix}b:a").startswith(b'{"by"')


def test_without_the_store_each_replica_goes_by_its_own_breakers(prefix: str) -> None:
    with RedisServer() as server:
        clock = Clock()
        first, second = replicas = [Replica(server, prefix, clock) for _ in range(2)]
        server.kill()
        first.fails()
        exchange(*replicas)
        assert (first.state, second.state) == ("open", "closed")
        server.start()
        for replica in replicas:
            eventually(lambda replica=replica: not replica.shared._link.down)
        exchange(*replicas)  # the news was not lost
        assert (first.state, second.state) == ("open", "open")
        server.kill()
        clock.now += 31
        exchange(*replicas)
        for replica in replicas:
            assert replica.availability.choose(PAIR).probe


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def test_the_thread_exchanges_by_itself_until_it_is_closed(server: RedisServer, prefix: str) -> None:
    one, other = Availability(PAIR, LIMITS), Availability(PAIR, LIMITS)
    link = RedisLink(server.url, prefix=prefix, timeout_s=10)
    shared = [SharedBreakers(link, each, every_s=0.05) for each in (one, other)]
    one.hold("b", 1000, "said by an operator")
    for _ in range(3):
        one.record("a", ok=False)
    eventually(lambda: other.status("a").state == other.status("b").state == "open")
    one.release("a", "said by an operator")
    eventually(lambda: other.status("a").state == "closed")
    for each in shared:
        each.close()
        assert not each._thread.is_alive()


def test_the_thread_ends_with_its_breakers(server: RedisServer, prefix: str) -> None:
    thread = SharedBreakers(RedisLink(server.url, prefix=prefix), Availability(PAIR, LIMITS), every_s=0.05)._thread
    eventually(lambda: gc.collect() >= 0 and not thread.is_alive())


def test_a_forked_child_is_a_replica_of_its_own(server: RedisServer, prefix: str) -> None:
    availability = Availability(PAIR, LIMITS)
    shared = SharedBreakers(RedisLink(server.url, prefix=prefix, timeout_s=10), availability, every_s=0.05)
    context = multiprocessing.get_context("fork")
    heard = context.Event()

    def work() -> None:
        eventually(lambda: availability.status("a").state == "open")
        heard.set()
        availability.release("a", "said by an operator")
        time.sleep(0.5)

    child = context.Process(target=work)
    child.start()
    for _ in range(3):
        availability.record("a", ok=False)
    assert heard.wait(60)
    eventually(lambda: availability.status("a").state == "closed")
    child.join(60)
    shared.close()
