"""Turns the labels of a file (winners, scores, one-hot columns) into preferences in [0, 1]."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from ..routers.errors import InputError

#: What stands before or behind a side, and says nothing: "Response B", "answer_a", "assistant A wins".
_FILLERS = frozenset(
    {"model", "response", "answer", "assistant", "output", "option", "completion", "side", "the", "is", "was"}
    | {"wins", "won", "win", "winner", "better", "chosen", "preferred"}
)
_SIDES = {**dict.fromkeys(("a", "1", "left", "first"), 1.0), **dict.fromkeys(("b", "2", "right", "second"), 0.0)}
_TIES = frozenset(
    {"tie", "tied", "ties", "draw", "both", "neither", "equal", "equally good", "same", "even", "no preference"}
    | {"both good", "both bad", "bothbad", "bothgood", "tiebothbad", "tiebothgood", "a=b", "a==b"}
)
_COMPARISONS = {"a>b": 1.0, "a>>b": 1.0, "b<a": 1.0, "b<<a": 1.0, "b>a": 0.0, "b>>a": 0.0, "a<b": 0.0, "a<<b": 0.0}
#: What people click below an answer, and what feedback tools write for it.
_UP = frozenset({"up", "thumbs up", "thumbsup", "thumb up", "good", "like", "liked", "positive", "correct", "yes"})
_UP |= {"accept", "accepted", "helpful", "pass", "passed", "success", "👍"}
_DOWN = frozenset({"down", "thumbs down", "thumbsdown", "thumb down", "bad", "dislike", "disliked", "negative"})
_DOWN |= {"incorrect", "wrong", "no", "reject", "rejected", "not helpful", "unhelpful", "fail", "failed", "failure"}
_DOWN |= {"👎"}
_SKINS = re.compile("[\U0001f3fb-\U0001f3ff\ufe0f]")
_BLANKS = re.compile(r"[\s_\-:]+")
#: Decimals as spreadsheets of many countries write them; "12,345" may be a thousand, so it is not a number.
_NUMBER_WITH_COMMA = re.compile(r"[01],\d+|\d{1,3},(\d{1,2}|\d{4,})")
#: Scores up to this may be stars or marks.
_MOST_STARS = 10
_STARS = "give the highest score there can be, as in --score-scale 5 for five stars or --score-scale 100 for percent"
_PERCENT = "divide the scores by 100, or give --score-scale 100 (the highest score there can be)"

_WRITABLE_BITS = 10_000
#: The share of ties among "did not win" is estimated only from at least this many known outcomes.
LEAST_KNOWN = 30


def number(value: object, low: float = 0.0, high: float = 1.0) -> float:
    """A number within bounds, from a number, a boolean or text.

    Raises:
        InputError: the value is not a number from `low` to `high`; the message quotes it.
    """
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in {"true", "false"}:
            return float(text.lower() == "true")
        try:
            value = float(text.replace(",", ".") if "," in text and _NUMBER_WITH_COMMA.fullmatch(text) else text)
        except ValueError:
            raise InputError(f"{_short(value)} is not a number") from None
    if not isinstance(value, (int, float, Decimal)):
        raise InputError(f"{_short(value)} is not a number")
    if value != value or not low <= value <= high:  # noqa: PLR0124 - NaN
        raise InputError(f"{_shown(value)} is not from {low:g} to {high:g}")
    return float(value)


def is_number(value: object) -> bool:
    """Whether a value is a number, or the text of one, also with a percent sign."""
    if isinstance(value, str):
        value = value.strip().removesuffix("%")
    try:
        number(value, -math.inf, math.inf)
    except InputError:
        return False
    return True


def score_of(value: object, scale: float = 1.0) -> float:
    """A score from 0 to 1, from a number from 0 to `scale`.

    Raises:
        InputError: the value is none; the message says what to do with percent.
    """
    if isinstance(value, str) and value.strip().endswith("%") and is_number(value):
        if scale != 100:
            raise InputError(f"{value!r} is a percentage; {_PERCENT}")
        value = value.strip().removesuffix("%")
    try:
        return number(value, 0, scale) / scale
    except InputError as error:
        try:
            percent = number(value, 0, 100)
        except InputError:
            raise error from None
        if scale >= percent:
            raise
        raise InputError(f"{error}; {_PERCENT if percent > _MOST_STARS else _STARS}") from None


def feedback_score(value: object, scale: float = 1.0) -> float:
    """A score from 0 to 1, from what a user or a test said of an answer.

    Args:
        value: a number from 0 to `scale`, true or false, or a word such as "thumbs_up", "bad" or "accepted".
        scale: the highest number.

    Raises:
        InputError: the value is none of these.
    """
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        word = _BLANKS.sub(" ", _SKINS.sub("", value)).strip().casefold()
        if word in _UP or word == "true":
            return 1.0
        if word in _DOWN or word == "false":
            return 0.0
    return score_of(value, scale)


def winner_preference(winner: object, model_a: str, model_b: str) -> float:
    """The preference for a, from the winner: a side such as "model_a", the name of a model, or a tie.

    Raises:
        InputError: the value does not name a winner.
    """
    if isinstance(winner, (int, float)) and not isinstance(winner, bool) and winner in (1, 2):
        winner = str(int(winner))
    if isinstance(winner, str) and not winner.lstrip().startswith("-"):  # -1 is not 1
        text = _BLANKS.sub(" ", winner).strip().casefold()
        text = {"1.0": "1", "2.0": "2"}.get(text, text)
        names = [_BLANKS.sub(" ", name).strip().casefold() for name in (model_a, model_b)]
        if winner in (model_a, model_b):
            return float(winner == model_a)
        if text in names and names[0] != names[1]:
            return float(text == names[0])
        if text.replace(" ", "") in _COMPARISONS:
            return _COMPARISONS[text.replace(" ", "")]
        if text in _TIES or text.split("(")[0].strip() in _TIES or text.replace(" ", "") in _TIES:
            return 0.5
        words = [word.strip("[]().") for word in text.split(" ") if word not in _FILLERS]
        if len(words) == 1 and words[0] in _SIDES:
            return _SIDES[words[0]]
    raise InputError(f"{_short(winner)} does not name a winner")


def one_hot_preference(a: object, b: object, tie: object) -> float:
    """The preference for a, from three columns of 0 and 1, or of probabilities that sum to 1.

    Raises:
        InputError: the three values do not sum to 1.
    """
    values = [number(0 if value is None else value) for value in (a, b, tie)]
    if abs(sum(values) - 1) > 1e-3:
        raise InputError(f"the three outcomes {values} do not sum to 1")
    return values[0] + 0.5 * values[2]


@dataclass(frozen=True, slots=True)
class CensoredPreference:
    """A label that says only that one of the two models did not win: it tied or lost.

    Leaving such rows out would bias every estimate toward that model.

    Attributes:
        loser_is_a: whether model a is the one that did not win.

    Example:
        >>> from routelearn.data import CensoredPreference
        >>> CensoredPreference(loser_is_a=True).soft(tie_share=0.5)
        0.25
    """

    loser_is_a: bool

    def soft(self, tie_share: float) -> float:
        """The expected preference for a, when `tie_share` of such outcomes are ties."""
        expected = 0.5 * tie_share
        return expected if self.loser_is_a else 1 - expected


def tie_share_of(preferences_of_strong: Sequence[float]) -> float:
    """P(tie | strong did not win), estimated from rows whose outcome is known.

    Args:
        preferences_of_strong: the known preferences for the strong model.

    Raises:
        InputError: there are too few outcomes to estimate the share from.
    """
    not_won = [value for value in preferences_of_strong if value < 1]
    if len(not_won) < LEAST_KNOWN:
        raise InputError(
            f"{len(not_won)} known outcomes are too few to estimate the share of ties; "
            f"expected {LEAST_KNOWN} or more, or a tie share (--tie-share)"
        )
    return sum(value == 0.5 for value in not_won) / len(not_won)


def _shown(value: float | Decimal) -> str:
    """A number as text; Python refuses to write integers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > _WRITABLE_BITS:
        return "a number of thousands of digits"
    return _short(float(value) if isinstance(value, Decimal) else value)


def _short(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
