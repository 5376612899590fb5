"""The public names of the rooms: listed once, importable, documented."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import routelearn
from routelearn.routers.errors import MissingExtraError
from routelearn.routers.public_names import public_names

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ["routelearn", *(f"routelearn.{stub.parent.name}" for stub in sorted(ROOT.glob("*/__init__.pyi")))]


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_the_stub_can_be_imported(room: str) -> None:
    package = importlib.import_module(room)
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        value = getattr(package, name)
        assert not isinstance(value, types.ModuleType), f"{room}.{name} is a module"
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_a_docstring(room: str) -> None:
    package = importlib.import_module(room)
    for name in package.__all__:
        value = getattr(package, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        assert inspect.getdoc(value), f"{room}.{name}"
        if inspect.isclass(value):
            for method, member in inspect.getmembers(value, inspect.isfunction):
                if not method.startswith("_") and member.__module__.startswith("routelearn."):
                    assert inspect.getdoc(member) or inspect.getdoc(getattr(value, method)), f"{room}.{name}.{method}"


def test_some_two_dozen_names_are_at_the_top() -> None:
    assert 20 <= len(routelearn.__all__) <= 28


def test_a_star_import_brings_every_name() -> None:
    code = "from routelearn.policies import *; print(Threshold, Explore)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "Threshold" in done.stdout


def test_a_name_whose_dependency_is_missing_prints_the_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "room_of_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from routelearn.routers.public_names import public_names\n"
        "__getattr__, __dir__ = public_names(__name__, __file__)\n"
    )
    (folder / "__init__.pyi").write_text("from .needs import (\n    Needed as Needed,\n    Other as Other,\n)\n")
    (folder / "needs.py").write_text("import onnxruntime_extensions\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    room = importlib.import_module("room_of_tests")
    assert room.__all__ == ["Needed", "Other"]
    with pytest.raises(MissingExtraError, match=r"pip install 'routelearn\[portable\]'"):
        _ = room.Needed


def test_private_names_are_not_looked_up() -> None:
    get, _ = public_names("routelearn", "no such file.py")
    with pytest.raises(AttributeError):
        get("__wrapped__")
