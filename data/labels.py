"""Turns the labels of a file (winners, scores, one-hot columns) into preferences in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..routers.errors import InputError

_WINS_A = frozenset({"model_a", "a", "model a", "1", "left"})
_WINS_B = frozenset({"model_b", "b", "model b", "2", "right"})
_TIES = frozenset({"tie", "tie (bothbad)", "both", "bothbad", "both bad", "draw", "neither"})

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
            value = float(text)
        except ValueError:
            raise InputError(f"{_short(value)} is not a number") from None
    if not isinstance(value, (int, float)) or isinstance(value, complex):
        raise InputError(f"{_short(value)} is not a number")
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"{value!r} is not from {low:g} to {high:g}")
    return float(value)


def winner_preference(winner: object, model_a: str, model_b: str) -> float:
    """The preference for a, from the winner: a side such as "model_a", the name of a model, or a tie.

    Raises:
        InputError: the value does not name a winner.
    """
    if isinstance(winner, str):
        if winner == model_a:
            return 1.0
        if winner == model_b:
            return 0.0
        side = winner.strip().lower()
        if side in _WINS_A:
            return 1.0
        if side in _WINS_B:
            return 0.0
        if side in _TIES:
            return 0.5
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


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
