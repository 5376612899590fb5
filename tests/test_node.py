"""The bundle is its specification: a program in another language, with other libraries, gets the same scores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from routelearn.data.sample import Sample
from routelearn.routers.golden import GOLDEN_QUERIES
from routelearn.routers.loading import load

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "node"


@pytest.fixture(scope="module")
def node_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine; it comes with Node.js")
    folder = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("node") / "example"))
    # Without scripts: all that onnxruntime-node needs on a CPU is in the package.
    subprocess.run(
        ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=300
    )
    return folder


def run(folder: Path, bundle: Path, queries: list[object]) -> subprocess.CompletedProcess[str]:
    lines = "".join(json.dumps(query) + "\n" for query in queries)
    command = ["node", "score.mjs", str(bundle)]
    return subprocess.run(command, cwd=folder, input=lines, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(
    "kind", ["bundle", "similarity_bundle", "ranking_bundle", "bert_bundle", "int8_bundle", "blended_bundle"]
)
def test_node_reproduces_a_thousand_scores(
    node_example: Path, kind: str, sample: Sample, request: pytest.FixtureRequest
) -> None:
    bundle = request.getfixturevalue(kind)
    parts = [{"role": "user", "content": [{"type": "text", "text": "prove"}, {"type": "image_url"}, {"text": "it"}]}]
    systems = [{"role": "system", "content": "You add numbers."}, {"role": "user", "content": "2 + 2?"}]
    long = " ".join(f"Prove lemma {number}." for number in range(400))
    chat = [{"role": "user", "content": long}, {"role": "assistant", "content": long[:99]}, {"content": "yes, do it"}]
    odd = [
        long,
        chat,
        "word " * 9000,
        "🙂 " * 4500,
        "",
        parts,
        systems,
        systems[:1],
        [{"role": "assistant", "content": None}],
    ]
    queries = [*GOLDEN_QUERIES, *odd, *sample.queries][:1000]
    router = load(bundle)
    done = run(node_example, bundle, queries)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(queries) == 1000
    assert np.abs(np.array([one["score"] for one in found]) - router.score(queries)).max() < 1e-5
    assert {one["model"] for one in found} == {router.strong, router.weak}


def test_node_writes_nothing_into_a_clean_home(node_example: Path, bundle: Path, tmp_path: Path) -> None:
    """onnxruntime keeps its usage data there, unless the example turns them off."""
    done = subprocess.run(
        ["node", "score.mjs", str(bundle)],
        cwd=node_example,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        input=b'"hi"\n',
        check=True,
        timeout=300,
    )
    assert done.returncode == 0
    assert list(tmp_path.rglob("*")) == []


def test_node_refuses_a_changed_bundle(node_example: Path, bundle: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(bundle, tmp_path / "router"))
    data = bytearray((changed / "tokenizer.json").read_bytes())
    data[-10] ^= 1
    (changed / "tokenizer.json").write_bytes(data)
    done = run(node_example, changed, ["hi"])
    assert done.returncode != 0
    assert "tokenizer.json was changed" in done.stderr
