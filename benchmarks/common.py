"""What the benchmarks share: they read the data, cache results, and write sections of docs/results.md."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas

from routelearn.data.parser import ReadOptions
from routelearn.data.readers import read_records
from routelearn.data.records import Record, record_key
from routelearn.data.splits import find_leaks

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("ROUTELEARN_DATA") or ROOT / ".." / "shared" / "data").resolve()
OUT = ROOT / "benchmarks" / "out"
RESULTS = ROOT / "docs" / "results.md"
STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"

#: Names of other sources for models that the arena file knows under its own.
ALIASES = {
    "gpt4_1106_preview": "gpt-4-1106-preview",
    "Mixtral-8x7B-Instruct-v0.1": "mixtral-8x7b-instruct-v0.1",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "mixtral-8x7b-instruct-v0.1",
    "gpt4_0314": "gpt-4-0314",
    "Mistral-7B-Instruct-v0.2": "mistral-7b-instruct-v0.2",
    "OpenHermes-2.5-Mistral-7B": "openhermes-2.5-mistral-7b",
    "Qwen-14B-Chat": "qwen-14b-chat",
    "claude": "claude-1",
    "claude-2": "claude-2.0",
    "llama-2-7b-chat-hf": "llama-2-7b-chat",
    "llama-2-13b-chat-hf": "llama-2-13b-chat",
    "llama-2-70b-chat-hf": "llama-2-70b-chat",
    "vicuna-7b-v1.5": "vicuna-7b",
    "vicuna-13b-v1.5": "vicuna-13b",
    "vicuna-33b-v1.3": "vicuna-33b",
}


def routellm(name: str) -> list[Record]:
    """One of RouteLLM's evaluation sets, without the prompts that it drops as near copies of its training data."""
    source = DATA / "routellm_eval" / f"{name}.parquet"
    dropped = set(pandas.read_parquet(source).query("contaminated")["prompt"])
    options = ReadOptions(aliases=ALIASES)
    records = read_records(source, options).records
    return [record for record in records if _first_prompt(record) not in dropped]


def _first_prompt(record: Record) -> str:
    query = record.query
    return query if isinstance(query, str) else str(query[0].get("content"))


def without_leaks(training: list[Record], test: list[Record]) -> tuple[list[Record], int]:
    """Test records whose prompt is not a near copy of a training prompt, and how many prompts were dropped."""
    leaks = {leak.prompt for leak in find_leaks(training, test)}
    return [record for record in test if record_key(record) not in leaks], len(leaks)


def cached(name: str, compute: Callable[[], Any]) -> Any:
    """Plain data from benchmarks/out, or computed and stored there: a long benchmark can be stopped and resumed."""
    path = OUT / f"{name}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = compute()
        staging = path.with_suffix(".tmp")
        staging.write_text(json.dumps(content, indent=1) + "\n")
        staging.rename(path)
    return json.loads(path.read_text())


def bundle(name: str, train: Callable[[Path], Path]) -> Path:
    """A trained bundle from benchmarks/out, or trained and stored there."""
    path = OUT / "bundles" / name
    if not (path / "router.json").is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        train(path)
    return path


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def write_section(title: str, command: str, lines: list[str]) -> None:
    """Replace one section of docs/results.md, or add it; sections stay in the order they were first written."""
    start, end = f"<!-- {title} -->", f"<!-- end of {title} -->"
    text = RESULTS.read_text() if RESULTS.is_file() else ""
    section = "\n".join([start, f"## {title}", "", f"Written by `{command}`.", "", *lines, "", end])
    if start in text:
        text = text[: text.index(start)] + section + text[text.index(end) + len(end) :]
    else:
        text = text.rstrip() + "\n\n" + section + "\n"
    RESULTS.write_text(text)
    print(section)


def interval(values: tuple[float, float] | list[float]) -> str:
    """As text."""
    return f"{values[0]:.3f} to {values[1]:.3f}"
