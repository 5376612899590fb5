"""docs/serve.md: its commands answer, its endpoints are there, and its options exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from serve_parts import ADMIN, ROOT, Server

TEXT = (ROOT / "docs" / "serve.md").read_text()
LINES = "".join(re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)).splitlines()
ENDPOINTS = list(dict.fromkeys(re.findall(r"`(GET|POST) (/\S*)`", TEXT)))
OPTIONS = sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)))


def test_the_recipe_answers(bundle: Path) -> None:
    _, *options = shlex.split(next(line for line in LINES if line.startswith("routelearn serve ")))[2:]
    asked = shlex.split(next(line for line in LINES if line.startswith("curl ")))
    body = json.loads(asked[asked.index("-d") + 1])
    path = next(word for word in asked if word.startswith("localhost:8000")).removeprefix("localhost:8000")
    with Server(bundle, *options) as server:
        status, found = server.ask(path, body)
        share = server.ask("/v1/route", {**body, "strong_share": float(options[options.index("--strong-share") + 1])})
    assert status == 200
    (decision,) = found["decisions"]
    assert decision["model"] in {"sim-max", "sim-small"}
    assert decision["threshold"] == share[1]["decisions"][0]["threshold"]  # the option is what decided


def test_every_endpoint_is_there(bundle: Path) -> None:
    assert len(ENDPOINTS) == 9
    with Server(bundle, ROUTELEARN_ADMIN_TOKEN=ADMIN, ROUTELEARN_TOKEN="a-token-for-users-of-it") as server:
        for method, path in ENDPOINTS:
            content = {"queries": ["hi"]} if method == "POST" else None
            status, _, _ = server.call(path, content, token=ADMIN, method=method)
            assert status == 200, (method, path)


def test_every_option_exists() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "routelearn.cli", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert len(OPTIONS) > 10
    assert [option for option in OPTIONS if option not in done.stdout] == []
