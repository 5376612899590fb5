"""The tool calls and the results of tools in the messages of a request, in the form of every provider."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..routers.messages import ASSISTANT, TOOL, as_mapping, is_tool_result

#: Names of tools, and commands of a shell, whose results are what they found.
_SEARCHES = re.compile(r".*(?:grep|search|glob|find)", re.IGNORECASE)
_SEARCH_COMMANDS = re.compile(
    r"""[\[\s"'{]*(?:(?:bash|sh|zsh|-l?c|cmd|command|script)["'\s,:\[]+)*"""
    r"(?:cd [^&;]{0,200}&& *)?(?:e?grep|rg|ag|ack|cat|head|tail|less|sed -n|awk|find|ls|git (?:grep|log|show|diff))\b"
)
#: Where a model without tool calls writes one in its text: Cline and Roo Code; OpenHands.
_CALL_IN_TEXT = re.compile(r"<(?:function=[\w.-]+|[a-z]+(?:_[a-z]+)+)>")
#: The fields of a call of a Responses request that hold what is asked for.
_ARGUMENTS = ("arguments", "input", "args", "action", "operation", "queries", "query", "code")


class Call(NamedTuple):
    """A tool call: the name of the tool, its arguments as they stand there, and the id of the call."""

    name: str
    arguments: Any
    id: object = None

    def searches(self) -> bool:
        """Whether the result is what was found, or what a file holds."""
        if _SEARCHES.match(self.name[:100]):
            return True
        arguments = self.arguments
        if isinstance(arguments, Mapping):
            arguments = arguments.get("command", arguments.get("cmd"))
        if isinstance(arguments, (list, tuple)):
            arguments = " ".join(one for one in arguments if isinstance(one, str))
        return isinstance(arguments, str) and _SEARCH_COMMANDS.match(arguments[:400]) is not None


class Result(NamedTuple):
    """The result of a tool: the message, item, part or text that holds it, and the id of its call."""

    body: Any
    id: object = None


def steps_of_parts(parts: object) -> Iterator[Call | Result]:
    """The tool calls and results among the parts of a message: Anthropic, Gemini, Bedrock."""
    if not isinstance(parts, (list, tuple)):
        return
    for part in parts:
        known = part if type(part) is dict else as_mapping(part)
        if known is None:
            continue
        kind = known.get("type")
        if is_tool_result(known):
            inner = known.get("toolResult")
            body = inner if isinstance(inner, Mapping) else known
            yield Result(body, body.get("tool_use_id", body.get("toolUseId")))
        elif isinstance(kind, str) and kind.endswith("tool_use"):
            yield Call(_name(known.get("name")), known.get("input"), known.get("id"))
        elif kind is None or kind in ("functionCall", "functionResponse", "toolUse"):
            yield from _untyped(known)


def _untyped(part: Mapping[str, Any]) -> Iterator[Call | Result]:
    call = part.get("functionCall", part.get("function_call", part.get("toolUse")))
    if isinstance(call, Mapping):
        yield Call(_name(call.get("name")), call.get("args", call.get("input")), call.get("id", call.get("toolUseId")))
    reply = part.get("functionResponse", part.get("function_response"))
    if isinstance(reply, Mapping):
        yield Result(reply, reply.get("id"))


def steps_of(known: Mapping[str, Any]) -> list[Call | Result] | None:
    """The tool calls and results of an item that is no user's; None: it is of the system, or says nothing.

    Args:
        known: a message, or an item of a Responses request.
    """
    role = known.get("role", known.get("from"))
    kind = known.get("type")
    if role is None and isinstance(kind, str):
        if kind.endswith("_output"):
            return [Result(known, known.get("call_id"))]
        if kind.endswith("_call"):
            return _item_call(known, kind)
        role = "assistant" if kind == "reasoning" else kind
    if not isinstance(role, str):
        return None
    if role in TOOL:
        parts = list(steps_of_parts(known.get("parts", known.get("content"))))
        return parts or [Result(known, known.get("tool_call_id"))]
    if role not in ASSISTANT:
        return None
    return [*_openai_calls(known), *steps_of_parts(known.get("content")), *steps_of_parts(known.get("parts"))]


def _item_call(known: Mapping[str, Any], kind: str) -> list[Call | Result]:
    """The call of an item; with its result, where the provider made the call."""
    arguments = next((known[name] for name in _ARGUMENTS if known.get(name) is not None), None)
    call = Call(_name(known.get("name")) or kind, arguments, known.get("call_id", known.get("id")))
    if known.get("output") is None and known.get("error") is None:
        return [call]
    return [call, Result(known, call.id)]


def _openai_calls(known: Mapping[str, Any]) -> Iterator[Call]:
    calls = known.get("tool_calls")
    for call in calls if isinstance(calls, (list, tuple)) else ():
        one = call if type(call) is dict else as_mapping(call)
        if one is None:
            continue
        inner = as_mapping(one.get("function")) or as_mapping(one.get("custom")) or one
        arguments = inner.get("arguments", inner.get("input", inner.get("args")))
        yield Call(_name(inner.get("name")), arguments, one.get("id"))
    legacy = known.get("function_call")
    if isinstance(legacy, Mapping):
        yield Call(_name(legacy.get("name")), legacy.get("arguments"))


def call_in_text(known: Mapping[str, Any]) -> Call | None:
    """The call that a model wrote in its text, for a client that reads calls from texts; None: there is none."""
    content = known.get("content")
    if isinstance(content, (list, tuple)):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        content = "\n".join(text for text in texts if isinstance(text, str))
    found = _CALL_IN_TEXT.search(content) if isinstance(content, str) else None
    return None if found is None or not isinstance(content, str) else Call(found[0], content[found.start() :].strip())


def repeats_of(calls: Sequence[Call]) -> int:
    """How often the last calls were made in a row: one call, or a cycle of two or three; 0: there are no calls."""
    if not calls:
        return 0
    most = 1
    for period in (1, 2, 3):
        count = 1
        while (count + 1) * period <= len(calls) and all(
            _same(calls[-1 - back], calls[-1 - back - count * period]) for back in range(period)
        ):
            count += 1
        most = max(most, count)
    return most


def _same(one: Call, other: Call) -> bool:
    """Whether two calls ask the same tool for the same, whatever the order of the arguments."""
    if one.name != other.name:
        return False
    try:
        return bool(one.arguments == other.arguments) or bool(_value(one.arguments) == _value(other.arguments))
    except RecursionError:
        return False


def _value(arguments: Any) -> Any:
    """The arguments as values, where they are written as JSON."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _name(name: object) -> str:
    return name if isinstance(name, str) else ""
