"""The wheel, not the checkout: installed into an empty environment, it scores."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from routelearn.training.encoders.static import static_encoder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # From a copy without build/: setuptools would take stale files of an earlier build from there.
    source = tmp_path_factory.mktemp("source") / "routelearn"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    # The source distribution first, and the wheel from it.
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(out), str(source)], check=True, capture_output=True, cwd=out
    )
    return next(out.glob("*.whl"))


def test_the_wheel_contains_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"routelearn"}
    assert {"routelearn/py.typed", "routelearn/routers/rules.toml", "routelearn/cli/main.py"} <= set(names)
    assert {"routelearn/labelling/label_page.html", "routelearn/service/http/status.html"} <= set(names)
    encoder = {"table.npz", "tokenizer.json", "encoder.json", "README.md", "LICENSE"}
    assert {f"routelearn/models/minilm-static/{name}" for name in encoder} <= set(names)
    bundle = {"router.json", "model.onnx", "tokenizer.json", "README.md"}
    for router in ("general", "general-minilm"):
        assert {f"routelearn/models/{router}/{name}" for name in bundle} <= set(names)
    assert "routelearn/models/general-minilm/LICENSE" in names
    assert not [name for name in names if "tests/" in name or "benchmarks/" in name]


def test_the_source_distribution_holds_what_the_tests_need(wheel: Path) -> None:
    (archive,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert set(tracked) - names <= {".gitignore"}


def test_an_index_gets_links_a_licence_and_the_versions_of_python(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        found = Metadata.from_email(archive.read(name))  # validates
    assert found.license_expression == "Apache-2.0"
    assert found.project_urls is not None
    assert {"Homepage", "Source", "Issues", "Changelog"} <= set(found.project_urls)
    assert found.description is not None and found.description.startswith("# routelearn")
    assert {"Operating System :: OS Independent", "Programming Language :: Python :: 3.10"} <= set(
        found.classifiers or []
    )


def test_the_installed_wheel_routes_without_any_extra(wheel: Path, bundle: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env")
    # By the pip of this process: an environment with a pip of its own takes three seconds more.
    pip = [sys.executable, "-m", "pip", "--python", str(tmp_path / "env" / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", wheel], check=True, cwd=tmp_path)
    done = subprocess.run(
        [tmp_path / "env" / "bin" / "routelearn", "route", bundle, "Prove it step by step."],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"model": "sim-' in done.stdout
    code = "from routelearn.training.encoders.static import static_encoder; print(static_encoder().fingerprint)"
    python = [tmp_path / "env" / "bin" / "python", "-c", code]
    encoder = subprocess.run(python, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert encoder.stdout.strip() == static_encoder().fingerprint, encoder.stderr
    missing = subprocess.run(
        [tmp_path / "env" / "bin" / "routelearn", "train", "mf", "--data", "x.parquet", "--out", "y"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert missing.returncode == 2
    assert "pip install 'routelearn[train]'" in missing.stderr
