"""Read the files that commands take beside records: settings of a recipe, and prices of models (TOML or JSON)."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from ..routers.decision import Model
from ..routers.errors import InputError
from ..routers.pool_file import read_pool as read_models
from ..routers.pool_file import read_structured


def read_settings(path: Path | None, config: type[Any]) -> dict[str, Any]:
    """Settings of a config dataclass from a TOML file.

    Raises:
        InputError: no such file, no TOML, or a setting that the config does not have.
    """
    if path is None:
        return {}
    content = read_structured(path)
    known = {item.name for item in fields(config)}
    unknown = sorted(set(content) - known)
    if unknown:
        raise InputError(f"{path}: unknown settings {unknown}; expected settings among {sorted(known)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}


def read_pool(path: Path | None) -> list[Model]:
    """Models with their prices from a file (`routers.pool_file.read_pool`); none where no file is given.

    Raises:
        InputError: no such file, or an entry that is no model.
    """
    return [] if path is None else read_models(path)
