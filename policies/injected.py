"""Leaves out what agents add to a user's turn: reminders, details of the environment, open files.

Routers read the rest; the request itself stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..routers.messages import USER, as_mapping, is_tool_result
from ..routers.query import Query
from .agent_rules import AgentRules, CompiledRules, default_rules

#: A text of tags alone says nothing.
_ONLY_TAGS = re.compile(r"(?:\s*</?[\w-]+>)*\s*")
#: The fields of a message that hold what it says.
CONTENT_FIELDS = ("content", "parts", "value")


def without_injected(query: Query, rules: AgentRules | None = None) -> Query:
    """The query without the blocks that agents add to user turns.

    A block is left out where its opening tag begins a line or follows another tag, and its closing tag is there: a tag
    that the user's own words mention stays. A user turn that has nothing else is left out as a whole.

    Args:
        query: a prompt or a chat.
        rules: what agents add; None: the lists that come with routelearn.

    Returns:
        The query; the same object where there is nothing to leave out, or where nothing would be left.
    """
    compiled = (rules or default_rules()).compiled
    if isinstance(query, str):
        return own_text(query, compiled) or query
    if not isinstance(query, Sequence):
        return query
    kept: list[Any] = []
    changed = spoken = False
    for message in query:
        if not is_of_user(message):
            kept.append(message)
            continue
        own = _own_message(message, compiled)
        changed = changed or own is not message
        if own is not None:
            kept.append(own)
            spoken = True
    return kept if changed and spoken else query


def is_of_user(message: object) -> bool:
    """Whether a message has the role of a user; one without a role and a type has it."""
    known = as_mapping(message)
    if known is None:
        return False
    role = known.get("role")
    if role is None:
        role = known.get("from")
    if role is None:
        role = known.get("type", "user")
    return isinstance(role, str) and (role in USER or role.lower() in USER)


def own_text(text: str, rules: CompiledRules) -> str:
    """A text of a user's turn without what the agent added; the same object where there is nothing to leave out."""
    start = _beginning(text)
    opening = rules.openings.match(text, start)
    rest = text if opening is None else text[opening.end() :]
    if "<" in rest:
        wrapped = [rest[start:end].strip() for _, start, end, _ in _blocks(rest, rules.wrappers)]
        if wrapped:
            return "\n".join(wrapped)
        rest = _without_blocks(rest, rules.tags)
    for pattern in rules.patterns:
        rest = pattern.sub("", rest)
    if rest == text:
        return text
    return "" if _ONLY_TAGS.fullmatch(rest) else rest.strip()


def _beginning(text: str) -> int:
    """Where a text begins, after white space."""
    return 0 if text[:1] > " " else len(text) - len(text.lstrip())


def _own_message(message: Any, rules: CompiledRules) -> Any:
    """A user's message without what the agent added; None: nothing is left."""
    known: Mapping[str, Any] = message if type(message) is dict else as_mapping(message) or {}
    for name in CONTENT_FIELDS:
        content = known.get(name)
        if isinstance(content, str):
            own: Any = own_text(content, rules)
        elif isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
            own = _own_parts(content, rules)
        else:
            continue
        if own is content or (not own and not content):
            return message
        return {**known, name: own} if own else None
    return message


def _own_parts(parts: Sequence[Any], rules: CompiledRules) -> Sequence[Any]:
    """The parts without what the agent added; the same object where there is nothing to leave out."""
    texts = [text_of_part(part) for part in parts]
    if any(text and "<" in text and next(_blocks(text, rules.wrappers), None) for text in texts):
        # The words of the user are in one part, and the other texts are the agent's.
        texts_own = [
            own_text(text, rules) if text and next(_blocks(text, rules.wrappers), None) else "" for text in texts
        ]
    else:
        texts_own = [own_text(text, rules) if text else "" for text in texts]
    if all(text is None or not text or own is text for text, own in zip(texts, texts_own, strict=True)):
        return parts
    kept: list[Any] = []
    for part, text, own in zip(parts, texts, texts_own, strict=True):
        if text is None or own is text:
            kept.append(part)
        elif own:
            kept.append(own if isinstance(part, str) else {**(as_mapping(part) or {}), "text": own})
    return kept


def text_of_part(part: object) -> str | None:
    """The text of a part of a user's turn; None: it is an image, the result of a tool or the like."""
    if isinstance(part, str):
        return part
    known = as_mapping(part)
    if known is None or is_tool_result(known):
        return None
    text = known.get("text")
    return text if isinstance(text, str) else None


def _without_blocks(text: str, opening: re.Pattern[str]) -> str:
    kept: list[str] = []
    at = 0
    for start, _, _, end in _blocks(text, opening):
        kept.append(text[at:start])
        at = end
    return "".join([*kept, text[at:]]) if kept else text


def _blocks(text: str, opening: re.Pattern[str]) -> Iterator[tuple[int, int, int, int]]:
    """The blocks of a text: where each one starts, where its inside starts and ends, and where it ends."""
    unclosed: set[str] = set()
    position = 0
    while (found := opening.search(text, position)) is not None:
        tag, position = found["tag"], found.end()
        if tag in unclosed or not _begins(text, found.start()):
            continue
        close = text.find(f"</{tag}>", position)
        if close < 0:
            unclosed.add(tag)
            continue
        end = close + len(tag) + 3
        yield found.start(), position, close, end
        position = end


def _begins(text: str, start: int) -> bool:
    """Whether a tag begins a line, or follows another tag."""
    before = start - 1
    if before >= 1 and text[before] == ">":
        return text[before - 1].isalnum() or text[before - 1] in "-_\"'/"
    while before >= 0 and text[before] in " \t":
        before -= 1
    return before < 0 or text[before] in "\r\n"
