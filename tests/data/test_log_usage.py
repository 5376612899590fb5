"""Decision logs that hold what calls used, or of shadow mode, as records and for other policies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from routelearn.data.log_records import read_request_logs
from routelearn.monitoring.decision_log import DecisionLog
from routelearn.monitoring.log_rows import read_log
from routelearn.monitoring.off_policy import off_policy_value
from routelearn.monitoring.served_call import ServedCall
from routelearn.routers.decision import Decision
from routelearn.routers.errors import InputError

WEAK = Decision("small", 0.3, 0.5, ("small", "big"), "learned", "why", propensity=0.9)
CALL = ServedCall(model="small", strong="big", input_tokens=9, output_tokens=3, time=1.0)


def test_lines_of_usage_are_no_requests_and_no_broken_lines(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.jsonl", keep_prompts=True)
    name = log.write("Say hello.", WEAK)
    log.write_usage(name, CALL)
    log.write_outcome(name, 1.0)
    log.close()
    found = read_request_logs([str(tmp_path / "log.jsonl")])
    assert [(record.model, record.score) for record in found.records] == [("small", 1.0)]
    assert found.counts.broken == 0
    assert found.counts.other["what a call used"] == 1


def test_an_outcome_of_shadow_mode_is_of_the_model_that_served(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.jsonl", keep_prompts=True)
    log.write_outcome(log.write("Say hello.", WEAK, served="big"), 0.0)
    log.close()
    (record,) = read_request_logs([str(tmp_path / "log.jsonl")]).records
    assert (record.model, record.score, record.weight) == ("big", 0.0, 1.0)
    rows = list(read_log(tmp_path / "log.jsonl"))
    with pytest.raises(InputError, match="no row has an outcome"):
        off_policy_value(rows, lambda row: "small")
    log.write_outcome(log.write("Say hello again.", replace(WEAK, propensity=1.0)), 1.0)
    log.close()
    assert off_policy_value(read_log(tmp_path / "log.jsonl"), lambda row: "small").rows == 1
