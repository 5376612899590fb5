"""A query: a prompt, or a chat; and the one place that turns it into text.

Nothing else in routelearn knows what a chat message, a multimodal part or a
truncation is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .errors import InputError

Message = Mapping[str, Any]
Query = str | Sequence[Message]

#: Longest text handed to a tokenizer, in characters per token of the budget. English has
#: 4 to 5; a token rarely spans more than 8, so the budget in tokens still binds first.
MAX_CHARACTERS_PER_TOKEN = 8
#: English has some four characters a token: the estimate where a model does not report its tokens.
CHARACTERS_PER_TOKEN = 4

_CONVERSATION_ROLES = frozenset({"user", "assistant", "tool", "function", "human", "gpt", "model"})
_SPACE = re.compile(r"\s+")


class QueryText(NamedTuple):
    """The text of a query, and whether any of the query was left out of it."""

    text: str
    truncated: bool


def content_text(content: object) -> str:
    """The text of one message's content: a string, None, or a list of multimodal parts.

    Parts that hold text keep it; images, audio and files contribute nothing.

    Raises:
        InputError: the content is of no known form.
    """
    if isinstance(content, str):
        return content
    if content is None:  # an assistant message that only calls tools
        return ""
    if isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
        parts: list[str] = []
        for part in content:
            if isinstance(part, str):
                parts.append(part)
            elif isinstance(part, Mapping):
                text = part.get("text", "")
                if isinstance(text, str):
                    parts.append(text)
            else:
                raise InputError(f"a message part is {type(part).__name__}; expected a mapping or a string")
        return "\n".join(part for part in parts if part)
    raise InputError(f"message content is {type(content).__name__}; expected a string or a list of parts")


def transcript(query: Query) -> str:
    """The query as one text: a prompt as it is, a chat as lines of ``role: content``, system messages too."""
    if isinstance(query, str):
        return query
    return "\n".join(f"{message.get('role', 'user')}: {content_text(message['content'])}" for message in query)


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text: its characters divided by `CHARACTERS_PER_TOKEN`, rounded up."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def turns(query: Query) -> list[str]:
    """The texts of a query's turns, oldest first; a plain prompt is one turn.

    System and developer messages are the same for every request of an
    application: they would shift every score alike and drown the question, so
    they count only when there is nothing else.

    Raises:
        InputError: the query is neither a string nor a list of messages.
    """
    if isinstance(query, str):
        return [query]
    if isinstance(query, (bytes, bytearray)) or not isinstance(query, Sequence):
        raise InputError(f"a query is {type(query).__name__}; expected a string or a list of messages")
    said: list[str] = []
    instructions: list[str] = []
    for number, message in enumerate(query):
        if not isinstance(message, Mapping) or "content" not in message:
            raise InputError(f"message {number} of a chat is no mapping with 'role' and 'content'")
        text = content_text(message["content"])
        (said if message.get("role", "user") in _CONVERSATION_ROLES else instructions).append(text)
    return [text for text in (said or instructions) if text]


def query_text(query: Query, max_characters: int, *, both_ends: bool = False) -> QueryText:
    """The text that a router reads, newest turn first, within a budget of characters.

    The whole conversation counts, so that a short follow-up ("yes", "do it")
    inherits what came before. Newest first means that the oldest turns are
    what a budget cuts. One turn that alone exceeds the budget keeps its start
    and its end (a question often closes a long document).

    Args:
        query: a prompt or a chat.
        max_characters: the budget.
        both_ends: for a router that reads the last tokens of a text too: turns stand oldest first, and a budget keeps
            how the chat opens and how it ends.

    Raises:
        InputError: the query is neither a string nor a list of messages.
    """
    if isinstance(query, str):  # the hot path of batch scoring
        if len(query) <= max_characters:
            return QueryText(query, False)
        return QueryText(_keep_ends(query, max_characters), True)
    if both_ends:
        text = "\n".join(turns(query))
        return (
            QueryText(text, False) if len(text) <= max_characters else QueryText(_keep_ends(text, max_characters), True)
        )
    newest_first = turns(query)[::-1]
    if newest_first and len(newest_first[0]) > max_characters:
        return QueryText(_keep_ends(newest_first[0], max_characters), True)
    text = "\n".join(newest_first)
    return QueryText(text[:max_characters], len(text) > max_characters)


def _keep_ends(text: str, max_characters: int) -> str:
    head = max_characters // 2
    tail = max_characters - head - 1
    return text[:head] + "\n" + text[len(text) - tail :]


def prompt_key(query: Query) -> str:
    """A normal form of the query for grouping and leak checks: case and white space folded."""
    return _SPACE.sub(" ", "\n".join(turns(query))).strip().casefold()


def parse_messages(value: object) -> Query:
    """A chat out of a cell of a data file: a list of messages, or such a list as JSON.

    Raises:
        InputError: the value is neither.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON ({error})") from error
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InputError("not a list of messages")
    messages = tuple(value)
    turns(messages)
    return messages
