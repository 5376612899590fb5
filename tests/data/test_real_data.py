"""On real data: what the synthetic sample cannot show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import onnxruntime_extensions
import pandas
import pytest

from routelearn.data.parser import ReadOptions
from routelearn.data.readers import read_records
from routelearn.data.splits import find_leaks, split_by_prompt
from routelearn.evaluation.evaluate import evaluate
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.training.export.portable import export_portable
from routelearn.training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization

pytestmark = pytest.mark.slow

STRONG, WEAK = "gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1"


@pytest.fixture(scope="module")
def mmlu(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LearnedRouter, list, Path]:
    """A router trained on 10 % of RouteLLM's MMLU questions with the default encoder, and the other 90 %."""
    records = read_records(real_data / "routellm_eval" / "mmlu.parquet").records
    training, held_out = split_by_prompt(records, (0.1, 0.9), 0)
    out = tmp_path_factory.mktemp("mmlu") / "router"
    return load(train_matrix_factorization(training, out, MatrixFactorizationConfig())), held_out, out


def test_mmlu_apgr_is_well_above_random(mmlu: tuple[LearnedRouter, list, Path]) -> None:
    router, held_out, _ = mmlu
    report = {row.router: row for row in evaluate({"mf": router}, held_out, bootstrap=100).results}
    assert (router.strong, router.weak) == (STRONG, WEAK)
    assert report["mf"].values["apgr"] > 0.61  # five seeds give 0.64 +- 0.01; RouteLLM's best published is 0.603
    assert report["mf"].intervals["apgr"][0] > report["random"].intervals["apgr"][1]


def test_the_bundle_is_under_12_mb(mmlu: tuple[LearnedRouter, list, Path]) -> None:
    assert sum(path.stat().st_size for path in mmlu[2].iterdir()) < 12e6


def test_onnx_equals_torch_on_1000_real_prompts(mmlu: tuple[LearnedRouter, list, Path]) -> None:
    training = mmlu[0].manifest.training
    assert training["parity_texts"] >= 1000
    assert max(training["parity_batched"], training["parity_single"]) <= 1e-4


def test_both_tokenizers_agree_on_real_prompts(mmlu: tuple[LearnedRouter, list, Path], real_data: Path) -> None:
    battles = read_records(real_data / "arena_human" / "arena_pairs.parquet", ReadOptions(split="test")).records
    queries = [record.query for record in battles]
    fast, reference = load(mmlu[2], tokenizer="tokie"), load(mmlu[2], tokenizer="tokenizers")
    assert np.abs(fast.score(queries) - reference.score(queries)).max() < 1e-6


def test_arena_prompts_are_unlike_mmlu_questions(mmlu: tuple[LearnedRouter, list, Path], real_data: Path) -> None:
    router, held_out, _ = mmlu
    safe = FallbackRouter(router)
    battles = read_records(real_data / "arena_human" / "arena_pairs.parquet", ReadOptions(split="test")).records
    sources = [d.source for d in safe.route_batch([record.query for record in battles])]
    at_home = [d.source for d in safe.route_batch([record.query for record in held_out[:4000:2]])]
    assert np.mean([source != "learned" for source in at_home]) < 0.05
    assert np.mean([source != "learned" for source in sources]) > 4 * np.mean([s != "learned" for s in at_home])


def test_mmlu_splits_share_few_near_copies(real_data: Path) -> None:
    records = read_records(real_data / "routellm_eval" / "mmlu.parquet").records
    training, held_out = split_by_prompt(records, (0.1, 0.9), 0)
    assert len(find_leaks(training, held_out)) < 60


def test_real_prompts_of_any_script_get_the_same_scores_from_the_text_in_graph(
    mmlu: tuple[LearnedRouter, list, Path], real_data: Path, tmp_path: Path
) -> None:
    router, _, bundle = mmlu
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    path = export_portable(bundle, tmp_path / "text", "text") / "model.onnx"
    graph = onnxruntime.InferenceSession(str(path), options)
    prompts = pandas.read_parquet(real_data / "arena_human" / "arena_pairs.parquet")["prompt"]
    texts = [text for text in prompts.drop_duplicates() if isinstance(text, str) and len(text) < 4000][:1000]
    expected = router.quality(texts)
    quality = np.concatenate([graph.run(["quality"], {"text": np.array([text], object)})[0] for text in texts])
    assert not [texts[row] for row in np.flatnonzero(np.abs(quality - expected).max(axis=1) > 1e-5)]
