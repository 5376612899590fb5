"""The public names of a room: listed once, in the stub `__init__.pyi`, and imported when they are first used."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # type checkers take this as true; importing typing would double the time of `import routelearn`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: The extra of routelearn that brings a module which a public name may need.
EXTRA_OF = {
    "torch": "transformers",
    "transformers": "transformers",
    "onnxscript": "transformers",
    "sklearn": "train",
    "scipy": "train",
    "onnx": "train",
    "model2vec": "distill",
    "peft": "lora",
    "pyarrow": "data",
    "datasets": "hub",
    "huggingface_hub": "hub",
    "ray": "ray",
    "pybreaker": "availability",
    "prometheus_client": "metrics",
    "fastapi": "serve",
    "pydantic": "serve",
    "pydantic_core": "serve",
    "starlette": "serve",
    "anyio": "serve",
    "httptools": "serve",
    "uvicorn": "serve",
    "onnxruntime_extensions": "portable",
    "redis": "redis",
}


def public_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` of a package (PEP 562) from the stub beside its `__init__.py`.

    Type checkers read the same stub. Its lines are ``from .module import Name as Name``. The stub is read when the
    first name is asked for, so that importing the package costs nothing.

    Args:
        package: `__name__` of the package.
        file: `__file__` of the package.

    Returns:
        The two functions. `__getattr__` raises AttributeError for an unknown name, and MissingExtraError with the
        install line when a name needs an optional dependency that is not installed.
    """
    homes: dict[str, str] = {}

    def listed() -> dict[str, str]:
        if not homes:
            homes.update(_read_stub(file + "i"))
        return homes

    def get(name: str) -> Any:
        if name == "__all__":
            return sorted(listed())
        if name.startswith("__"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if name not in listed():
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {sorted(listed())}")
        import importlib

        try:
            value = getattr(importlib.import_module(homes[name], package), name)
        except ModuleNotFoundError as error:
            missing = (error.name or "").split(".")[0]
            if missing not in EXTRA_OF:
                raise
            from .errors import missing_extra

            raise missing_extra(missing, EXTRA_OF[missing]) from error
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted(listed())


def _read_stub(path: str) -> dict[str, str]:
    """The module of each name in a stub."""
    import re
    from pathlib import Path

    text = Path(path).read_text(encoding="utf-8")
    homes: dict[str, str] = {}
    for module, names in re.findall(r"^from (\.[\w.]+) import (\([^)]*\)|[^\n(]+)", text, re.MULTILINE):
        homes.update(dict.fromkeys(re.findall(r"(\w+) as \w+", names), module))
    return homes
