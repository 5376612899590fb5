"""A result of a tool counts as failed only where the tool failed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routelearn.policies import AgentRules, agent_turn_of
from routelearn.policies.agent_lists import FAILING


def failures(result: Any, name: str = "bash", arguments: Any = None, rules: AgentRules | None = None) -> int:
    """The failing steps of a chat with one tool call."""
    call = {"id": "1", "function": {"name": name, "arguments": json.dumps(arguments or {"command": "make"})}}
    messages = [
        {"role": "user", "content": "Go on."},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": result},
    ]
    return agent_turn_of({"messages": messages}, rules).failures


@pytest.mark.parametrize(
    "result",
    [
        "Error: ENOENT: no such file or directory",
        "Error executing read_file: File not found: /x",
        "ERROR: failed to build",
        "ValueError: invalid literal for int()",
        "Traceback (most recent call last):\n  File 'x.py', line 1",
        "Exit code 1\nmake: *** No rule",
        "Exit code: 127\nWall time: 0.1 seconds\nOutput:\nbash: foo: command not found",
        "Chunk ID: 12ab\nWall time: 0.2 seconds\nProcess exited with code 1\nOutput:\nx",
        "Command failed: npm test",
        "The command timed out after 120 s",
        "fatal: not a git repository",
        "bash: line 1: foo: command not found",
        "Failed to open the file",
        "<tool_use_error>InputValidationError: x</tool_use_error>",
        "The tool execution failed with the following error:\n<error>x</error>",
        "x\n[The command completed with exit code 2.]\n[Command finished with exit code 2]",
        "Command: make\nOutput: x\nError: (none)\nExit Code: 2\nSignal: (none)\nBackground PIDs: (none)",
        json.dumps({"error": "no such file"}),
        json.dumps({"success": False, "output": ""}),
        json.dumps({"output": "x", "metadata": {"exit_code": 1}}),
        json.dumps({"isError": True, "content": []}),
        [{"type": "text", "text": "Error: x"}],
    ],
)
def test_a_tool_that_failed_is_told(result: Any) -> None:
    assert failures(result) == 1


@pytest.mark.parametrize(
    "result",
    [
        "",
        "0 errors, 0 warnings",
        "x.py:12: raise ValueError('Error: x')",
        "12:Error: disk full",
        "    InputError: a price is below 0.",
        "Error: disk full\nError: disk full again",
        "Errors are documented in errors.md.",
        "Error rates fell: 0.02",
        "Exit code 0\nOK",
        "Chunk ID: 12ab\nWall time: 0.2 seconds\nProcess exited with code 0\nOutput:\nProcess exited with code 1",
        "[Command finished with exit code 0]",
        "The log says: Exit code 1",
        json.dumps({"error": None, "output": "x"}),
        json.dumps({"error": "none", "exit_code": 0}),
        json.dumps({"output": "Error: x", "metadata": {"exit_code": 0}}),
        json.dumps([{"error": "x"}]),
        "{broken",
        None,
    ],
)
def test_a_result_that_speaks_of_errors_is_no_failure(result: Any) -> None:
    assert failures(result) == 0


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Grep", {"pattern": "Error"}),
        ("search_files", {"regex": "Error"}),
        ("bash", {"command": "grep -h Error app.log"}),
        ("bash", {"command": "cd /src && rg -I Error"}),
        ("shell", {"command": ["bash", "-lc", "cat app.log"]}),
        ("run", "tail -n 1 app.log"),
    ],
)
def test_what_a_search_found_is_no_failure(name: str, arguments: Any) -> None:
    for found in ("Error: disk full", json.dumps({"error": "x"})):
        assert failures(found, name, arguments) == 0
        assert failures(found) == 1
    assert failures("Exit code 2\ngrep: app.log: No such file", name, arguments) == 1


def test_the_list_can_be_extended() -> None:
    assert failures("Oh no! The disk is full.") == 0
    assert failures("Oh no! The disk is full.", rules=AgentRules(failing=[*FAILING, "Oh no!"])) == 1
