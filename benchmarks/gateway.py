"""A LiteLLM proxy with routelearn in it: a strong upstream that dies under load, and what routing costs.

Run: python benchmarks/gateway.py [REQUESTS]

The proxies are real (tests/helpers/litellm_proxy.py makes their environments), and the upstreams are separate
processes. The OpenAI client runs on the same machine, so that client and upstreams take a share of its cores. The
prompts are human arena prompts from $ROUTELEARN_DATA, and the router is the one that benchmarks/drift.py trains;
without that data the benchmark takes prompts of the sample and a bundle of the tests.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from common import DATA, ROOT, STRONG, WEAK, bundle, say, write_section
from routellm_tables import ROUTERS, battles

from routelearn.data.sample import generate_sample

sys.path.insert(0, str(ROOT / "tests"))
from helpers.litellm_load import Metrics, Reply, load, outages
from helpers.litellm_proxy import KEY, NEWEST, OLDER, Proxy, Upstream, free_port, upstreams

COMMAND = "python benchmarks/gateway.py"
CONCURRENCY = 200
ROUNDS = 8
ALONE, TOGETHER = 60, 400  # requests a round: one after the other, and 50 at a time
EXAMPLES = ROOT / "examples" / "litellm"


@dataclass(frozen=True)
class Work:
    """The router, its two models, and what it is asked."""

    name: str
    bundle: Path
    strong: str
    weak: str
    prompts: list[str]


def work() -> Work:
    if DATA.is_dir():
        arena = bundle("drift-arena-mf", lambda out: ROUTERS["mf"](battles("arena"), out, 0))
        asked = pandas.read_parquet(DATA / "arena_human" / "arena_pairs.parquet")["prompt"]
        texts = [text for text in dict.fromkeys(asked) if isinstance(text, str) and 0 < len(text) <= 8000]
        order = np.random.default_rng(0).permutation(len(texts))
        return Work("an mf router of arena battles, arena prompts", arena, STRONG, WEAK, [texts[i] for i in order])
    texts = [query for query in generate_sample(800, seed=3).queries if isinstance(query, str)]
    of_tests = ROOT / "tests" / "bundles" / "version-1"
    return Work("a bundle of the tests, sample prompts", of_tests, "sim-max", "sim-small", texts)


@contextmanager
def proxy(
    version: str, job: Work, pair: list[Upstream], gateway: str | None = None, callbacks: bool = True, **more: str
) -> Iterator[tuple[Proxy, Metrics]]:
    """The recipe of docs/litellm.md; with another gateway.py, or without callbacks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = (EXAMPLES / "config.yaml").read_text()
        (folder / "config.yaml").write_text(config if callbacks else config.replace("[gateway.hook]", "[]"))
        (folder / "gateway.py").write_text(gateway or (EXAMPLES / "gateway.py").read_text())
        port = free_port()
        variables = {
            "ROUTELEARN_ROUTER": str(job.bundle),
            "ROUTELEARN_STRONG": job.strong,
            "ROUTELEARN_WEAK": job.weak,
            "ROUTELEARN_MODELS": f"{job.strong}=strong,{job.weak}=weak",
            "ROUTELEARN_METRICS_PORT": str(port),
            "ROUTELEARN_RESET_TIMEOUT_S": "1",
            "STRONG_KEY": "none",
            "WEAK_KEY": "none",
            "LITELLM_MASTER_KEY": KEY,
            **{
                f"{role}_URL": f"http://127.0.0.1:{up.port}/v1"
                for role, up in zip(("STRONG", "WEAK"), pair, strict=True)
            },
            **more,
        }
        with Proxy(version, folder, variables) as running:
            yield running, Metrics(port)


def outage(version: str, job: Work, requests: int) -> str:
    """One row: 200 clients at a time while the strong upstream is killed and started again twice."""
    with upstreams(job.strong, job.weak, delay_s=0.05) as pair, proxy(version, job, pair) as (running, metrics):
        asked = [job.prompts[number % len(job.prompts)] for number in range(requests)]
        started = time.perf_counter()
        replies = asyncio.run(load(running.url, "auto", asked, CONCURRENCY, outages(pair[0], requests)))
        seconds = time.perf_counter() - started
        time.sleep(2)  # a breaker that opened last is probed
        asyncio.run(load(running.url, "auto", asked[:40], 1))
        failed = [reply.error for reply in replies if reply.error]
        for error, count in Counter(failed).most_common(3):
            say(f"{version}: {count} x {error}")
        opened, closed = (
            metrics.total(f"routelearn_breaker_{what}_total", model=job.strong) for what in ("opened", "closed")
        )
        counts = [f"{metrics.answered(up.name):,.0f} = {up.answered:,}" for up in pair]
        shut = metrics.total("routelearn_breaker_state", model=job.strong, state="closed") == 1
        waits = percentiles([reply.seconds for reply in replies])
        lost = metrics.total("routelearn_model_failures_total", model=job.strong)
        return (
            f"| {version} | {requests:,} | {len(failed)} | {lost:,.0f} | {opened:.0f}, {closed:.0f}"
            f"{'' if shut else ' (open)'} | "
            f"{counts[0]} | {counts[1]} | {requests / seconds:.0f} | {waits[0]:.2f}, {waits[1]:.2f} |"
        )


def percentiles(seconds: list[float]) -> tuple[float, float, float]:
    p50, p99, most = np.percentile(seconds, [50, 99, 100])
    return float(p50), float(p99), float(most)


