"""The answer within a text: the number, the choice, the JSON value, the words; and how sure a model says it is.

`SelfConsistency` compares answers in these forms. A normaliser is a function
from a text to a form, None when there is no answer in the text. Two answers
agree when their forms are equal; forms that are rarely equal bring a looser
comparison (`words` with `similar`).
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

#: Opening brackets tried before a text is said to hold no JSON.
MAX_STARTS = 64

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_GSM8K = re.compile(r"####\s*([^\n]+)")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}")
_LATEX_SPACE = re.compile(r"\{,\}|\\[,!;]")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?"
# A hyphen after a word, a digit or a bracket is no sign; digits after a letter or a point belong to a name.
_NUMBER = re.compile(rf"(?<![\w.])([-−+](?=[\s$€£]*[\d.]))?\s?[$€£]?\s?(?<![\w.])({_DIGITS})(?:\s*/\s*({_DIGITS}))?")


def number(text: str) -> Fraction | None:
    r"""The last number of a text, exactly.

    A ``\boxed{}`` or a ``#### `` line (GSM8K's mark) goes before the rest. Knows
    signs, thousands (1,234.50), fractions (3/4, ``\frac{3}{4}``), exponents and
    currency signs; percent signs and units are left out. Decimal commas are not
    known: 1,5 is two numbers.
    """
    marked = _BOXED.findall(text) or _GSM8K.findall(text)
    for candidate in ([marked[-1]] if marked else []) + [text]:
        plain = _LATEX_FRACTION.sub(r"\1/\2", _LATEX_SPACE.sub("", candidate.replace(r"\$", "$")))
        found = _NUMBER.findall(plain)
        if found:
            return _fraction(*found[-1])
    return None


def _fraction(sign: str, above: str, below: str) -> Fraction | None:
    try:
        value = Fraction(above.replace(",", ""))
        if below:
            value /= Fraction(below.replace(",", ""))
    except (ValueError, ZeroDivisionError):  # thousands of digits; a zero below
        return None
    return -value if sign in {"-", "−"} else value


# Repetitions are bounded: a model that runs wild writes a hundred thousand spaces.
# A and I are words too: they count where no sentence goes on after them, but for its reason.
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
    """The letter, A to J, that a text chooses: "The answer is (C)", "Answer: C", "**C**", "C) Paris"."""
    for pattern in _CHOICES:
        found = [match for match in pattern.finditer(text.strip()) if any(match.groups())]
        if found:
            return next(letter for letter in found[-1].groups() if letter).upper()
    return None


_FENCE = re.compile(r"```[\w-]*\s*\n(.*?)```", re.DOTALL)
_OPENING = re.compile(r"[{\[]")


def json_value(text: str) -> str | None:
    """The JSON in a text, canonically written: keys sorted, no spaces, 1.0 as 1.

    The last fenced block that is JSON, else the whole text, else the longest
    object or array within it.
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
    raise ValueError(f"{name} is no JSON")


# Scripts that set no spaces count character by character.
_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힣]|[^\W぀-ヿ㐀-鿿가-힣]+")


def words(text: str) -> frozenset[Any] | None:
    """The words of a text and its pairs of neighbouring words, case folded; to be compared by `similar`.

    The pairs make order count, and "not": a negation changes one word and two pairs.
    """
    found = _WORD.findall(text.casefold())
    return frozenset([*found, *pairwise(found)]) or None


def similar(bound: float = 0.6) -> Callable[[frozenset[Any], frozenset[Any]], bool]:
    """A comparison of `words`: their Jaccard similarity (shared / all) is at least the bound.

    Raises:
        InputError: the bound is not in (0, 1].
    """
    if not 0 < bound <= 1:
        raise InputError(f"the similarity bound is {bound}; expected a number above 0, at most 1")

    def same(a: frozenset[Any], b: frozenset[Any]) -> bool:
        return len(a & b) >= bound * len(a | b)

    return same


#: The end of a reply that is read: the verdict stands there.
VERDICT_CHARACTERS = 2000

_SCALE = re.compile(r"\(?\b0\s*%?\s*(?:-|–|to|and)\s*(?:100|10|1)\b\s*%?\)?", re.IGNORECASE)
_AMOUNT = r"(?<![\w.\-−])(\d+(?:\.\d+)?|\.\d+)(?![\d.]*\d)\s*(%|percent\b|(?:/|out of)\s*\d+)?"
_LABEL = r"(?:confidence|certainty|probability|likelihood)"
_LABELLED = re.compile(
    rf"{_LABEL}(?: (?:score|level|rating|is|of|that|it|correct)){{0,6}}[\s\"'*_:=~]{{0,8}}{_AMOUNT}", re.IGNORECASE
)
_WITH_UNIT = re.compile(_AMOUNT.removesuffix("?"), re.IGNORECASE)
_ALONE = re.compile(rf"^[ \t*_\"']*{_AMOUNT}[ \t*_\"'.]*$", re.IGNORECASE | re.MULTILINE)
_ANY = re.compile(_AMOUNT, re.IGNORECASE)
_LEVEL = r"(very high|high|medium|moderate|very low|low)"
_LEVELS = re.compile(
    rf"{_LABEL}(?: (?:score|level|rating|is)){{0,3}}[\s\"'*_:=~]{{0,8}}\b{_LEVEL}\b"
    rf"|\b{_LEVEL} {_LABEL}|^\W*{_LEVEL}\W*$",
    re.IGNORECASE,
)

#: What the levels in words mean; they are calibrated as little as the numbers are.
LEVELS = {"very high": 0.95, "high": 0.85, "medium": 0.5, "moderate": 0.5, "low": 0.15, "very low": 0.05}


def stated_confidence(text: str) -> float:
    """How sure a model says it is, in [0, 1].

    Reads "85", "85%", "0.85", "8/10", "8 out of 10", "Confidence: 85",
    ``{"confidence": 0.85}``, "high", with words around. A number without a unit
    is out of 100 unless it has a point and is at most 1. Several numbers, none
    of them labelled, with a unit or alone on a line, say nothing.

    Raises:
        InputError: no confidence can be read, or it is out of range.
    """
    plain = _SCALE.sub(" ", text.rpartition("</think>")[2][-VERDICT_CHARACTERS:])
    for pattern in (_LABELLED, _WITH_UNIT, _ALONE):
        found = pattern.findall(plain)
        if found:
            return _share(found[-1], text)
    level = _LEVELS.search(plain)
    if level:
        return LEVELS[next(filter(None, level.groups())).casefold()]
    found = _ANY.findall(plain)
    if len(found) == 1:
        return _share(found[0], text)
    raise InputError(f"no confidence in {text[:80]!r}; expected a number from 0 to 100")


def _share(amount: tuple[str, str], text: str) -> float:
    digits, unit = amount
    scale = re.search(r"\d+", unit)
    most = float(scale.group()) if scale else 100.0
    if not unit and "." in digits and float(digits) <= 1:
        most = 1.0
    if not 0 <= float(digits) <= most or most == 0:
        raise InputError(f"the confidence in {text[:80]!r} is out of range; expected a number from 0 to 100")
    return float(digits) / most
