"""What a message says: its role and its text, in the forms of the chat APIs.

OpenAI (chat, Responses), Anthropic (blocks, tool_result), Gemini (parts), Bedrock (toolResult), ShareGPT (from, value)
and pydantic objects of their client libraries are read alike. Results of tools are text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .errors import InputError

USER = frozenset({"user", "human"})
ASSISTANT = frozenset({"assistant", "gpt", "model", "ai"})
TOOL = frozenset({"tool", "function", "observation"})

#: What an assistant says without text; such a message may leave its content out.
_WORDLESS = ("tool_calls", "function_call", "audio", "refusal")
#: Items of a Responses request that say nothing to a model.
_SILENT = frozenset({"item_reference", "compaction", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response"})


class Turn(NamedTuple):
    """A message: its role, in lower case, and its text."""

    role: str
    text: str


def as_mapping(value: object) -> Mapping[str, Any] | None:
    """A message or a part as a mapping; None: it is something else. Pydantic objects count too."""
    if type(value) is dict or isinstance(value, Mapping):  # type() is the faster question
        return value
    dump = getattr(value, "model_dump", None)
    dumped = dump() if callable(dump) and not isinstance(value, type) else None
    return dumped if isinstance(dumped, Mapping) else None


def turn_of(message: object, number: int = 0) -> Turn:
    """The role and the text of a message.

    Args:
        message: a mapping, or a pydantic object.
        number: its place in the chat, for the error.

    Raises:
        InputError: it is not a message.
    """
    known = as_mapping(message)
    if known is None:
        raise InputError(
            f"message {number} of a chat is {type(message).__name__}; expected a mapping with 'role' and 'content'"
        )
    role = _role(known, number)
    content = known.get("content")
    if isinstance(content, str):
        return Turn(role, content)
    if role in USER and _holds_tool_results(known.get("parts") if content is None else content):
        role = "tool"
    return Turn(role, _text(known, role, number))


def content_text(content: object, *, nested: bool = False) -> str:
    """Take the text out of the content of one message: a string, None, or a list of multimodal parts.

    Parts with text and results of tools contribute their text; images, audio and files contribute nothing.

    Args:
        content: the content.
        nested: whether it stands in the result of a tool, in which no further result is read.

    Raises:
        InputError: the content is neither a string, nor None, nor a list of parts.
    """
    if isinstance(content, str):
        return content
    if content is None:  # an assistant message that only calls tools
        return ""
    whole = as_mapping(content)
    if whole is not None:
        parts = whole.get("parts")
        content = parts if isinstance(parts, Sequence) and not isinstance(parts, str) else [whole]
    if isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
        texts = [_part_text(part, nested) for part in content]
        return "\n".join(text for text in texts if text)
    raise InputError(f"message content is {type(content).__name__}; expected a string or a list of parts")


def _role(message: Mapping[str, Any], number: int) -> str:
    role = message.get("role")
    if role is None:
        role = message.get("from")
    if role is None:
        kind = message.get("type")
        if not isinstance(kind, str):
            return "user"
        if kind.endswith("_output"):  # an item of a Responses request, such as function_call_output
            return "tool"
        if kind.endswith("_call") or kind == "reasoning":
            return "assistant"
        if kind in _SILENT:
            return "system"
        role = kind if kind in USER | ASSISTANT | TOOL | {"system"} else "user"
    if not isinstance(role, str):
        raise InputError(f"message {number} of a chat has the role {role!r}; expected a text")
    return role.lower()


def _text(message: Mapping[str, Any], role: str, number: int) -> str:
    for field in ("content", "parts", "value", "output"):
        if field in message:
            return content_text(message[field])
    if role in ASSISTANT or any(field in message for field in _WORDLESS):
        return ""
    kind = message.get("type")
    if isinstance(kind, str) and (kind in _SILENT or kind.endswith("_output")):
        return ""
    raise InputError(f"message {number} of a chat has no content; expected a mapping with 'role' and 'content'")


def _holds_tool_results(content: object) -> bool:
    """Whether a user turn only brings results of tools: what Anthropic, Gemini and Bedrock have for the role tool."""
    if not isinstance(content, Sequence) or isinstance(content, (str, bytes, bytearray)) or not content:
        return False
    for part in content:
        known = as_mapping(part)
        if known is None or not (is_tool_result(known) or _reply_of(known) is not None):
            return False
    return True


def is_tool_result(part: Mapping[str, Any]) -> bool:
    """Whether a part is the result of a tool in Anthropic's form, of a server's tools as well, or in Bedrock's."""
    kind = part.get("type")
    return (isinstance(kind, str) and kind.endswith("tool_result")) or isinstance(part.get("toolResult"), Mapping)


def _reply_of(part: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The result of a tool in Gemini's form; None: the part is none."""
    reply = part.get("functionResponse", part.get("function_response"))
    return reply if isinstance(reply, Mapping) else None


def _part_text(part: object, nested: bool) -> str:
    if isinstance(part, str):
        return part
    known = as_mapping(part)
    if known is None:
        raise InputError(f"a message part is {type(part).__name__}; expected a mapping or a string")
    text = known.get("text", "")
    if text and isinstance(text, str):
        return text
    if is_tool_result(known):
        result = as_mapping(known.get("toolResult")) or known
        return "" if nested else content_text(result.get("content"), nested=True)
    reply = _reply_of(known)
    if reply is not None:
        return _reply_text(reply.get("response"))
    if isinstance(text, Mapping):
        text = text.get("value", "")
    return (text if isinstance(text, str) else "") or _output_text(known, nested)


def _output_text(part: Mapping[str, Any], nested: bool) -> str:
    """What a part of a tool's output says: that of a shell, of code that the provider ran, Bedrock's JSON."""
    said = [part.get("stdout"), part.get("stderr")]
    ran = part.get("codeExecutionResult")
    if isinstance(ran, Mapping):
        said.append(ran.get("output"))
    if nested and "json" in part:
        said.append(_reply_text(part["json"]))
    return "\n".join(text for text in said if isinstance(text, str) and text)


def _reply_text(reply: object) -> str:
    """The reply of a tool in a Gemini part: the text, its one text, or else the reply as JSON."""
    if isinstance(reply, str):
        return reply
    if isinstance(reply, Mapping) and len(reply) == 1:
        (value,) = reply.values()
        if isinstance(value, str):
            return value
    try:
        return "" if reply is None else json.dumps(reply, ensure_ascii=False, default=str)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the reply of a tool cannot be read ({error}); expected plain JSON") from error