def cost(job: Work) -> list[str]:
    """The same requests to a proxy with the hook and to one without, in turns."""
    found: dict[tuple[str, str], list[list[Reply]]] = {}
    rates: dict[str, list[float]] = {"with": [], "without": []}
    with (
        upstreams(job.strong, job.weak) as pair,
        proxy(NEWEST, job, pair) as (having, _),
        proxy(NEWEST, job, pair, callbacks=False) as (lacking, _),
    ):
        for turn in range(ROUNDS + 1):
            say(f"cost: round {turn} of {ROUNDS}")
            for way, running, model in (("with", having, "auto"), ("without", lacking, "weak")):
                start = turn * TOGETHER % max(1, len(job.prompts) - TOGETHER)
                alone = asyncio.run(load(running.url, model, job.prompts[start : start + ALONE], 1))
                begun = time.perf_counter()
                together = asyncio.run(load(running.url, model, job.prompts[start : start + TOGETHER], 50))
                rate = len(together) / (time.perf_counter() - begun)
                if turn:  # the first round warms up
                    found.setdefault((way, "one at a time"), []).append(alone)
                    found.setdefault((way, "50 at a time"), []).append(together)
                    rates[way].append(rate)
    lines = ["| clients | | p50 ms | p99 ms |", "|---|---|---|---|"]
    for clients in ("one at a time", "50 at a time"):
        both = {
            way: [
                1000 * value for value in percentiles([reply.seconds for turn in found[way, clients] for reply in turn])
            ]
            for way in ("with", "without")
        }
        for way, values in both.items():
            lines.append(f"| {clients} | {way} | {values[0]:.1f} | {values[1]:.1f} |")
        more = [
            f"{both['with'][i] - both['without'][i]:+.1f} ({both['with'][i] / both['without'][i]:.2f} times)"
            for i in (0, 1)
        ]
        lines.append(f"| {clients} | **difference** | {more[0]} | {more[1]} |")
    ratios = sorted(a / b for a, b in zip(rates["with"], rates["without"], strict=True))
    lines += [
        "",
        f"Requests a second, 50 at a time: with / without {np.median(ratios):.2f} in the median of {len(ratios)} "
        "rounds "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}); {np.median(rates['with']):.0f} with.",
    ]
    return lines


def blocking(job: Work, requests: int) -> list[str]:
    """The event loop of the proxy under load, with the hook and with a callback that does nothing."""
    probe = (ROOT / "benchmarks" / "gateway_probe.py").read_text()
    read: dict[str, dict[str, Any]] = {}
    for way in ("with", "without"):
        with upstreams(job.strong, job.weak) as pair, proxy(
            NEWEST, job, pair, gateway=probe, PROBE_HOOK="none" if way == "without" else "ours"
        ) as (running, _):  # fmt: skip
            model = "auto" if way == "with" else "weak"
            asyncio.run(load(running.url, model, job.prompts[:200], 50))
            ask_probe(running)  # the first requests, when LiteLLM still imports and compiles
            asked = [job.prompts[number % len(job.prompts)] for number in range(requests)]
            asyncio.run(load(running.url, model, asked, CONCURRENCY))
            read[way] = ask_probe(running)
    lines = ["| | how often | p50 ms | p99 ms | most ms | over 5 ms |", "|---|---|---|---|---|---|"]
    rows = [
        ("a timer of the loop comes late, without the hook", read["without"]["late"]),
        ("the same with the hook", read["with"]["late"]),
        ("steps of the hook on the loop, by the clock", read["with"]["steps"]),
        ("the same, CPU time of the loop's thread without Python's garbage collections", read["with"]["cpu_steps"]),
        ("hook called until the model is chosen (the loop is free meanwhile)", read["with"]["choices"]),
    ]
    for name, values in rows:
        millis = [1000 * value for value in values]
        p50, p99, most = percentiles(millis)
        lines.append(
            f"| {name} | {len(millis):,} | {p50:.3f} | {p99:.2f} | {most:.1f} | {sum(v > 5 for v in millis):,} |"
        )
    return lines


def ask_probe(running: Proxy) -> dict[str, Any]:
    path = running.folder / "probe.json"
    path.unlink(missing_ok=True)
    os.kill(running.process.pid, signal.SIGUSR1)
    while not path.is_file():
        time.sleep(0.05)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    job = work()
    say(job.name)
    rows = [outage(version, job, requests) for version in (NEWEST, OLDER)]
    for row in rows:
        say(row)
    costs = cost(job)
    blocked = blocking(job, max(400, requests // 2))
    lines = [
        f"LiteLLM proxy, one process; {job.name}; {os.cpu_count()} cores for proxy, upstreams and clients together.",
        "",
        f"{CONCURRENCY} clients at a time; the strong upstream is killed at 15 and 55 % of the requests and started at "
        "35 and 75 %. Answered calls: by our /metrics = by the upstream's own count.",
        "",
        "| LiteLLM | requests | failed | calls of strong that failed | its breaker opened, closed "
        "| answered by strong | answered by weak | requests/s | client's p50, p99 s |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"What the hook costs, LiteLLM {NEWEST}; upstreams that answer at once; without: no callbacks, the client "
        "names the model.",
        "",
        *costs,
        "",
        f"The proxy's event loop, {CONCURRENCY} clients at a time. The first two rows include the delays that "
        "LiteLLM itself causes.",
        "",
        *blocked,
    ]
    write_section("LiteLLM proxy", COMMAND, lines)


if __name__ == "__main__":
    main()
