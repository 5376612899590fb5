"""Runs `routelearn collect` against local models, kills it at random moments, and counts what was paid twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.flaky_models import FlakyModels

#: Prices of the models: USD per million tokens in, from the cache, and out.
PRICES = {"large": (5.0, 0.5, 15.0), "middle": (1.0, 0.25, 4.0), "small": (0.1, 0.1, 0.4)}
CONCURRENCY = 16


def write_models(path: Path, url: str, **more: Any) -> Path:
    """Write models.toml for the local models."""
    entries = []
    for name, (read, cached, written) in PRICES.items():
        fields = {
            "name": name,
            "base_url": url,
            "api_key_env": "",
            "input_price": read,
            "cached_input_price": cached,
            "output_price": written,
            "concurrency": CONCURRENCY,
            **more,
        }
        entries.append("[[models]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in fields.items()))
    path.write_text("\n\n".join(entries) + "\n")
    return path


def write_prompts(path: Path, count: int, seed: int = 0) -> list[str]:
    """Write so many made-up prompts of different lengths."""
    chance = random.Random(seed)
    words = ["sum", "list", "proof", "river", "tax", "rhyme", "train", "cell", "verb", "graph"]
    prompts = [f"{number}: " + " ".join(chance.choices(words, k=chance.randint(3, 60))) for number in range(count)]
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return prompts


@dataclass(frozen=True, kw_only=True)
class Killed:
    """What a job that was killed again and again paid.

    Attributes:
        kills: number of kills.
        answered: replies by the servers' own count.
        rows: answers in the table.
        usd: sum of the costs in the table.
        bill: sum of the servers' bills for one reply to each question.
        seconds: how long it all took.
        messages: what the last run said.
    """

    kills: int
    answered: int
    rows: int
    usd: float
    bill: float
    seconds: float
    messages: str


def collect_with_kills(folder: Path, server: FlakyModels, prompts: int, kills: int, seed: int = 0) -> Killed:
    """Collect the answers of three models while SIGKILL ends the command at random moments."""
    names = write_prompts(folder / "prompts.jsonl", prompts, seed)
    models = write_models(folder / "models.toml", server.url, timeout_s=5.0)
    out = folder / "answers.jsonl"
    command = [sys.executable, "-m", "routelearn", "collect", str(folder / "prompts.jsonl")]
    command += ["--models", str(models), "--out", str(out)]
    chance = random.Random(seed)
    started = time.monotonic()
    done = 0
    total = prompts * len(PRICES)
    while done < kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = sum(server.answered.values())
        # A moment somewhere in the next part of the job, so that all kills come before it ends.
        step = chance.random() * (total - before) / (kills - done + 1)
        while process.poll() is None and sum(server.answered.values()) < before + 1 + step:
            time.sleep(0.002)
        assert process.poll() is None, "the job ended before it was killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done += 1
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({(row["prompt"], row["model"]) for row in rows}) == len(rows)
    bill = 0.0
    for name in PRICES:
        for prompt in names:
            text = server.answer(prompt)
            assert isinstance(text, str)
            bill += price(name, server.tokens(name, prompt, text))
    return Killed(
        kills=kills,
        answered=sum(server.answered.values()),
        rows=len(rows),
        usd=sum(row["cost_usd"] for row in rows),
        bill=bill,
        seconds=time.monotonic() - started,
        messages=last.stderr,
    )


def price(model: str, usage: dict[str, Any]) -> float:
    """USD of a call, as a service counts."""
    read, cached, written = PRICES[model]
    hit = usage["prompt_tokens_details"]["cached_tokens"]
    return ((usage["prompt_tokens"] - hit) * read + hit * cached + usage["completion_tokens"] * written) / 1e6
