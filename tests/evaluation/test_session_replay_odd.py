"""Replayed conversations of odd tables: several columns that could name the session, free requests, empty sessions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from test_session_replay import STRONG, WEAK, Numbers

from routelearn.evaluation.session_replay.compare import evaluate_sessions
from routelearn.evaluation.session_replay.read import read_sessions
from routelearn.evaluation.session_replay.turns import SessionRequest
from routelearn.routers.errors import InputError

ASKED = SessionRequest(query="0.5", tokens=2000, quality={"strong": 1.0, "weak": 0.5})


def test_a_column_session_goes_before_its_other_names(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(
        "session_id,session,prompt_tokens,tokens,prompt,model,score\n"
        + "".join(f"one,{name},7,900,0.5,{model},1\n" for name in "ab" for model in ("strong", "weak"))
    )
    sessions = read_sessions(table)
    assert sorted(sessions) == ["a", "b"]
    assert [request.tokens for request in sessions["a"]] == [900]


def test_requests_that_cost_nothing_save_nothing_and_the_report_is_json() -> None:
    free = SessionRequest(query="0.5", tokens=0, output_tokens=0, quality={"strong": 1.0, "weak": 0.5})
    report = evaluate_sessions(Numbers(), {"s": [free], "t": [free]}, [STRONG, WEAK], bootstrap=10)
    assert (report.saved_share, report.saved_interval) == (0, (0, 0))
    json.dumps(report.as_dict(), allow_nan=False)


def test_an_empty_session_is_refused_by_its_name() -> None:
    with pytest.raises(InputError, match="session 'b' has no requests"):
        evaluate_sessions(Numbers(), {"a": [ASKED], "b": []}, [STRONG, WEAK], bootstrap=10)


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.5, "good"])
def test_a_quality_out_of_its_range_is_refused_by_its_model(value: float) -> None:
    with pytest.raises(InputError, match=r"quality of 'weak' is .*; expected a number from 0 to 1"):
        SessionRequest(query="0.5", tokens=1, quality={"strong": 1.0, "weak": value})


def test_a_session_with_an_empty_name_is_a_session() -> None:
    turns = [
        SessionRequest(query=score, tokens=50_000 + number, quality=ASKED.quality)
        for number, score in enumerate(["0.9", "0.58", "0.62", "0.58"])
    ]
    found = {
        name: evaluate_sessions(Numbers(), {name: turns}, [STRONG, WEAK], bootstrap=5).results[-1].switches
        for name in ("", "named")
    }
    assert found[""] == found["named"]
