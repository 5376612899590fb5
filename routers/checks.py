"""Checks and repairs of plain values that several rooms share: numbers, durations, names."""

from __future__ import annotations

import hashlib
import math
import numbers
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import InputError

#: The label that counts names beyond the number of names that are kept apart.
OTHER = "other"
#: Longest name of a label, in characters.
MAX_NAME = 100


def clean_name(name: str) -> str:
    """A name for a label or a log line: one printable line of at most `MAX_NAME` characters."""
    text = str(name)
    if len(text) > MAX_NAME:
        # The end tells names apart that begin alike.
        text = f"{text[: MAX_NAME - 9]}…{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def usable(value: float) -> bool:
    """Whether a latency or a cost can be summed: a broken one must not fail the request that it belongs to."""
    return 0 <= value < math.inf


def as_number(value: Any) -> float:
    """A float; not a number where the value is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def check_number(name: str, value: object, expected: str) -> None:
    """Refuse what is no finite number, so that a text or a list is told by its name.

    Raises:
        InputError: it is none.
    """
    if (
        isinstance(value, (bool, np.bool_))
        or not isinstance(value, numbers.Real)
        or not math.isfinite(as_number(value))
    ):
        raise InputError(f"{name} is {value!r:.80}; expected {expected}")


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number of `least` or more.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"{name} is {value!r:.80}; expected a whole number of {least} or more")


def check_path(name: str, value: object) -> None:
    """Refuse what is no path.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{name} is {value!r:.80}; expected a path, as text or pathlib.Path")


def check_names(name: str, value: object) -> None:
    """Refuse a bare text where a list of names is expected: it would be taken apart into its letters.

    Raises:
        InputError: this is no list of texts.
    """
    if isinstance(value, str):
        raise InputError(f"{name} is the text {value!r:.80}; expected a list of names: [{value!r:.80}]")
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{name} is {value!r:.80}; expected a list of names")


def check_seconds(name: str, value: float | None, *, or_none: bool = True) -> None:
    """Refuse a duration that is not above 0.

    Raises:
        InputError: it is not.
    """
    if value is None and or_none:
        return
    if not isinstance(value, numbers.Real) or not value > 0:
        raise InputError(f"{name} is {value!r:.80}; expected seconds above 0{', or None' if or_none else ''}")
