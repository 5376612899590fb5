"""What a forked child makes anew: it has the parent's locks, held or not, but none of the parent's threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_renewals: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def renew_in_child(thing: T, renew: Callable[[T], None]) -> None:
    """Have a function called with an object in every process that is forked from now on, as long as the object lives.

    Args:
        thing: what has locks or threads.
        renew: gives it new ones.
    """
    _renewals[thing] = renew


def new_lock() -> threading.Lock:
    """A lock that is free in every forked child, whoever held it in the parent."""
    lock = threading.Lock()
    renew_in_child(lock, _free)
    return lock


def _free(lock: Any) -> None:
    lock._at_fork_reinit()  # as the standard library does with its own locks


def _renew() -> None:
    for thing, renew in list(_renewals.items()):
        renew(thing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
