"""The examples in the docstrings run, and every public class has one."""

from __future__ import annotations

import ast
import doctest
import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_imports import ORDER

import routelearn
from routelearn.data.sample import Sample
from routelearn.data.writers import write_records

ROOT = Path(__file__).resolve().parent.parent
#: The rooms of the package, without the command line.
ROOMS = ORDER[:-1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
RECORDS = 800


def docstrings() -> Iterator[tuple[str, str, Path, int]]:
    """Every docstring of the package that holds an example: its name, its text, its file and its line."""
    paths = [ROOT / "__init__.py", *sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    for path in paths:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield from _docstrings(ast.parse(path.read_text(encoding="utf-8")), module, path)


def _docstrings(node: ast.AST, name: str, path: Path) -> Iterator[tuple[str, str, Path, int]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text and ">>>" in text:
            yield name, text, path, node.body[0].lineno
        for child in node.body:
            yield from _docstrings(child, f"{name}.{getattr(child, 'name', '')}", path)


@pytest.fixture
def folder(bundle: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an example runs, with the files that it may name."""
    shutil.copytree(bundle, tmp_path / "router")
    write_records(sample.performances[:RECORDS], tmp_path / "records.jsonl")
    queries = [query for query in sample.queries[:200] if isinstance(query, str) and "\n" not in query]
    (tmp_path / "queries.txt").write_text("\n".join(queries) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        # A verifier is a transformer.
        pytest.param(*rest, id=name, marks=pytest.mark.slow if "verifier/" in rest[0] else ())
        for name, *rest in docstrings()
    ],
)
def test_the_example_runs(text: str, path: Path, line: int, folder: Path, request: pytest.FixtureRequest) -> None:
    if "verifier/" in text:
        shutil.copytree(request.getfixturevalue("verifier_bundle"), folder / "verifier")
    names = {"routelearn": routelearn, "__name__": "__main__"}
    example = doctest.DocTestParser().get_doctest(text, names, request.node.callspec.id, str(path), line)
    report: list[str] = []
    results = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=report.append)
    assert results.attempted
    assert not results.failed, "".join(report)


def public_classes(room: str) -> list[type]:
    """The classes among the public names of a room; errors and protocols are not constructed, so they do not count."""
    module = importlib.import_module(f"routelearn.{room}")
    if not hasattr(module, "__all__"):
        pytest.skip(f"routelearn.{room} has no list of its public names")
    values = [getattr(module, name) for name in module.__all__]
    return [
        value
        for value in values
        if isinstance(value, type) and not issubclass(value, BaseException) and not getattr(value, "_is_protocol", 0)
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_class_has_an_example(room: str) -> None:
    assert [value.__qualname__ for value in public_classes(room) if ">>>" not in (value.__doc__ or "")] == []
