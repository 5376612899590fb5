"""The Python blocks of docs/agents.md run, and print what the page says."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest

from routelearn.policies import AgentRules
from routelearn.policies.agent_lists import HOUSEKEEPING

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "agents.md").read_text()
FIRST, SECOND = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def printed(code: str) -> list[str]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    return out.getvalue().splitlines()


def test_the_request_of_an_agent_is_read_as_the_page_says(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bundle, tmp_path / "router")
    monkeypatch.chdir(tmp_path)
    turn, loop, query, model = printed(FIRST)
    said = re.findall(r"print\(.*?\)  # (.*)", FIRST)
    assert turn == said[0]
    assert loop == said[1].split(";")[0]
    assert query == said[2]
    assert model in {"sim-max", "sim-small"}


def test_the_lists_can_be_extended_as_the_page_says() -> None:
    assert printed(SECOND) == ["Fix the bug.", "label"]


def test_the_lists_of_the_page_are_those_of_the_rules() -> None:
    fields = set(AgentRules.__dataclass_fields__) - {"compiled"}
    assert [name for name in sorted(fields) if f"`{name}`" not in TEXT and f"{name}=" not in TEXT] == []
    assert "summary" in {name for name, _ in HOUSEKEEPING}
