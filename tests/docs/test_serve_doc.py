"""docs/serve.md: its commands answer, its endpoints are there, and its options exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers.serve import ADMIN, ROOT, Server

from routelearn.service.defaults import RequestLimits

TEXT = (ROOT / "docs" / "serve.md").read_text()
SHELL = "".join(re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = [shlex.split(command) for command in re.split(r"\n(?=\w)", SHELL)]
ENDPOINTS = list(dict.fromkeys(re.findall(r"`(GET|POST) (/\S*)`", TEXT)))
OPTIONS = sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)))


@pytest.mark.slow
def test_the_recipe_answers(bundle: Path) -> None:
    (options,) = [command[3:] for command in COMMANDS if command[:2] == ["routelearn", "serve"]]
    asked = [command for command in COMMANDS if command[0] == "curl"]
    paths = [command[2].removeprefix("localhost:8000") for command in asked]
    bodies = [json.loads(command[-1]) for command in asked]
    assert paths == ["/v1/route", "/v1/outcomes"]
    with Server(bundle, *options) as server:
        replies = [server.ask(path, body) for path, body in zip(paths, bodies, strict=True)]
        share = float(options[options.index("--strong-share") + 1])
        same = server.ask("/v1/route", {**bodies[0], "strong_share": share})[1]["decisions"][0]
    (status, reply), taken = replies
    assert (status, taken) == (200, (200, {"taken": 2, "unknown": 0}))
    (decision,) = reply["decisions"]
    assert decision["model"] in {"sim-max", "sim-small"}
    assert decision["threshold"] == same["threshold"]  # the option is what decided


@pytest.mark.slow
def test_every_endpoint_is_there(bundle: Path) -> None:
    assert len(ENDPOINTS) == 11
    with Server(bundle, ROUTELEARN_ADMIN_TOKEN=ADMIN, ROUTELEARN_TOKEN="a-token-for-users-of-it") as server:
        for method, path in ENDPOINTS:
            content = None if method == "GET" else {} if path == "/v1/outcomes" else {"queries": ["hi"]}
            status, _, _ = server.call(path, content, token=ADMIN, method=method)
            assert status == 200, (method, path)


def test_every_option_exists() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "routelearn", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert len(OPTIONS) > 10
    assert [option for option in OPTIONS if option not in done.stdout] == []


def test_the_limits_of_the_page_are_the_defaults() -> None:
    rows = re.findall(r"^\| `--([a-z-]+)` \| ([\d,]+) \|", TEXT, re.MULTILINE)
    told = {option.replace("-", "_"): float(value.replace(",", "")) for option, value in rows}
    defaults = {name.removesuffix("_s"): value for name, value in asdict(RequestLimits()).items()}
    assert told == defaults
