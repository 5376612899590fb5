"""Forms in which two answers can be compared: a number, a choice, a JSON value, or a set of words.

`SelfConsistency` compares answers in these forms. Each function here maps a text
to a form, or to None when the text holds no such answer. Two answers agree when
their forms are equal. Sets of words are rarely equal, so `words` comes with a
looser comparison, `similar`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import islice, pairwise
from operator import itemgetter
from typing import Any

from ..routers.errors import InputError

#: `json_value` tries this many opening brackets before it says that a text holds no JSON.
MAX_STARTS = 64

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_GSM8K = re.compile(r"####\s*([^\n]+)")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}")
_LATEX_SPACE = re.compile(r"\{,\}|\\[,!;]")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?"
# A hyphen after a word, a digit or a bracket is not a sign. Digits after a letter or a point belong to a name.
_NUMBER = re.compile(rf"(?<![\w.])([-−+](?=[\s$€£]*[\d.]))?\s?[$€£]?\s?(?<![\w.])({_DIGITS})(?:\s*/\s*({_DIGITS}))?")


def number(text: str) -> Fraction | None:
    r"""The last number in a text, as an exact fraction, or None.

    A number in ``\boxed{}`` or in a ``#### `` line (the mark of GSM8K) is
    preferred to the rest of the text. The function reads signs, thousands
    (1,234.50), fractions (3/4, ``\frac{3}{4}``), exponents and currency signs.
    It ignores percent signs and units. It does not read decimal commas: 1,5 is
    two numbers.
    """
    marked = _BOXED.findall(text) or _GSM8K.findall(text)
    for candidate in ([marked[-1]] if marked else []) + [text]:
        plain = _LATEX_FRACTION.sub(r"\1/\2", _LATEX_SPACE.sub("", candidate.replace(r"\$", "$")))
        numbers = _NUMBER.findall(plain)
        if numbers:
            return _fraction(*numbers[-1])
    return None


def _fraction(sign: str, above: str, below: str) -> Fraction | None:
    try:
        value = Fraction(above.replace(",", ""))
        if below:
            value /= Fraction(below.replace(",", ""))
    except (ValueError, ZeroDivisionError):  # thousands of digits; zero as the denominator
        return None
    return -value if sign in {"-", "−"} else value


# Repetitions are bounded, because a model that runs wild writes a hundred thousand spaces.
# "A" and "I" are also words: they count as letters only if no sentence follows, or if its reason follows ("because").
_LETTER = r"(?:([B-HJ])\b|([AI])\b(?!\s{1,3}(?!(?:because|since|as|and)\b)[a-z]))(?!['’])"
_CHOICES = tuple(
    re.compile(pattern)
    for pattern in (
        r"\\boxed\s*\{\s*(?:\\text\s*\{)?\s*\(?([A-Ja-j])\)?\s*\}",
        rf"(?i:answer|choice|option)(?i: is| would be)?[\s:=*_]{{0,8}}(?i:option |choice )?[*_]{{0,3}}\(?{_LETTER}",
        r"(?i:answer|choice|option)(?i: is| would be)?[\s:=*_]{0,8}\(([A-Ja-j])\)",
        r"^[\s*_]*\(?([A-Ja-j])\)?[\s*_.]*$",  # the letter alone
        r"^[\s*_]*\(?([A-Ja-j])[).:]",  # "C) Paris"
        r"\(([A-J])\)",
    )
)


def multiple_choice(text: str) -> str | None:
    """The letter from A to J that a text chooses, or None: "The answer is (C)", "Answer: C", "**C**", "C) Paris"."""
    for pattern in _CHOICES:
        choices = [match for match in pattern.finditer(text.strip()) if any(match.groups())]
        if choices:
            return next(letter for letter in choices[-1].groups() if letter).upper()
    return None


_FENCE = re.compile(r"```[\w-]*\s*\n(.*?)```", re.DOTALL)
_OPENING = re.compile(r"[{\[]")


def json_value(text: str) -> str | None:
    """The JSON value in a text, in canonical form (sorted keys, no spaces, 1.0 written as 1), or None.

    The function takes the last fenced block that is JSON. If there is none, it
    takes the whole text; if that is not JSON, the longest object or array in it.
    """
    for block in [*reversed(_FENCE.findall(text)), text]:
        try:
            return _canonical(json.loads(block, parse_float=_float, parse_constant=_no_constant))
        except (ValueError, RecursionError):
            continue
    decoder = json.JSONDecoder(parse_float=_float, parse_constant=_no_constant)
    longest: tuple[int, str | None] = (0, None)
    for opening in islice(_OPENING.finditer(text), MAX_STARTS):
        try:
            value, end = decoder.raw_decode(text, opening.start())
            longest = max(longest, (end - opening.start(), _canonical(value)), key=itemgetter(0))
        except (ValueError, RecursionError):
            continue
    return longest[1]


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _float(digits: str) -> float | int:
    value = float(digits)
    return int(value) if value.is_integer() else value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# In scripts without spaces between words, every character counts as a word.
_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힣]|[^\W぀-ヿ㐀-鿿가-힣]+")


def words(text: str) -> frozenset[Any] | None:
    """The words of a text and its pairs of neighbouring words, case folded, or None. Compare them with `similar`.

    The pairs make the order of words count. They also make negations count,
    since "not" changes one word and two pairs.
    """
    said = _WORD.findall(text.casefold())
    return frozenset([*said, *pairwise(said)]) or None


def similar(bound: float = 0.6) -> Callable[[frozenset[Any], frozenset[Any]], bool]:
    """Make a comparison for `words`: two sets agree when their Jaccard similarity (shared / all) reaches the bound.

    Args:
        bound: smallest similarity at which two sets agree, in (0, 1].

    Raises:
        InputError: the bound is out of range.
    """
    if not 0 < bound <= 1:
        raise InputError(f"bound is {bound}; expected a number above 0 and at most 1")

    def same(a: frozenset[Any], b: frozenset[Any]) -> bool:
        return len(a & b) >= bound * len(a | b)

    return same
