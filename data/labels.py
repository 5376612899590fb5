"""Labels: what a file says of who won, as a preference in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..routers.errors import InputError

_WINS_A = frozenset({"model_a", "a", "model a", "1", "left"})
_WINS_B = frozenset({"model_b", "b", "model b", "2", "right"})
_TIES = frozenset({"tie", "tie (bothbad)", "both", "bothbad", "both bad", "draw", "neither"})

#: Known outcomes needed to estimate how often "did not win" means a tie.
LEAST_KNOWN = 30


def number(value: object, low: float = 0.0, high: float = 1.0) -> float:
    """A number within bounds, from a number, a boolean or its text.

    Raises:
        InputError: it is none; the message says what it is.
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
            raise InputError(f"{_short(value)} is no number") from None
    if not isinstance(value, (int, float)) or isinstance(value, complex):
        raise InputError(f"{_short(value)} is no number")
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"{value!r} is not from {low:g} to {high:g}")
    return float(value)


def winner_preference(winner: object, model_a: str, model_b: str) -> float:
    """Preference of a from the name of the winner: a side, a model's own name, or a tie.

    Raises:
        InputError: it names neither.
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
    raise InputError(f"{_short(winner)} names no winner")


def one_hot_preference(a: object, b: object, tie: object) -> float:
    """Preference of a from three 0/1 columns (or probabilities that sum to one).

    Raises:
        InputError: they do not sum to one.
    """
    values = [number(0 if value is None else value) for value in (a, b, tie)]
    if abs(sum(values) - 1) > 1e-3:
        raise InputError(f"the three outcomes are {values}, which do not sum to 1")
    return values[0] + 0.5 * values[2]


@dataclass(frozen=True, slots=True)
class CensoredPreference:
    """All that is known is that one of the two models did not win: a tie or a loss.

    Dropping such rows would bias every estimate toward that model.
    """

    loser_is_a: bool

    def soft(self, tie_share: float) -> float:
        """The expected preference of a, when `tie_share` of such outcomes are ties."""
        expected = 0.5 * tie_share
        return expected if self.loser_is_a else 1 - expected


def tie_share_of(preferences_of_strong: Sequence[float]) -> float:
    """P(tie | strong did not win), from rows whose outcome is known.

    Args:
        preferences_of_strong: known preferences from the strong model's side.

    Raises:
        InputError: too few to estimate it from.
    """
    not_won = [value for value in preferences_of_strong if value < 1]
    if len(not_won) < LEAST_KNOWN:
        raise InputError(
            f"{len(not_won)} known outcomes are too few to tell ties from losses; expected {LEAST_KNOWN}, "
            "or a tie share (--tie-share)"
        )
    return sum(value == 0.5 for value in not_won) / len(not_won)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
