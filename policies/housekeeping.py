"""Tells requests of the client's own housekeeping: titles, summaries, tags, suggestions, probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..routers.messages import as_mapping
from .agent_lists import PROBES
from .agent_rules import CompiledRules
from .injected import CONTENT_FIELDS, is_of_user, own_text, text_of_part

#: A field of a request's metadata with which a client says that a request is housekeeping, or that it is not.
MARKER = "routelearn_housekeeping"
#: The fields of a request that hold its system prompt.
_SYSTEM = ("system", "instructions", "systemInstruction", "system_instruction")
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_YES, _NO = frozenset({"true", "on", "yes", "1"}), frozenset({"false", "off", "no", "0"})
#: Messages at the head of a chat that are looked at for a system prompt, and parts of one.
_HEAD, _PARTS = 4, 8


def housekeeping_of(request: Mapping[str, Any], items: Sequence[Any], rules: CompiledRules) -> str:
    """The rule by which a request is the client's housekeeping; empty: it is not.

    Args:
        request: the body.
        items: its messages.
        rules: the rules.
    """
    marked = _marked(request)
    if marked is not None:
        return "marked" if marked else ""
    last = items[-1] if items else None
    texts = texts_of(last) if is_of_user(last) else []
    if len(texts) == 1 and len(texts[0]) < 16:
        word = texts[0].strip()
        if word == "Warmup" or (word.lower() in PROBES and any(request.get(name) == 1 for name in _LIMITS)):
            return "probe"
    for text in texts:
        rule = _rule(text, rules)
        if not rule and not text[:1].isalnum():  # what agents add may stand before it
            rule = _rule(own_text(text, rules), rules)
        if rule:
            return rule
    for text in _system_texts(request, items):
        rule = _rule(text, rules)
        if rule:
            return rule
    return ""


def texts_of(message: object) -> list[str]:
    """The texts of a user's message, without the results of tools."""
    known = message if type(message) is dict else as_mapping(message)
    if known is None:
        return []
    for name in CONTENT_FIELDS:
        content = known.get(name)
        if isinstance(content, str):
            return [content]
        if isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
            return [text for text in map(text_of_part, content) if text]
    return []


def _rule(text: str, rules: CompiledRules) -> str:
    start = 0 if text[:1] > " " else len(text) - len(text.lstrip())
    if rules.housekeeping.match(text, start) is None:
        return ""
    return next((name for name, pattern in rules.named if pattern.match(text, start)), "")


def _marked(request: Mapping[str, Any]) -> bool | None:
    """What the client says in the metadata; None: nothing."""
    for field in ("metadata", "litellm_metadata"):
        metadata = request.get(field)
        if metadata and isinstance(metadata, Mapping) and MARKER in metadata:
            said = str(metadata[MARKER]).strip().lower()
            if said in _YES or said in _NO:
                return said in _YES
    return None


def _system_texts(request: Mapping[str, Any], items: Sequence[Any]) -> list[str]:
    """The system prompts: the fields of the request, and the messages at the head of the chat."""
    texts: list[str] = []
    for name in _SYSTEM:
        if name in request:
            texts += _content_texts(request[name])
    for item in items[:_HEAD]:
        known = item if type(item) is dict else as_mapping(item)
        if known is None or known.get("role") not in ("system", "developer"):
            break
        texts += _content_texts(known.get("content"))
    return texts


def _content_texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    known = as_mapping(content)
    parts = content if known is None else known.get("parts", [known])
    if not isinstance(parts, Sequence) or isinstance(parts, (bytes, bytearray)):
        return []
    return [text for text in map(text_of_part, parts[:_PARTS]) if text]
