"""What the runtime needs: no torch, no network, little memory; and what the package exports."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

import routelearn
from routelearn.routers.errors import MissingExtraError, require

ROOT = Path(__file__).resolve().parent.parent

BLOCKED = """
import json, socket, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "sklearn", "datasets", "scipy", "onnx", "pandas"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())

def no_network(*arguments, **options):
    raise AssertionError("the network was touched")

socket.socket = socket.create_connection = socket.getaddrinfo = no_network

import routelearn

router = routelearn.load(sys.argv[1])
scores = router.score(["Prove it step by step.", "Say hello to Ana."]).tolist()
decision = routelearn.FallbackRouter(router).route("Prove it step by step.")
rss = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(json.dumps({"scores": scores, "model": decision.model, "rss_mb": rss / 1024}))
"""


def test_scoring_needs_no_torch_no_network_and_150_mb(bundle: Path, router: routelearn.LearnedRouter) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(bundle)], capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(done.stdout)
    assert found["scores"] == router.score(["Prove it step by step.", "Say hello to Ana."]).tolist()
    assert found["rss_mb"] < 150


def test_importing_routelearn_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "sklearn", "datasets")
    code = f"import sys, routelearn.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_a_missing_extra_prints_the_install_line() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'routelearn\[train\]'"):
        require("no_such_module_anywhere", "train")


#: The rooms, each of which imports only rooms before it.
ORDER = (
    "routers",
    "availability",
    "policies",
    "cascade",
    "monitoring",
    "data",
    "training",
    "evaluation",
    "labelling",
    "service",
    "cli",
)
#: What the runtime rooms never import, at any depth, not even when a function is called.
HEAVY = {"torch", "transformers", "sklearn", "scipy"}
RUNTIME = ("routers", "availability", "policies", "cascade", "monitoring", "service")


def imports_of(path: Path, root: Path) -> list[tuple[str, str]]:
    """The imports of a file: the dotted name with routelearn's modules relative to `root`, and how it stands there."""
    package = path.relative_to(root).parts[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, ast.unparse(node)) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(f"{module}.{alias.name}".lstrip("."), ast.unparse(node)) for alias in node.names]
    return [(name.removeprefix("routelearn."), line) for name, line in found]


def wrong_imports(root: Path) -> list[str]:
    """The imports below a root that go against the order of the rooms, or bring what the runtime must not need."""
    wrong = []
    for rank, room in enumerate(ORDER):
        for path in sorted((root / room).rglob("*.py")):
            for name, line in imports_of(path, root):
                top = name.split(".")[0]
                if top in ORDER[rank + 1 :] or (room in RUNTIME and top in HEAVY):
                    wrong.append(f"{path.relative_to(root)}: {line}")
    return wrong


def circles(root: Path) -> list[list[str]]:
    """The circles of imports among the modules below a root, type-checking imports included."""
    paths = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for room in ORDER
        for path in (root / room).rglob("*.py")
    }
    graph = {
        module: {
            target
            for name, _ in imports_of(path, root)
            for target in (name, name.rpartition(".")[0])
            if target in paths and target != module
        }
        for module, path in paths.items()
    }
    while True:  # what imports nothing that is left, or is imported by nothing that is left, is in no circle
        imported = set().union(*graph.values()) if graph else set()
        kept = {module: targets & graph.keys() for module, targets in graph.items() if module in imported and targets}
        if kept == graph:
            return [sorted(graph)] if graph else []
        graph = kept


def test_imports_follow_the_order_of_the_rooms() -> None:
    assert wrong_imports(ROOT) == []


def test_there_is_no_circle_of_imports() -> None:
    assert circles(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("routers/base.py", "from ..policies.threshold import Threshold"),
        ("routers/base.py", "from .. import cli"),
        ("service/http/deep.py", "from ...cli.main import main"),
        ("service/http/deep.py", "import routelearn.cli.main"),
        ("data/scoring/deep.py", "def later():\n    from routelearn.evaluation import evaluate"),
        ("cascade/cascade.py", "import torch.nn"),
        ("monitoring/drift.py", "def later():\n    from scipy import stats"),
    ],
)
def test_a_wrong_import_is_noticed_at_every_depth(tmp_path: Path, file: str, line: str) -> None:
    planted = tmp_path / file
    planted.parent.mkdir(parents=True)
    planted.write_text(f'"""Planted."""\n\n{line}\n')
    assert len(wrong_imports(tmp_path)) == 1


def test_a_circle_is_noticed(tmp_path: Path) -> None:
    for name, other in (("one", "two"), ("two", "three"), ("three", "one")):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{name}.py").write_text(f"from .{other} import x\n")
    assert circles(tmp_path) == [["data.one", "data.three", "data.two"]]


def test_no_folder_is_deeper_than_two_and_no_module_is_long() -> None:
    for room in ORDER:
        for path in (ROOT / room).rglob("*.py"):
            assert len(path.relative_to(ROOT).parts) <= 3, path
            assert len(path.read_text().splitlines()) <= 350, path


def test_no_function_is_long_outside_the_command_line() -> None:
    for room in ORDER[:-1]:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


def test_every_package_is_in_the_wheel() -> None:
    """pyproject.toml lists the packages by hand."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    there = {"routelearn"} | {
        ".".join(["routelearn", *path.parent.relative_to(ROOT).parts])
        for room in ORDER
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert sorted(listed) == sorted(there)
