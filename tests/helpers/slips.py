"""Slips: calls with something else than what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from routelearn.routers.errors import InputError

#: A function, its arguments, its keyword arguments, and what the error must say was expected, as a pattern.
Slip = tuple[Callable[..., object], tuple[Any, ...], dict[str, Any], str]


def says_what_to_write(
    call: Callable[..., object], arguments: tuple[Any, ...], options: dict[str, Any], told: str
) -> None:
    """Check that a call is refused with an error that says what was expected."""
    with pytest.raises(InputError, match=rf"expected .*{told}"):
        call(*arguments, **options)
