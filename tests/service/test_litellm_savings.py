"""What the hook counts in a real LiteLLM proxy, against what the upstreams themselves bill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from helpers.cli import run
from helpers.litellm_load import Metrics
from helpers.litellm_proxy import KEY, NEWEST, VERSIONS, Proxy, block
from helpers.openai_server import OpenAIServer
from helpers.serve import wait_for
from test_litellm_proxy import STRONG, WEAK, variables

from routelearn.data.sample import generate_sample
from routelearn.monitoring.log_rows import read_log

pytestmark = pytest.mark.slow

#: USD of a million tokens that are read, read from the cache, and written.
PRICES = {STRONG: (3.0, 0.3, 15.0), WEAK: (0.25, 0.025, 1.25)}
POOL = "".join(
    f'[[models]]\nname = "{name}"\ninput_price = {full}\ncached_input_price = {cached}\noutput_price = {output}\n'
    for name, (full, cached, output) in PRICES.items()
)
#: A gateway as in examples/litellm/own.py, whose cascade takes no answer of weak.
CASCADE = f"""
import os
from routelearn import FallbackRouter
from routelearn.cascade import Estimate
from routelearn.monitoring import DecisionLog, Savings
from routelearn.routers.pool_file import read_pool
from routelearn.service import Gateway, PostCallCascade, make_hook

class Never:
    async def estimate(self, query, answer, ask, prior=None):
        return Estimate(0.0)

