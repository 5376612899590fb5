"""What is installed: the extras and their documentation, and the demo's words about its sample."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from routelearn.data.sample import POOL, generate_sample
from routelearn.training.fit.metrics import routing_curve
from routelearn.training.libraries import LIBRARIES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MAKEFILE = (ROOT / "Makefile").read_text()

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
sys.argv[0] = "routelearn"
from routelearn.cli.main import main
main()
"""


def without(*blocked: str, run: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process where some modules are not installed."""
    code = BLOCKED.format(blocked=set(blocked))
    return subprocess.run([sys.executable, "-c", code, *run], capture_output=True, text=True, cwd=cwd, check=False)


def names_of(requirements: list[str]) -> set[str]:
    """The packages that requirements name."""
    return {re.split(r"[\[<>=; ]", requirement)[0] for requirement in requirements}


def test_the_table_of_the_page_names_every_extra_and_what_it_brings() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    public = {name: packages for name, packages in EXTRAS.items() if name != "dev"}
    assert [name for name, _, _ in rows] == list(public)
    for name, _, brought in rows:
        told = set(re.findall(r"`([\w.-]+)`", brought))
        assert told == names_of(public[name]) - {"routelearn"} | {
            extra
            for needed in public[name]
            for extra in re.findall(r"routelearn\[([\w,]+)\]", needed)
            for extra in extra.split(",")
        }, name


def test_every_extra_that_an_error_names_is_there() -> None:
    named = set()
    for path in ROOT.rglob("*.py"):
        if not {".venv", "tests", "build"} & set(path.relative_to(ROOT).parts):
            named |= set(re.findall(r'require\(\s*"[\w.]+", "(\w+)"', path.read_text()))
    assert named >= {"train", "transformers", "data", "hub"}
    assert named <= set(EXTRAS)


def test_the_demo_installs_neither_torch_nor_ray_nor_node() -> None:
    (demo,) = re.findall(r"^DEMO_EXTRAS = (.+)$", MAKEFILE, re.MULTILINE)
    (everything,) = re.findall(r"^EXTRAS = (.+)$", MAKEFILE, re.MULTILINE)
    assert set(everything.split(",")) == set(EXTRAS) - {"litellm"}  # its packages are those of two others
    brought = [requirement for extra in demo.split(",") for requirement in EXTRAS[extra]]
    assert not names_of(brought) & {"torch", "ray", "transformers", "pyright", "routelearn"}


@pytest.mark.slow
def test_the_commands_of_the_demo_run_without_torch_and_pyarrow_and_print_no_noise(tmp_path: Path) -> None:
    heavy = ("torch", "transformers", "accelerate", "onnxscript", "datasets", "pyarrow", "pandas", "model2vec")
    data = ["--data", "sample/performance.jsonl"]
    commands = [
        ["data", "sample", "sample", "--queries", "400"],
        ["train", "mf", *data, "--strong", "sim-max", "--weak", "sim-small", "-o", "router"],
        ["score", "router", "sample/queries.txt", "-o", "scored.csv"],
        ["evaluate", "router", *data, "--split", "test", "--train", data[1], "--bootstrap", "10", "-o", "report"],
    ]
    for command in commands:
        done = without(*heavy, run=command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert not re.search(r"[\r\x1b]|Warning", done.stdout + done.stderr)
    assert done.stdout.rstrip().splitlines()[-1].startswith("router recovers 80% of what sim-max gains")


@pytest.mark.parametrize(
    ("recipe", "missing", "extra"),
    [
        ("mf", "sklearn", "train"),
        ("similarity", "scipy", "train"),
        ("bert", "torch", "transformers"),
        ("frozen", "torch", "transformers"),
        ("verifier", "transformers", "transformers"),
        ("bert", "sklearn", "transformers"),
    ],
)
@pytest.mark.slow
def test_a_recipe_names_the_extra_that_it_lacks(recipe: str, missing: str, extra: str, tmp_path: Path) -> None:
    done = without(missing, run=["train", recipe, "--data", "no.jsonl", "--out", "out"], cwd=tmp_path)
    assert done.returncode == 2
    assert f"{missing} is not installed. Install it with: pip install 'routelearn[{extra}]'" in done.stderr


def test_fine_tuning_the_table_of_mf_names_the_extra_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import routelearn

    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    config = routelearn.MatrixFactorizationConfig(finetune_epochs=1)
    with pytest.raises(ImportError, match=r"routelearn\[transformers\]"):
        routelearn.train_matrix_factorization(generate_sample(60).performances, tmp_path / "router", config)


def test_the_libraries_of_transformers_are_those_of_train_and_more() -> None:
    assert set(LIBRARIES["train"]) < set(LIBRARIES["transformers"])


def test_the_demo_says_what_the_best_router_of_its_sample_would_reach() -> None:
    sample = generate_sample(4000, seed=0)
    strong, weak = ([model.name for model in POOL].index(name) for name in ("sim-max", "sim-small"))
    test = [row for row, split in enumerate(sample.splits) if split == "test"]
    scores = np.asarray([record.score for record in sample.performances]).reshape(-1, len(POOL))[test]
    best = sample.expected_quality[test, strong] - sample.expected_quality[test, weak]
    apgr = routing_curve(best, scores[:, strong], scores[:, weak]).apgr
    assert f"would reach an APGR of {apgr:.2f};" in MAKEFILE
    assert "--queries 4000 --seed 0" in MAKEFILE
