"""A query is a prompt or a chat. This file alone knows how a chat becomes the text that a router reads."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from .errors import InputError
from .messages import ASSISTANT, TOOL, USER, as_mapping, turn_of

logger = logging.getLogger(__name__)

Message = Mapping[str, Any]
#: What is routed: a prompt, or a chat as a list of messages such as {"role": "user", "content": "..."}.
Query = str | Sequence[Message]

#: The longest text that a tokenizer gets, in characters per token of the budget. A token rarely spans more than 8
#: characters (English has 4 to 5), so the token budget is reached before this limit.
MAX_CHARACTERS_PER_TOKEN = 8
#: Characters per token (English text): for estimates when a model does not report its tokens.
CHARACTERS_PER_TOKEN = 4

_CONVERSATION_ROLES = USER | ASSISTANT | TOOL
#: Roles that are read as they are.
_PLAIN_ROLES = _CONVERSATION_ROLES | {"system", "developer"}
_SPACE = re.compile(r"\s+")
#: Where requests of the chat APIs hold their query.
REQUEST_FIELDS = ("messages", "contents", "input", "prompt")
#: A mapping with one of these is a message.
_MESSAGE_FIELDS = frozenset({"role", "content", "parts", "from"})


def query_list(queries: object) -> Sequence[Query]:
    """The queries of a batch as a list: a list or a tuple as it is, the values of a column (pandas, numpy, pyarrow).

    Raises:
        InputError: this is no batch of queries; the message says what to write.
    """
    if isinstance(queries, (list, tuple)):
        return queries
    if isinstance(queries, (str, bytes)):
        raise InputError(f"queries is the text {queries[:40]!r}; expected a list of queries: [{queries[:40]!r}]")
    if isinstance(queries, Mapping):
        raise InputError("queries is a mapping; expected a list of queries; a chat is a list of messages: [messages]")
    kind = type(queries).__name__
    if hasattr(queries, "columns") or getattr(queries, "ndim", 1) != 1:
        raise InputError(f"queries is a {kind} with several columns; expected one of them, such as frame['prompt']")
    if isinstance(queries, (set, frozenset)):
        raise InputError(f"queries is a {kind}, which has no order; expected a list of queries")
    for name in ("to_pylist", "tolist", "to_list"):  # pyarrow; pandas and numpy; polars
        method: Callable[[], Iterable[Query]] | None = getattr(queries, name, None)
        if callable(method):
            return list(method())
    if isinstance(queries, Iterable):
        return list(queries)
    raise InputError(f"queries is a {kind}; expected a list of queries")


class QueryText(NamedTuple):
    """The text of a query, and whether a part of the query was left out."""

    text: str
    truncated: bool


def transcript(query: Query) -> str:
    """Write the query as one text: a prompt as it is, a chat as lines ``role: content``, with the system messages."""
    if isinstance(query, str):
        return query
    return "\n".join(f"{turn.role}: {turn.text}" for turn in map(turn_of, query))


def estimate_tokens(text: str) -> int:
    """Estimate the number of tokens of a text: its characters divided by `CHARACTERS_PER_TOKEN`, rounded up."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def messages_of(query: Query) -> list[tuple[str, str]]:
    """Read the role and the text of every message of a chat; a prompt is one user turn.

    Raises:
        InputError: the query is neither a string nor a list of messages.
    """
    if isinstance(query, str):
        return [("user", query)]
    if isinstance(query, Mapping):
        raise InputError("a query is a mapping; expected a string or a chat, which is a list of messages: [message]")
    if isinstance(query, (bytes, bytearray)) or not isinstance(query, Sequence):
        raise InputError(f"a query is {type(query).__name__}; expected a string or a list of messages")
    read: list[tuple[str, str]] = []
    for number, message in enumerate(query):
        if type(message) is dict:  # the hot path of chats: a plain message of plain text
            role, text = message.get("role"), message.get("content")
            if type(text) is str and type(role) is str and role in _PLAIN_ROLES:
                read.append((role, text))
                continue
        read.append(turn_of(message, number))
    return read


def turns(query: Query) -> list[str]:
    """List the texts of a query's turns, the oldest first; a prompt is one turn.

    A chat that ends with an answer is read up to its last user turn, because no router knows the answer when it is
    asked. System and developer messages are left out, unless the chat has no other messages. They are the same in every
    request of an application, so they would shift every score alike and hide the question.

    Raises:
        InputError: the query is neither a string nor a list of messages.
    """
    if isinstance(query, str):
        return [query]
    messages = messages_of(query)
    if messages and messages[-1][0] not in USER:
        messages = messages[: _asked(messages)]
    said = [text for role, text in messages if role in _CONVERSATION_ROLES]
    if not said:  # no turn at all: instructions alone are the query
        said = [text for _, text in messages]
    return [text for text in said if text]


def ends_with_question(value: object) -> TypeGuard[list[Message]]:
    """Whether a value is a list of plain messages, of which the last is a user's: a chat that is read as it stands.

    Plain messages are mappings with a role of the chat APIs and a text. False says nothing about other chats.
    """
    if type(value) is not list or not value:
        return False
    role: Any = None
    for message in value:
        if type(message) is not dict or type(message.get("content")) is not str:
            return False
        role = message.get("role")
        if type(role) is not str or role not in _PLAIN_ROLES:
            return False
    return role in USER


