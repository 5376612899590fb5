"""The HTTP service: requests per second of /v1/score with one query and with 32, and how long a client waits.

Run: python benchmarks/serve.py
The service runs in a separate process. The client keeps its connections open and takes a share of the same cores. The
prompts are human arena prompts from $ROUTELEARN_DATA, and the router is the one that benchmarks/drift.py trains.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import numpy as np
import pandas
from common import DATA, ROOT, bundle, say, write_section
from routellm_tables import ROUTERS, battles

sys.path.insert(0, str(ROOT / "tests"))
from helpers.serve import Server

ROUNDS = 3
SECONDS = 8.0
#: Queries a request, requests at a time.
CASES = ((1, 1), (1, 32), (32, 1), (32, 8))


def requests_of(size: int) -> list[bytes]:
    """Whole HTTP requests, ready to send, of so many prompts each."""
    asked = pandas.read_parquet(DATA / "arena_human" / "arena_pairs.parquet")["prompt"]
    texts = [text for text in dict.fromkeys(asked) if isinstance(text, str) and 0 < len(text) <= 8000]
    np.random.default_rng(0).shuffle(texts)
    found = []
    for start in range(0, len(texts) - size, size):
        body = json.dumps({"queries": texts[start : start + size]}).encode()
        head = "POST /v1/score HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        found.append(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    return found


async def client(port: int, requests: list[bytes], first: int, step: int, end: float, waits: list[float]) -> None:
    """Ask again and again over one connection until the time is up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = first
    while time.perf_counter() < end:
        started = time.perf_counter()
        writer.write(requests[number % len(requests)])
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        waits.append(time.perf_counter() - started)
        number += step
    writer.close()


async def measure(port: int, requests: list[bytes], together: int) -> tuple[float, list[float]]:
    """Requests a second, and how long each took, seconds."""
    waits: list[float] = []
    started = time.perf_counter()
    end = started + SECONDS
    await asyncio.gather(*(client(port, requests, i, together, end, waits) for i in range(together)))
    return len(waits) / (time.perf_counter() - started), waits


def main() -> None:
    router = bundle("drift-arena-mf", lambda out: ROUTERS["mf"](battles("arena"), out, 0))
    lines = [
        f"`routelearn serve` with an mf router; arena prompts; {ROUNDS} rounds of {SECONDS:.0f} s each, client and "
        "service on the same two cores. Rates: median of the rounds (lowest to highest).",
        "",
        "| queries a request | requests at a time | requests/s | queries/s | p50, ms | p99, ms |",
        "|---|---|---|---|---|---|",
    ]
    with Server(router) as server:
        for size, together in CASES:
            requests = requests_of(size)
            asyncio.run(measure(server.port, requests[:200], together))  # warm
            rates, waits = [], []
            for _ in range(ROUNDS):
                rate, found = asyncio.run(measure(server.port, requests, together))
                rates.append(rate)
                waits += found
            p50, p99 = np.percentile(waits, [50, 99]) * 1000
            median = float(np.median(rates))
            say(f"{size} x {together}: {median:.0f} requests/s")
            lines.append(
                f"| {size} | {together} | {median:,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) "
                f"| {median * size:,.0f} | {p50:.2f} | {p99:.2f} |"
            )
    write_section("The HTTP service", "python benchmarks/serve.py", lines)


if __name__ == "__main__":
    main()
