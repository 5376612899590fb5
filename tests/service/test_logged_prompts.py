"""Logs of the service and of the LiteLLM plug-ins, from which `data from-log` makes records."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from helpers.cli import run

from routelearn import Decision
from routelearn.cli.serve import ServeOptions
from routelearn.data import LogOptions, read_request_logs
from routelearn.monitoring import DecisionLog, read_log
from routelearn.routers.errors import InputError
from routelearn.service.litellm.settings import Plugins
from routelearn.service.wire_names import LOG_SALT_VARIABLE

DECISION = Decision("big", 0.5, 0.5, ("big",), "learned", "threshold")


def written(log: DecisionLog | None) -> None:
    assert log is not None
    log.write_outcome(log.write("What is 2 plus 2?", DECISION), 1.0)
    log.close()


def test_the_service_logs_prompts_where_it_is_asked_to(tmp_path: Path) -> None:
    written(ServeOptions(decision_log=tmp_path / "a.jsonl").log())
    assert "2 plus 2" not in (tmp_path / "a.jsonl").read_text()
    written(ServeOptions(decision_log=tmp_path / "b.jsonl", log_prompts=True).log())
    assert [one.query for one in read_request_logs([tmp_path / "b.jsonl"]).records] == ["What is 2 plus 2?"]
    assert ServeOptions().log() is None
    with pytest.raises(InputError, match="--log-prompts was given without --decision-log FILE"):
        ServeOptions(log_prompts=True).log()


def test_the_salt_of_the_environment_joins_the_prompts_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG_SALT_VARIABLE, "pepper")
    written(ServeOptions(decision_log=tmp_path / "a.jsonl").log())
    (tmp_path / "prompts.txt").write_text("What is 2 plus 2?\n")
    found = read_request_logs([tmp_path / "a.jsonl"], LogOptions(prompts=tmp_path / "prompts.txt", salt="pepper"))
    assert [one.query for one in found.records] == ["What is 2 plus 2?"]
    command = ("data", "from-log", tmp_path / "a.jsonl", "-o", tmp_path / "r.jsonl", "--salt-env", LOG_SALT_VARIABLE)
    assert run(*command, "--prompts", tmp_path / "prompts.txt").returncode == 0
    assert json.loads((tmp_path / "r.jsonl").read_text())["prompt"] == "What is 2 plus 2?"


@pytest.mark.parametrize(("switch", "kept"), [("on", ["Hi"]), ("off", [None]), ("", [None])])
def test_the_plug_ins_log_prompts_where_the_environment_says_so(
    tmp_path: Path, switch: str, kept: list[str | None]
) -> None:
    log = tmp_path / "log.jsonl"
    names = {"STRONG": "big", "WEAK": "small", "LOG": str(log), "LOG_PROMPTS": switch, "LOG_SALT": "pepper"}
    gateway = Plugins({f"ROUTELEARN_{name}": value for name, value in names.items()}).gateway
    asyncio.run(gateway.select("Hi"))
    gateway.close()
    rows = list(read_log(log))
    assert [row.get("query") for row in rows] == kept
    assert rows[0]["query_hash"] == DecisionLog(tmp_path / "other.jsonl", salt="pepper").query_hash("Hi")
