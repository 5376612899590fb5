"""Reads models with their prices, limits and abilities from models.toml, or the same as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from .decision import Model
from .errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

_OF_MODEL = frozenset(item.name for item in fields(Model))
#: Fields of models.toml that say how `collect` and `judge` ask a model; here they have no effect.
OF_CALLS = frozenset(
    {"model", "base_url", "api_key_env", "requests_per_minute", "tokens_per_minute", "concurrency", "timeout_s"}
    | {"expected_output_tokens", "parameters"}
)


def read_pool(path: str | Path) -> list[Model]:
    """Read the models of a pool: a list as JSON, or ``[[models]]`` as TOML; see `Model` for the fields.

    Raises:
        InputError: no such file, or an entry that is no model; the message names the file, the model and the field.
    """
    entries = model_entries(path, _OF_MODEL | OF_CALLS)
    pool = []
    for entry in entries:
        try:
            pool.append(Model(**{name: value for name, value in entry.items() if name in _OF_MODEL}))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return pool


def model_entries(path: str | Path, known: Collection[str]) -> list[dict[str, Any]]:
    """The entries of a file of models.

    Args:
        path: the file.
        known: the fields that an entry may have.

    Raises:
        InputError: no such file, no models in it, an entry without a name or with another field, or two of one name.
    """
    content = read_structured(path)
    entries = content.get("models") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} has no models; expected a table [[models]] for each model, or a list as JSON")
    names = set()
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or "name" not in entry:
            raise InputError(f"{path}, model {number} has no name; expected name, and others among {sorted(known)}")
        unknown = sorted(set(entry) - set(known))
        if unknown:
            raise InputError(
                f"{path}, model {entry['name']!r} has the fields {unknown}; expected fields among {sorted(known)}"
            )
        if entry["name"] in names:
            raise InputError(f"{path} has two models {entry['name']!r}; expected one entry for each name")
        names.add(entry["name"])
    return entries


def read_structured(path: str | Path) -> Any:
    """The content of a TOML file, or of a JSON file where the name ends in .json.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    path = Path(path)
    is_json = path.suffix == ".json"
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if is_json else tomllib.loads(text)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}; expected {'JSON' if is_json else 'TOML'}") from error
