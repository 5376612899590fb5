"""Read the files that commands take beside records: settings of a recipe, and prices of models (TOML or JSON)."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..labelling.candidates import Candidate
from ..routers.decision import Model
from ..routers.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

#: Fields of models.toml that say how a model is asked.
_OF_CALLS = {item.name for item in fields(Candidate)} - {item.name for item in fields(Model)}


def read_settings(path: Path | None, config: type[Any]) -> dict[str, Any]:
    """Settings of a config dataclass from a TOML file.

    Raises:
        InputError: no such file, no TOML, or a setting that the config does not have.
    """
    if path is None:
        return {}
    content = _read_structured(path)
    known = {item.name for item in fields(config)}
    unknown = sorted(set(content) - known)
    if unknown:
        raise InputError(f"{path}: unknown settings {unknown}; expected settings among {sorted(known)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}


def read_pool(path: Path | None) -> list[Model]:
    """Prices from JSON (a list) or TOML (``[[models]]``): name, input_price, output_price, as in models.toml.

    Raises:
        InputError: no such file, or an entry that is no model.
    """
    if path is None:
        return []
    content = _read_structured(path)
    entries = content.get("models") if isinstance(content, dict) else content
    try:
        return [
            Model(**{name: value for name, value in entry.items() if name not in _OF_CALLS}) for entry in entries or []
        ]
    except (TypeError, AttributeError) as error:
        raise InputError(f"{path}: {error}; expected name, input_price and output_price for each model") from error


def _read_structured(path: Path) -> Any:
    is_json = path.suffix == ".json"
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if is_json else tomllib.loads(text)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}; expected {'JSON' if is_json else 'TOML'}") from error