gateway = Gateway(
    FallbackRouter(os.environ["ROUTELEARN_ROUTER"]),
    models={{"{STRONG}": "strong", "{WEAK}": "weak"}},
    savings=Savings(read_pool(os.environ["ROUTELEARN_POOL"])),
    log=DecisionLog(os.environ["ROUTELEARN_LOG"]),
)
hook = make_hook(gateway, cascade=PostCallCascade(gateway, Never(), 0.5))
"""


def said(name: str, words: int) -> Any:
    def answer(prompt: object) -> str:
        if f"FAIL {name}" in str(prompt):
            raise RuntimeError("asked to fail")
        return " ".join([name, *(f"word{number}" for number in range(words + len(str(prompt)) % 40))])

    return answer


@contextmanager
def upstreams() -> Iterator[tuple[OpenAIServer, OpenAIServer]]:
    with (
        OpenAIServer(said(STRONG, 170), prices=PRICES[STRONG]) as strong,
        OpenAIServer(said(WEAK, 100), prices=PRICES[WEAK]) as weak,
    ):
        yield strong, weak


def settings(folder: Path, strong: OpenAIServer, weak: OpenAIServer, **more: str) -> dict[str, str]:
    (folder / "models.toml").write_text(POOL)
    (folder / "config.yaml").write_text(block("yaml", "callbacks: [gateway.hook]\n"))
    return {
        **variables(strong, weak),  # type: ignore[arg-type]
        "STRONG_URL": strong.url,
        "WEAK_URL": weak.url,
        "ROUTELEARN_POOL": str(folder / "models.toml"),
        "ROUTELEARN_LOG": str(folder / "log.jsonl"),
        **more,
    }


def talk(client: openai.OpenAI, sessions: int, *, turns: int = 4, stream: bool = False) -> int:
    """Ask in sessions whose context grows beyond what is cached: the number of requests."""
    prompts = [query for query in generate_sample(sessions * turns, seed=3).queries if isinstance(query, str)]
    asked = 0
    for session in range(sessions):
        messages = [{"role": "system", "content": f"Session {session}. " + "context " * (400 + 200 * (session % 4))}]
        for turn in range(turns):
            prompt = prompts[(session * turns + turn) % len(prompts)]
            fails = f" FAIL {(STRONG, WEAK)[session % 2]}" if turn == 2 and session % 3 == 0 else ""
            messages.append({"role": "user", "content": f"{prompt}{fails} " + "detail " * 150})
            options: dict[str, Any] = {"metadata": {"session_id": f"s{session}"}}
            if stream and turn % 2:
                pieces = client.chat.completions.create(
                    model="auto",
                    messages=messages,  # type: ignore[arg-type]
                    stream=True,
                    stream_options={"include_usage": True},
                    **options,
                )
                text = "".join(one.choices[0].delta.content or "" for one in pieces if one.choices)
            else:
                reply = client.chat.completions.create(model="auto", messages=messages, **options)  # type: ignore[arg-type]
                text = str(reply.choices[0].message.content)
            asked += 1
            messages.append({"role": "assistant", "content": text})
    return asked


def logged(folder: Path) -> list[dict[str, Any]]:
    return [usage for row in read_log(folder / "log.jsonl") for usage in row.get("usage", ())]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_counted_equals_the_bills_of_the_upstreams_to_the_cent(version: str, tmp_path: Path) -> None:
    (tmp_path / "gateway.py").write_text(block("python", "routelearn.service.litellm import"))
    with upstreams() as (strong, weak):
        chosen = settings(tmp_path, strong, weak)
        with Proxy(version, tmp_path, chosen) as proxy:
            client = openai.OpenAI(base_url=proxy.url, api_key=KEY, max_retries=0, timeout=120)
            asked = talk(client, 12, stream=True)
            wait_for(lambda: len(logged(tmp_path)) == asked)
            metrics = Metrics(int(chosen["ROUTELEARN_METRICS_PORT"]))
            spent = metrics.total("routelearn_spent_usd_total")
    billed = strong.counts.usd + weak.counts.usd
    assert strong.counts.answered > 5 and weak.counts.answered > 5
    assert strong.counts.cached_tokens > 0 and weak.counts.cached_tokens > 0
    assert spent == pytest.approx(billed, abs=1e-9)
    found = json.loads(run("savings", tmp_path / "log.jsonl", "--models", tmp_path / "models.toml", "--json").stdout)
    assert found["savings"]["requests"] == asked
    assert found["savings"]["spent_usd"] == pytest.approx(billed, abs=1e-9)
    assert found["savings"]["unpriced"] == 0
    assert found["savings"]["cache_penalty_usd"] > 0
    usage = logged(tmp_path)
    assert sum(one.get("cached_tokens", 0) for one in usage) == strong.counts.cached_tokens + weak.counts.cached_tokens
    assert any(one["model"] != one["chosen"] for one in usage)  # a fallback answered


def test_both_calls_of_a_cascade_are_counted_and_compared_with_one(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(CASCADE)
    (tmp_path / "gateway.py").write_text("from own import hook\n")
    with upstreams() as (strong, weak):
        chosen = settings(tmp_path, strong, weak, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
        with Proxy(NEWEST, tmp_path, chosen) as proxy:
            client = openai.OpenAI(base_url=proxy.url, api_key=KEY, max_retries=0, timeout=120)
            asked = talk(client, 3, turns=2)
            answered = strong.counts.answered + weak.counts.answered
            wait_for(lambda: len(logged(tmp_path)) == answered)
    assert answered > asked
    found = json.loads(run("savings", tmp_path / "log.jsonl", "--models", tmp_path / "models.toml", "--json").stdout)
    assert (found["savings"]["requests"], found["savings"]["further"]) == (asked, answered - asked)
    assert found["savings"]["spent_usd"] == pytest.approx(strong.counts.usd + weak.counts.usd, abs=1e-9)


def test_in_shadow_mode_the_entry_of_the_trigger_serves_and_the_log_compares(tmp_path: Path) -> None:
    (tmp_path / "gateway.py").write_text(block("python", "routelearn.service.litellm import"))
    with upstreams() as (strong, weak):
        chosen = settings(tmp_path, strong, weak, ROUTELEARN_SHADOW="on")
        with Proxy(NEWEST, tmp_path, chosen) as proxy:
            client = openai.OpenAI(base_url=proxy.url, api_key=KEY, max_retries=0, timeout=120)
            asked = talk(client, 4, turns=2)
            wait_for(lambda: len(logged(tmp_path)) == asked)
    assert (strong.counts.answered, weak.counts.calls) == (asked, 0)
    found = json.loads(run("savings", tmp_path / "log.jsonl", "--models", tmp_path / "models.toml", "--json").stdout)
    assert found["savings"] is None
    everything = found["shadow"]["all"]
    assert (everything["requests"], everything["priced"]) == (asked, asked)
    assert everything["served_usd"] == pytest.approx(strong.counts.usd, abs=1e-9)
    assert everything["moved"] > 0 and everything["routed_usd"] < everything["served_usd"]
