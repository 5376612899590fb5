"""`routelearn savings`: what it says of a log of calls, and of a log of shadow mode."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import run

from routelearn.monitoring.decision_log import DecisionLog
from routelearn.monitoring.served_call import ServedCall
from routelearn.routers.decision import Decision

WEAK = Decision("small", 0.31, 0.5, ("small", "big"), "learned", "why")
STRONG = replace(WEAK, model="big", score=0.95, candidates=("big", "small"))
PRICES = """
[[models]]
name = "big"
input_price = 10.0
output_price = 30.0
cached_input_price = 1.0

[[models]]
name = "small"
input_price = 1.0
output_price = 3.0
"""


def call(model: str, **more: Any) -> ServedCall:
    fields = {"model": model, "strong": "big", "input_tokens": 1000, "output_tokens": 100, "time": 1.0}
    return ServedCall(**{**fields, **more})


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(PRICES)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    log = DecisionLog(path)
    for decision in (WEAK, WEAK, WEAK, STRONG):
        log.write_usage(log.write("text", decision), call(decision.model))
    log.close()
    return path


def test_the_first_sentence_says_what_was_saved(log: Path, prices: Path) -> None:
    done = run("savings", log, "--models", prices)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == (
        "4 requests cost 0.0169 USD; asking big for every one of them would have cost 0.0520 USD, so routing saved "
        "0.0351 USD (67.5%)."
    )
    assert "no interval: no model was drawn at random" in done.stdout
    assert "big is taken to write as much as small, because too few calls tell the lengths" in done.stdout
    assert next(line.split()[1:4] for line in done.stdout.splitlines() if "small" in line) == ["small", "│", "3"]


def test_routing_that_costs_more_says_so(log: Path, prices: Path) -> None:
    done = run("savings", log, "--models", prices, "--router-usd", 0.01)
    assert "so routing cost 0.0049 USD (9.4%) more." in done.stdout
    assert "the decisions themselves cost 0.0400 USD" in done.stdout


def test_json_holds_the_report(log: Path, prices: Path) -> None:
    found = json.loads(run("savings", log, "--models", prices, "--json").stdout)
    assert found["shadow"] is None
    assert found["savings"]["requests"] == 4
    assert found["savings"]["saved_usd"] == pytest.approx(0.0351)


def test_without_prices_calls_are_compared_with_nothing_and_the_option_is_named(log: Path) -> None:
    done = run("savings", log)
    assert "4 calls are compared with nothing" in done.stdout
    assert "--models names the prices" in done.stdout
    assert done.stdout.splitlines()[0] == (
        "4 requests, and none can be compared: expected prices of big, small in --models FILE"
    )


def test_the_first_sentence_leaves_out_calls_without_a_price(log: Path, prices: Path) -> None:
    prices.write_text(PRICES.replace('"small"', '"another"'))
    done = run("savings", log, "--models", prices)
    assert done.stdout.startswith("4 requests, less 3 calls without a price, cost 0.0130 USD; asking big for every one")


def test_a_log_without_usage_is_refused(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.jsonl")
    log.write("text", WEAK)
    log.close()
    done = run("savings", tmp_path / "log.jsonl")
    assert done.returncode == 2
    assert "1 decisions, and none says what its call used; expected lines of usage" in done.stderr


def test_a_log_of_shadow_mode_shows_what_would_have_been(tmp_path: Path, prices: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = DecisionLog(path)
    for number in range(10):
        name = log.write("text", WEAK if number < 8 else STRONG, served="big")
        log.write_usage(name, call("big", chosen="small" if number < 8 else "big"))
        log.write_outcome(name, float(number % 2))
    log.close()
    done = run("savings", path, "--models", prices)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == (
        "shadow mode: of 10 requests, 8 (80.0%) would have gone to another model than the one that served them; 10 of "
        "them cost 0.1300 USD as they were served, and would have cost 0.0364 USD."
    )
    found = json.loads(run("savings", path, "--models", prices, "--json").stdout)
    assert found["savings"] is None
    bands = found["shadow"]["by_score"]
    assert {name: band["moved"] for name, band in bands.items()} == {"0.3-0.4": 8, "0.9-1.0": 0}
    assert bands["0.3-0.4"]["mean_outcome"] == 0.5
    assert set(found["shadow"]["by_cause"]) == {"threshold"}
    bare = run("savings", path)
    assert "no USD: no request says what its call used, or no price is known" in bare.stdout
