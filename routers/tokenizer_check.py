"""Checks a tokenizer.json before the tokenizer library gets it: its size bounds what loading and encoding take.

The library aborts the process when memory ends, so that a text must not grow without bound on its way to tokens.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from .errors import BundleCorruptError
from .json_size import check_size

#: The most added tokens. The library compares every text with all of them.
MAX_ADDED_TOKENS = 20_000
#: The most objects and lists, and the most values. (The tokenizer of Gemma 3 has half a million lists, and 1.3 million
#: values.) Two million values take 3 s and 250 MB.
MAX_OBJECTS, MAX_VALUES = 1_000_000, 2_000_000
#: How many times longer normalizers may make a text. (NFKC makes one letter 18 letters.)
MAX_GROWTH = 256
#: The most tokens that post-processors may put around a text.
MAX_SPECIAL_TOKENS = 1_000
_UNICODE_GROWTH = 18
#: The parts that are checked.
_CHECKED = ("added_tokens", "normalizer", "post_processor")

_DECODER = json.JSONDecoder()
_KEY, _COMMA = re.compile(r'[ \t\r\n]*"([a-z_]+)"[ \t\r\n]*:[ \t\r\n]*'), re.compile(r"[ \t\r\n]*,")
_LETTER_ESCAPE = re.compile(r"\\u00[567]")


def check_tokenizer(tokenizer_json: bytes, file: str = "tokenizer.json") -> None:
    """Refuse a tokenizer that takes far more time or memory than its size says.

    Args:
        tokenizer_json: its bytes.
        file: the name of the file, for the messages.

    Raises:
        BundleCorruptError: the tokenizer is refused, or is not JSON.
    """
    try:
        check_size(tokenizer_json, MAX_OBJECTS, MAX_VALUES)
        text = tokenizer_json.decode("utf-8")
        content = _before_model(text) or json.loads(text)
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__}; expected a JSON object")
        added = content.get("added_tokens")
        if isinstance(added, list) and len(added) > MAX_ADDED_TOKENS:
            raise ValueError(f"it has {len(added):,} added tokens; expected at most {MAX_ADDED_TOKENS:,}")
        growth = 1.0
        for normalizer in _parts(content.get("normalizer"), "normalizers"):
            growth *= _growth(normalizer)
        if growth > MAX_GROWTH:
            raise ValueError(
                f"its normalizer makes a text {growth:g} times longer; expected at most {MAX_GROWTH} times"
            )
        special = 1
        for processor in _parts(content.get("post_processor"), "processors"):
            special *= max(1, _special_tokens(processor))
        if special > MAX_SPECIAL_TOKENS:
            raise ValueError(f"it puts {special:,} tokens around a text; expected at most {MAX_SPECIAL_TOKENS:,}")
    except (ValueError, RecursionError) as error:
        raise BundleCorruptError(f"{file} cannot be used: {error}") from error


def _before_model(text: str) -> dict[str, Any] | None:
    """The parts of a tokenizer that stand before its model, which the library writes last; None: read everything.

    The model holds the vocabulary, and reading that would take a tenth of the time of a load. It may stay unread if
    nothing from there on can be another part that is checked here.
    """
    found: dict[str, Any] = {}
    place = 1 if text.startswith("{") else len(text)
    while (key := _KEY.match(text, place)) and key[1] not in found:
        if key[1] == "model":
            # A name could also be spelled with escapes of ASCII letters.
            hidden = any(text.find(f'"{name}"', key.end()) >= 0 for name in _CHECKED)
            return None if hidden or _LETTER_ESCAPE.search(text, key.end()) else found
        found[key[1]], place = _DECODER.raw_decode(text, key.end())
        comma = _COMMA.match(text, place)
        place = comma.end() if comma else len(text)
    return None


def _parts(part: Any, name: str) -> Iterator[dict[str, Any]]:
    """The members of a sequence, at any depth; a part that is no sequence is its only member."""
    if isinstance(part, dict) and isinstance(part.get(name), list):
        for inner in part[name]:
            yield from _parts(inner, name)
    elif isinstance(part, dict):
        yield part


def _growth(normalizer: dict[str, Any]) -> float:
    """How many times longer one normalizer may make a text."""
    kind = normalizer.get("type")
    if kind == "Replace":
        pattern, content = normalizer.get("pattern"), str(normalizer.get("content", ""))
        text = pattern.get("String") if isinstance(pattern, dict) else None
        # An expression may match a single character, or the empty text before each character.
        return max(1.0, len(content) / len(text)) if isinstance(text, str) and text else 1.0 + len(content)
    if kind == "Precompiled":
        return _precompiled_growth(normalizer.get("precompiled_charsmap"))
    return {"NFKC": _UNICODE_GROWTH, "NFKD": _UNICODE_GROWTH, "NFD": 4, "NFC": 3, "BertNormalizer": 4}.get(
        str(kind), 1.0
    )


def _precompiled_growth(charsmap: Any) -> float:
    """The longest text that a table of SentencePiece puts in the place of a character, in characters."""
    if not charsmap:
        return 1.0
    table = base64.b64decode(charsmap if isinstance(charsmap, str) else bytes(charsmap))
    texts = table[4 + int.from_bytes(table[:4], "little") :]
    return max(1.0, *(len(text.decode("utf-8", "replace")) for text in texts.split(b"\0")))


def _special_tokens(processor: dict[str, Any]) -> int:
    """How many pieces one post-processor makes of a text, each piece counted with its ids."""
    tokens = processor.get("special_tokens")
    ids = (
        [len(one["ids"]) for one in tokens.values() if isinstance(one, dict) and isinstance(one.get("ids"), list)]
        if (isinstance(tokens, dict))
        else []
    )
    pieces = [len(processor[name]) for name in ("single", "pair") if isinstance(processor.get(name), list)]
    return max([0, *pieces]) * max([1, *ids])
