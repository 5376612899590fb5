"""A config that notes which of its settings are read."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any, TypeVar

from routelearn.training.config import Config

AnyConfig = TypeVar("AnyConfig", bound=Config)
#: Modules that read every setting: to check it, to copy it, or to save it.
READ_ALL = {"dataclasses", "routelearn.training.config"}


def watched(config: AnyConfig) -> tuple[AnyConfig, set[str]]:
    """A config equal to this one, and the names of the settings that have been read of it, which grow as it is used."""
    names = {item.name for item in fields(config)}
    read: set[str] = set()

    class Watched(type(config)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            if name in names and sys._getframe(1).f_globals["__name__"] not in READ_ALL:
                read.add(name)
            return super().__getattribute__(name)

    settings = {name: getattr(config, name) for name in names}
    made = Watched(**settings)
    read.clear()
    return made, read
