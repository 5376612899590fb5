"""Conversations replayed: costs with prompt caches, ways to choose, thresholds, files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.evaluation.session_replay.compare import (
    SESSIONS,
    calibrate_sessions,
    evaluate_session_log,
    evaluate_sessions,
)
from routelearn.evaluation.session_replay.read import read_sessions
from routelearn.evaluation.session_replay.read_log import read_logged_sessions
from routelearn.evaluation.session_replay.replay import replay_sessions
from routelearn.evaluation.session_replay.report import write_session_report
from routelearn.evaluation.session_replay.turns import SessionRequest
from routelearn.monitoring.decision_log import DecisionLog
from routelearn.monitoring.served_call import ServedCall
from routelearn.policies.prompt_cache import PromptCache
from routelearn.routers.base import Router
from routelearn.routers.decision import Floats, Model
from routelearn.routers.errors import DataError, InputError
from routelearn.routers.query import Query

STRONG = Model("strong", 3.0, 15.0, cached_input_price=0.3)
WEAK = Model("weak", 0.3, 1.5, cached_input_price=0.03)
MODELS = {"strong": STRONG, "weak": WEAK}


class Numbers(Router):
    """Reads the score of a query from its text."""

    def __init__(self) -> None:
        super().__init__([STRONG, WEAK], "strong", "weak", threshold=0.6)

    def quality(self, queries: Sequence[Query]) -> Floats:
        return np.array([[float(str(query)), 1 - float(str(query))] for query in queries], np.float32)


def conversations(count: int, seed: int = 0) -> dict[str, list[SessionRequest]]:
    """Sessions with a level of difficulty of their own, which the scores follow."""
    draw = np.random.default_rng(seed)
    sessions = {}
    for number in range(count):
        tokens, level, requests = int(draw.integers(1_000, 20_000)), draw.uniform(0.3, 0.9), []
        for _ in range(int(draw.integers(1, 15))):
            score = float(np.clip(level + draw.normal(0, 0.15), 0.01, 0.99))
            won = float(draw.random() < score)
            quality = {"strong": 1.0, "weak": 1.0 - won}
            requests.append(SessionRequest(query=f"{score:.4f}", tokens=tokens, quality=quality, pause_s=20))
            tokens += 500
        sessions[f"s{number}"] = requests
    return sessions


def test_a_model_that_stays_reads_from_its_cache_and_one_that_comes_back_reads_the_rest() -> None:
    requests = [
        SessionRequest(query="0.5", tokens=size, quality={"strong": 1, "weak": 0}) for size in (2048, 4096, 6144)
    ]
    path = iter(["strong", "weak", "strong"])
    found = replay_sessions({"s": requests}, lambda *_: next(path), MODELS, strong="strong")
    fresh = 2048 * 3 + 4096 * 0.3 + (6144 - 2048) * 3 + 2048 * 0.3 + 2 * 300 * 15 + 300 * 1.5
    assert found.usd[0] == pytest.approx(fresh / 1e6)
    assert (found.quality[0], found.strong[0], found.switches[0], found.cached_tokens[0]) == (2, 2, 2, 2048)


def test_a_cache_forgets_after_its_time_and_holds_nothing_of_a_short_or_a_shortened_text() -> None:
    cache = PromptCache(ttl_s=60)
    assert [cache.read("m", tokens, now) for tokens, now in ((1000, 0), (5000, 10), (6000, 20), (7000, 100))] == [
        0,
        0,
        4992,
        0,
    ]
    assert cache.read("m", 3000, 110) == 0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50_000), st.floats(0, 400)), max_size=30))
def test_a_cache_never_holds_more_than_was_read_nor_more_than_is_asked(steps: list[tuple[str, int, float]]) -> None:
    cache, now, most = PromptCache(), 0.0, 0
    for model, tokens, pause in steps:
        now += pause
        cached = cache.read(model, tokens, now)
        assert 0 <= cached <= min(tokens, most)
        assert cached == 0 or (cached % 128 == 0 and cached >= 1024)
        most = max(most, tokens)


def test_sessions_cost_less_than_single_prompts_at_the_same_quality() -> None:
    report = evaluate_sessions(Numbers(), conversations(150), [], bootstrap=100)
    assert [result.name for result in report.results] == [
        "always strong",
        "always weak",
        "each prompt by itself",
        "sessions",
    ]
    always, never, prompts, sessions = report.results
    assert never.usd < sessions.usd < prompts.usd < always.usd
    assert sessions.switches < prompts.switches
    assert 0.02 < report.saved_interval[0] < report.saved_share < report.saved_interval[1] < 0.5
    assert report.requests == sum(len(requests) for requests in conversations(150).values())


def test_the_same_seed_gives_the_same_report() -> None:
    reports = [evaluate_sessions(Numbers(), conversations(20), [], bootstrap=20, seed=3).as_dict() for _ in range(2)]
    assert reports[0] == reports[1]


def test_without_prompt_caches_sessions_and_single_prompts_cost_the_same() -> None:
    prices = [Model("strong", 3.0, 15.0), Model("weak", 0.3, 1.5)]
    report = evaluate_sessions(Numbers(), conversations(30), prices, bootstrap=20)
    assert report.results[2].usd == pytest.approx(report.results[3].usd)
    assert report.saved_share == pytest.approx(0, abs=1e-9)


def test_a_threshold_is_chosen_for_a_budget_or_for_a_loss() -> None:
    report = evaluate_sessions(Numbers(), conversations(60), [], bootstrap=10)
    rows = {threshold: (usd, quality) for threshold, usd, quality in report.curves[SESSIONS]}
    budget = (report.results[0].usd + report.results[1].usd) / 2
    usd, quality = rows[calibrate_sessions(report, usd_per_session=budget)]
    assert usd <= budget
    assert quality == max(one for cost, one in rows.values() if cost <= budget)
    usd, quality = rows[calibrate_sessions(report, max_quality_loss=0.1)]
    assert quality >= report.results[0].quality - 0.1
    assert usd == min(cost for cost, one in rows.values() if one >= report.results[0].quality - 0.1)
    for wrong in ({}, {"usd_per_session": 0.0}, {"usd_per_session": 1.0, "max_quality_loss": 0.1}):
        with pytest.raises(InputError):
            calibrate_sessions(report, **wrong)


def test_what_cannot_be_replayed_is_refused() -> None:
    with pytest.raises(InputError, match="there are no sessions"):
        evaluate_sessions(Numbers(), {}, [])
    half = {"s": [SessionRequest(query="0.5", tokens=10, quality={"strong": 1.0})]}
    with pytest.raises(InputError, match=r"request 0 of session 's' has no quality for \['weak'\]"):
        evaluate_sessions(Numbers(), half, [])
    with pytest.raises(InputError, match="tokens is -1"):
        SessionRequest(query="0.5", tokens=-1)


# ---- files


def test_wide_and_long_tables_hold_the_same_sessions(tmp_path: Path) -> None:
    wide = [
        {
            "session": "a",
            "turn": 2,
            "prompt": "0.7",
            "tokens": 900,
            "output_tokens": 50,
            "sim-max": 1.0,
            "sim-small": 0.0,
        },
        {
            "session": "a",
            "turn": 1,
            "prompt": "0.2",
            "tokens": 400,
            "output_tokens": 60,
            "sim-max": 1.0,
            "sim-small": 1.0,
        },
        {
            "session": "b",
            "turn": 1,
            "prompt": "0.2",
            "tokens": 300,
            "output_tokens": 70,
            "sim-max": 0.0,
            "sim-small": 0.0,
        },
    ]
    long = [
        {
            **{key: row[key] for key in ("session", "turn", "prompt", "tokens", "output_tokens")},
            "model": m,
            "score": row[m],
        }
        for row in wide
        for m in ("sim-max", "sim-small")
    ]
    pandas.DataFrame(wide).to_parquet(tmp_path / "wide.parquet")
    (tmp_path / "long.jsonl").write_text("\n".join(json.dumps(row) for row in long))
    sessions = read_sessions(tmp_path / "wide.parquet")
    assert sessions == read_sessions(tmp_path / "long.jsonl")
    assert [request.query for request in sessions["a"]] == ["0.2", "0.7"]
    assert sessions["a"][1].quality == {"sim-max": 1.0, "sim-small": 0.0}
    assert (sessions["a"][1].tokens, sessions["a"][1].output("sim-small")) == (900, 50)


def test_without_tokens_the_conversation_grows_by_its_prompts_and_answers(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    rows = [{"session": 1, "prompt": f"{'x' * 40}{turn}", "sim-max": 1, "sim-small": 0} for turn in range(3)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert [request.tokens for request in read_sessions(path)["1"]] == [11, 11 + 300 + 11, 2 * 311 + 11]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "sim-max": 1, "sim-small": 0}, "a column session"),
        ({"session": "", "prompt": "a", "sim-max": 1, "sim-small": 0}, "row 1"),
        ({"session": "a", "prompt": "a", "sim-max": 1, "sim-small": 0, "tokens": -3}, "column 'tokens'"),
        ({"session": "a", "prompt": "a", "sim-max": 7, "sim-small": 0}, "row 1"),
    ],
)
def test_a_bad_row_is_named(row: dict[str, object], said: str, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=said):
        read_sessions(tmp_path / "s.jsonl")


def test_a_decision_log_with_usage_is_replayed_with_the_qualities_that_the_router_expects(tmp_path: Path) -> None:
    log, router, now = DecisionLog(tmp_path / "log.jsonl"), Numbers(), [0.0]
    sessions = conversations(30)
    for name, requests in sessions.items():
        for request in requests:
            decision = router.route(request.query)
            key = log.write(request.query, decision)
            call = {"model": decision.model, "strong": "strong", "session": name, "time": now[0]}
            log.write_usage(key, ServedCall(**call, input_tokens=request.tokens, output_tokens=300))
    log.write("no usage", router.route("0.5"))
    log.close()
    found = read_logged_sessions(tmp_path / "log.jsonl", "strong", "weak")
    assert found.left_out == 1
    assert sorted(len(one) for one in found.sessions.values()) == sorted(map(len, sessions.values()))
    report = evaluate_session_log(router, tmp_path / "log.jsonl", [], bootstrap=10)
    told = evaluate_sessions(router, sessions, [], bootstrap=10)
    assert report.requests == told.requests
    # The same scores and tokens; pauses of no time instead of 20 seconds, which no cache forgets either.
    for one, other in zip(report.results, told.results, strict=True):
        assert one.usd == pytest.approx(other.usd, rel=0.02)
    with pytest.raises(InputError, match="none of its 0 decisions"):
        (tmp_path / "empty.jsonl").write_text("")
        evaluate_session_log(router, tmp_path / "empty.jsonl", [])


def test_the_report_is_one_page_with_a_picture(tmp_path: Path) -> None:
    report = evaluate_sessions(Numbers(), conversations(10), [], bootstrap=10)
    write_session_report(report, tmp_path / "out")
    html = (tmp_path / "out" / "replay.html").read_text()
    assert "<svg" in html and "than single prompts at the same quality" in html
    saved = json.loads((tmp_path / "out" / "replay.json").read_text())["saved_share"]
    assert math.isclose(saved, report.saved_share)
