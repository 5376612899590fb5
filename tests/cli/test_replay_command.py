"""`routelearn replay`: a table, the threshold for an aim, a report, clear errors."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from helpers.cli import run

from routelearn.data.sample import generate_sample

POOL = """[[models]]
name = "sim-max"
input_price = 3.0
cached_input_price = 0.3
output_price = 15.0
[[models]]
name = "sim-small"
input_price = 0.8
cached_input_price = 0.08
output_price = 4.0
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with conversations of three sample prompts each, and prices."""
    (tmp_path / "models.toml").write_text(POOL)
    prompts = [query for query in generate_sample(200, seed=1).queries if isinstance(query, str)][:90]
    rows = [
        {
            "session": number // 3,
            "prompt": prompt,
            "tokens": 4000 + 1000 * (number % 3),
            "sim-max": 1.0,
            "sim-small": float(number % 2),
        }
        for number, prompt in enumerate(prompts)
    ]
    (tmp_path / "sessions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path


def replayed(bundle: Path, files: Path, *more: object) -> subprocess.CompletedProcess[str]:
    data = ("--data", files / "sessions.jsonl", "--pool", files / "models.toml", "--bootstrap", 20)
    return run("replay", bundle, *data, "--models", "sim-max,sim-small", *more)


def test_it_compares_the_ways_to_choose_and_writes_a_report(bundle: Path, files: Path) -> None:
    done = replayed(bundle, files, "--max-quality-loss", 0.2, "-o", files / "report")
    assert done.returncode == 0, done.stderr
    for words in ("30 sessions, 90 requests", "always strong", "each prompt by itself", "take the threshold"):
        assert words in done.stdout
    assert "than single prompts at the same quality" in done.stdout
    report = json.loads((files / "report" / "replay.json").read_text())
    assert [row["name"] for row in report["results"]][-1] == "sessions"
    assert (files / "report" / "replay.html").is_file()
    again = replayed(bundle, files, "-o", files / "report")
    assert again.returncode != 0
    assert "replay.html" in again.stderr


def test_what_it_cannot_replay_is_named(bundle: Path, files: Path) -> None:
    both = replayed(bundle, files, "--max-quality-loss", 0.2, "--usd-per-session", 1)
    assert both.returncode == 2
    assert "expected one of them" in both.stderr
    poor = replayed(bundle, files, "--usd-per-session", 0)
    assert "what the cheapest costs" in poor.stderr
    (files / "models.toml").write_text(POOL.replace("output_price = 4.0", ""))
    unpriced = replayed(bundle, files)
    assert unpriced.returncode == 2
    assert "sim-small" in unpriced.stderr
