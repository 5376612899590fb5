"""Reads the verdict at the end of what a judge wrote. What stands before the last line does not count."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

from ..data.labels import winner_preference
from ..routers.errors import InputError

#: The ends of the scale of a judge.
LOWEST, HIGHEST = 1.0, 10.0
_MARKED = re.compile(r"\[\[\s*([^\[\]]{1,40}?)\s*\]\]|\\boxed\{\s*(?:\\text\{)?\s*([^{}]{1,40}?)\s*\}")
_SIGNS = " \t*_#>`\"'.!()[]{}"
_WORDS = r"verdict|winner|decision|judge?ment|preference|choice|rating|score|grade"
_LABEL = re.compile(rf"^(?:[\w\s]{{0,30}}\b)?(?:{_WORDS})\b[\s*_]*(?:is\b)?[\s*_]*[:=]?[\s*_]*", re.IGNORECASE)
_RATING = re.compile(r"(\d{1,2}(?:[.,]\d{1,12})?)\s*(?:(?:/|out of)\s*10)?\s*(?:points?)?", re.IGNORECASE)
#: Fields of a verdict in JSON, the first that is there counts.
_PAIR_FIELDS = ("verdict", "winner", "preferred", "preference", "better", "choice", "decision")
_SCALE_FIELDS = ("verdict", "rating", "score", "grade")
#: Opening brackets at which JSON at the end of a text is looked for.
_MOST_STARTS = 64


def pair_verdict(text: str) -> float | None:
    r"""The preference for answer A: 1, 0.5 for a tie, or 0; None: the text ends with no verdict.

    Example:
        >>> from routelearn.labelling.verdicts import pair_verdict
        >>> pair_verdict("Answer B has an error.\n\n**Verdict: [[A]]**")
        1.0
    """
    return _one([_side(value) for value in _candidates(text, _PAIR_FIELDS)])


def scale_verdict(text: str) -> float | None:
    """The rating, from 0 (1 of 10) to 1 (10 of 10); None: the text ends with no verdict."""
    return _one([_rating(value) for value in _candidates(text, _SCALE_FIELDS)])


def _one(values: Sequence[float | None]) -> float | None:
    """The value that all agree on; None where there are several or none."""
    return values[0] if values and len(set(values)) == 1 else None


def _candidates(text: str, fields: Sequence[str]) -> list[Any]:
    """What may be the verdict: a field of JSON at the end, what stands in [[ ]] on the last line, or the last line."""
    text = text.strip().removesuffix("```").rstrip()
    if text.endswith("}"):
        found = _json_at_end(text)
        if found is not None:
            return next(([found[name]] for name in fields if name in found), [])
    line = text.splitlines()[-1] if text else ""
    marked = [first or second for first, second in _MARKED.findall(line)]
    return marked or [_LABEL.sub("", line.strip(_SIGNS), count=1)]


def _json_at_end(text: str) -> dict[str, Any] | None:
    """The JSON object at the end of a text."""
    starts = (match.start() for match in re.finditer(r"\{", text))
    for start in islice(reversed(list(starts)), _MOST_STARTS):
        try:
            found = json.loads(text[start:])
        except (ValueError, RecursionError):
            continue
        return found if isinstance(found, dict) else None
    return None


def _side(value: object) -> float | None:
    if isinstance(value, str):
        value = value.strip(_SIGNS)
        if value.casefold() == "c":
            return 0.5
    try:
        return winner_preference(value, "A", "B")
    except InputError:
        return None


def _rating(value: object) -> float | None:
    match = _RATING.fullmatch(str(value).strip(_SIGNS)) if not isinstance(value, bool) else None
    rating = float(match[1].replace(",", ".")) if match else -1.0
    return (rating - LOWEST) / (HIGHEST - LOWEST) if LOWEST <= rating <= HIGHEST else None
