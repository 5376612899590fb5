"""What the runtime needs: no torch, no network, little memory; and what the package exports."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_all_is_what_can_be_imported() -> None:
    assert sorted(routelearn.__all__) == sorted(routelearn._HOME)
    for name in routelearn.__all__:
        assert getattr(routelearn, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = routelearn.no_such_name


def test_a_missing_extra_prints_the_install_line() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'routelearn\[train\]'"):
        require("no_such_module_anywhere", "train")


LAYERS = {
    "routers": {"data", "training", "service"},
    "data": {"training", "service"},
    "service": {"data", "training"},
}


@pytest.mark.parametrize("layer", LAYERS)
def test_dependencies_run_one_way(layer: str) -> None:
    heavy = {"torch", "transformers", "sklearn"} | ({"datasets", "onnx", "pandas"} if layer != "data" else set())
    for path in (ROOT / layer).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                parts = (node.module or "").split(".")
                assert not (node.level >= 2 and parts[0] in LAYERS[layer]), f"{path.name} imports {node.module}"
                assert not (node.level == 0 and parts[0] in heavy), f"{path.name} imports {node.module}"
            elif isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & heavy, path.name
