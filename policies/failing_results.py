"""Tells whether the result of a tool says that the tool failed.

Careful on purpose: what a search finds, or a file holds, is no failure because it names errors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..routers.messages import as_mapping
from .agent_rules import CompiledRules

_FAILED = frozenset({"error", "failed", "failure", "incomplete", "timeout", "timed_out", "outcome_failed"})
_NO_ERROR = frozenset({"", "none", "(none)", "null", "false", "no"})
_EXIT_CODES = ("exit_code", "exitCode", "returncode", "return_code", "exit_status")
#: Fields of a result that hold what the tool gave.
_BODIES = ("content", "output", "response", "text", "toolResult", "functionResponse", "function_response")
#: Parts of a result that say how it ended.
_INNER = ("metadata", "outcome", "error_details")
#: Beginnings that only a failing tool has, whatever the tool.
_SURELY = re.compile(
    r"[\r\n]*(?:<tool_use_error>|The tool execution failed with the following error|Exit [Cc]ode:? [1-9]\d*\b"
    r"|<returncode>-?[1-9]\d*</returncode>|Command executed in terminal [^\n]*not successful"
    r"|(?:Chunk ID|Wall time):[^\n]*\n(?:(?!Output:)[^\n]*\n){0,5}?Process exited with code [1-9])"
)
#: Ends that only a failing command has: OpenHands, Gemini CLI.
_AT_THE_END = re.compile(
    r"\[(?:The command completed|Command finished) with exit code [1-9]\d*\.?\]"
    r"|\nExit Code: [1-9]\d*\n(?:Signal|Background PIDs|Process Group PGID): "
)
#: Beginnings where the user refused the call: the tool did not fail.
_REFUSED = re.compile(
    r"\s*(?:The user (?:doesn't want to|denied|rejected)|User rejected|\[Request interrupted by user)"
)
#: How much of the end is read, and the longest text that is read as JSON, in characters.
_END, _LONGEST_JSON = 600, 20_000
#: Results are not read deeper than this.
_DEEPEST = 4
#: Parts of a result that are read.
_PARTS = 8


def failed(result: object, rules: CompiledRules, *, searched: bool = False) -> bool:
    """Whether the result of a tool says that it failed.

    Args:
        result: a message, an item or a part with the result, or its text.
        rules: the rules.
        searched: the tool searched, or printed a file: its text may begin with an error that it found.
    """
    content = result.get("content") if isinstance(result, Mapping) else result
    if isinstance(content, (list, tuple)) and content and isinstance(content[0], Mapping):
        content = content[0].get("text")
    if isinstance(content, str) and _REFUSED.match(content):
        return False
    return _fails(result, rules, searched, 0)


def _fails(value: object, rules: CompiledRules, searched: bool, depth: int) -> bool:
    if isinstance(value, str):
        return _text_fails(value, rules, searched)
    known = as_mapping(value)
    inner: Sequence[Any] = ()
    if known is not None:
        if _says_so(known, weak=True):
            return True
        inner = [known[name] for name in _BODIES if known.get(name) is not None]
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        inner = value[:_PARTS]
    return depth < _DEEPEST and any(_fails(one, rules, searched, depth + 1) for one in inner)


def _says_so(known: Mapping[str, Any], *, weak: bool) -> bool:
    """Whether the fields of a result say that it failed.

    Args:
        known: the result.
        weak: count "error", "status" and "success" too, which files may hold as well.
    """
    if known.get("is_error") is True or known.get("isError") is True:
        return True
    codes = [known[name] for name in _EXIT_CODES if name in known]
    if codes:
        return any(isinstance(code, (int, float)) and not isinstance(code, bool) and code != 0 for code in codes)
    if weak:
        error, status = known.get("error"), known.get("status")
        if error and not (isinstance(error, str) and error.strip().lower() in _NO_ERROR):
            return True
        if isinstance(status, str) and status.lower() in _FAILED:
            return True
        if known.get("success") is False or known.get("ok") is False:
            return True
    inner = (known.get(name) for name in _INNER)
    return any(_says_so(one, weak=weak) for one in inner if isinstance(one, Mapping) and one is not known)


def _text_fails(text: str, rules: CompiledRules, searched: bool) -> bool:
    if _SURELY.match(text) or _AT_THE_END.search(text, max(0, len(text) - _END)):
        return True
    head = text[:2000].lstrip("\r\n")  # an indented line is a piece of a file
    if head.lstrip().startswith("{"):
        known = _parsed(text)
        return known is not None and _says_so(known, weak=not searched)
    if searched or rules.failing.match(head) is None:
        return False
    lines = [line for line in head.split("\n", 6)[:6] if line.strip()]
    # Several lines that all begin so are what was found, not what went wrong.
    return len(lines) < 2 or rules.failing.match(lines[1]) is None


def _parsed(text: str) -> Mapping[str, Any] | None:
    if len(text) > _LONGEST_JSON:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
