"""What a logged request asked, and what its response answered.

The query is what a router knew when it decided: the messages of the request up to the last user turn, and never the
response.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..routers.errors import InputError
from ..routers.messages import ASSISTANT, USER, as_mapping, content_text, turn_of
from ..routers.query import REQUEST_FIELDS, Query, parse_query, split_answer, turns

#: What LiteLLM writes in place of a text that it must not log, and into a text that it cut for its database.
REDACTED, CUT = "redacted-by-litellm", "(litellm_truncated skipped "
#: The fields of a message that say something to models; others, such as the metadata of a router, are left out.
_FIELDS: tuple[str, ...] = ("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal")
#: The same in the other chat APIs.
_FIELDS += ("type", "parts", "from", "value", "output", "call_id", "arguments")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
#: A request without any of these was logged without its texts.
_ASKED = frozenset({*REQUEST_FIELDS, "role", "content"})


def logged_query(request: object) -> Query | None:
    """The query of a request.

    Args:
        request: a request of a chat API, its messages, a text, or the JSON text of one of these.

    Returns:
        The query; None: the log has no text of it, because the texts were redacted, cut or not logged.

    Raises:
        InputError: this is no request.
    """
    value = as_json(request)
    if value in (None, "", {}, []) or (isinstance(value, Mapping) and not _ASKED & value.keys()):
        return None
    query = parse_query(value)
    if isinstance(query, str):
        return query if query and not _hidden(query) else None
    asked = list(split_answer(query)[0])
    while asked and turn_of(asked[-1]).role in ASSISTANT:  # a chat without a user turn ends with an answer
        asked.pop()
    texts = turns(asked)
    if not texts or any(map(_hidden, texts)):
        return None
    return _written(tuple(_plain(message) for message in asked))


def logged_answer(response: object) -> str | None:
    """The text of a response: of a chat, a completion, the Responses API, a batch, or the chunks of a stream.

    None: the log has no text of it. A form that is not known is none either, because records need no response.
    """
    value = as_json(response)
    if isinstance(value, str):
        text = _joined(_events(value)) if value.lstrip().startswith("data:") else value
    elif isinstance(value, Sequence):
        text = _joined(value)
    elif isinstance(value, Mapping):
        text = logged_answer(value["body"]) if "body" in value else _of_body(value)
    else:
        text = None
    return text if text and not _hidden(text) else None


def is_chunk(response: object) -> bool:
    """Whether a response is one chunk of a stream."""
    return isinstance(response, Mapping) and str(response.get("object")).endswith(".chunk")


def as_json(value: object) -> object:
    """The value that a text holds as JSON, with U+FFFD for half a character; any other value as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in {"{", "["}:
        return value
    try:
        found = json.loads(value)
        if not _HALF.search(value):
            return found
        text = json.dumps(found, ensure_ascii=False).encode("utf-16", "surrogatepass")
        return json.loads(text.decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        return value


def _of_body(body: Mapping[str, Any]) -> str | None:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        first = choices[0]
        message = first.get("message") or first.get("delta")
        return _text(message.get("content")) if isinstance(message, Mapping) else _text(first.get("text"))
    output = body.get("output")
    if isinstance(output, list):  # of the Responses API
        said = [item for item in output if isinstance(item, Mapping) and item.get("type") in (None, "message")]
        return "\n".join(filter(None, (_text(item.get("content")) for item in said))) or None
    return _text(body.get("content"))  # of Anthropic's API


def _joined(chunks: Iterable[object]) -> str | None:
    return "".join(text for chunk in chunks if isinstance(chunk, Mapping) and (text := _of_body(chunk))) or None


def _events(text: str) -> list[object]:
    """The chunks of a stream as it went over the wire."""
    lines = [line.strip().removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    return [as_json(line) for line in lines]


def _text(content: object) -> str | None:
    try:
        return content_text(content) or None
    except (InputError, RecursionError):
        return None


def _written(chat: tuple[dict[str, Any], ...]) -> Query:
    """The chat as records hold it: one turn of a user is a text."""
    if len(chat) == 1 and chat[0].get("role") in USER and isinstance(chat[0].get("content"), str):
        return str(chat[0]["content"])
    try:
        json.dumps(chat)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the messages cannot be written as JSON ({error}); expected plain messages") from error
    return chat


def _plain(message: object) -> dict[str, Any]:
    known = as_mapping(message) or {}
    return {field: known[field] for field in _FIELDS if field in known}


def _hidden(text: str) -> bool:
    return text == REDACTED or CUT in text