def split_answer(messages: Sequence[Any]) -> tuple[Sequence[Any], str | None]:
    """Split a chat that ends with an answer into the messages up to the last user turn, and the answer.

    Returns:
        The messages, and the text of the answer; None: the chat ends with no answer.

    Raises:
        InputError: a message is none.
    """
    read = messages_of(messages)
    end = _asked(read)
    if end == len(read):
        return messages, None
    answer = "\n".join(text for role, text in read[end:] if role in ASSISTANT and text)
    return messages[:end], answer


def _asked(messages: Sequence[tuple[str, str]]) -> int:
    """The number of messages up to the last user turn where the chat ends with an answer; otherwise all of them."""
    for role, _ in reversed(messages):
        if role in ASSISTANT:
            break
        if role in _CONVERSATION_ROLES:
            return len(messages)
    else:
        return len(messages)
    users = [number for number, (role, _) in enumerate(messages) if role in USER]
    if not users:
        return len(messages)
    _say_answers_are_cut()
    return users[-1] + 1


@functools.cache
def _say_answers_are_cut() -> None:
    """Say it once in a process."""
    logger.warning("a chat ends with an answer of the assistant: such chats are read up to their last user turn")


def query_text(query: Query, max_characters: int, *, both_ends: bool = False) -> QueryText:
    """Make the text that a router reads: the newest turn first, within a budget of characters.

    The whole conversation counts, because a short follow-up ("yes", "do it") means nothing alone. The newest turn
    stands first, so that the budget cuts the oldest turns. A single turn that is longer than the budget keeps its
    start and its end, because a question often stands after a long document.

    Args:
        query: a prompt or a chat.
        max_characters: the longest text that may be returned.
        both_ends: for routers that also read the last tokens of a text: the oldest turn stands first, and the budget
            keeps the start and the end of the chat.

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
    """Normalise a query for grouping and leak checks: case and white space are folded."""
    return _SPACE.sub(" ", "\n".join(turns(query))).strip().casefold()


def prompt_hash(query: Query) -> str:
    """Name a query without showing it: the first 16 hexadecimal digits of the sha256 of its `prompt_key` in UTF-8.

    Bundles that name their training records by hash use it. Queries that differ in case and white space alone have the
    same name. Who guesses a prompt can tell whether its name stands in a bundle.

    Raises:
        InputError: the query is neither a string nor a list of messages.
    """
    return hashlib.sha256(prompt_key(query).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def parse_messages(value: object) -> Query:
    """Read a chat from a cell of a data file: a list of messages, or the JSON text of such a list.

    Raises:
        InputError: the value is neither of the two.
    """
    if isinstance(value, str):
        value = _parsed(value)
    query = parse_query(value)
    if isinstance(query, str) and not isinstance(value, (Sequence, Mapping)):
        raise InputError(f"the chat is of type {type(value).__name__}; expected a list of messages")
    return query


def parse_query(value: object) -> Query:
    """Read a query as files and requests hold it.

    Args:
        value: a text, a list of messages, a list of texts (the user turns), one message, a request with messages,
            contents (Gemini), input (Responses) or prompt; or the JSON text of a list of these.

    Raises:
        InputError: the value is none of these.
    """
    if isinstance(value, str):
        listed = json_list(value)
        return value if listed is None else _chat(listed)
    request = as_mapping(value)
    if request is not None:
        for field in REQUEST_FIELDS:
            if request.get(field) is not None:
                content = request[field]
                single = as_mapping(content)
                if single is not None:
                    return _chat([single])
                return content if isinstance(content, str) else _chat(content)
        return _chat([request])
    return _chat(value)


def json_list(text: str) -> list[Any] | None:
    """The list of texts or of messages that a text holds as JSON; None when it holds none."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not value:
        return None
    texts = all(item is None or isinstance(item, str) for item in value)
    chat = all(isinstance(item, dict) and _MESSAGE_FIELDS & item.keys() for item in value)
    return value if texts or chat else None


def _parsed(text: str) -> object:
    """The value that a cell holds as JSON, or as Python writes it (pandas does so in CSV files)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            return ast.literal_eval(text) if text.lstrip()[:2] in {"[{", "['", "[]"} else _refuse(error)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return _refuse(error)


def _refuse(error: Exception) -> object:
    raise InputError(f"not JSON ({str(error)[:200]}); expected a list of messages") from error


def _chat(value: object) -> Query:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes, bytearray)) or not value:
        kind = "an empty list" if isinstance(value, (list, tuple)) else f"of type {type(value).__name__}"
        raise InputError(f"the query is {kind}; expected a text, or a list of messages")
    if all(item is None or isinstance(item, str) for item in value):
        texts = [item or "" for item in value]
        return texts[0] if len(texts) == 1 else tuple({"role": "user", "content": text} for text in texts)
    if isinstance(value[0], (int, list)):
        raise InputError("token ids; expected a text, or a list of messages")
    messages = tuple(item if as_mapping(item) is None else as_mapping(item) for item in value)
    messages_of(messages)  # type: ignore[arg-type]
    return messages  # type: ignore[return-value]
