"""A frozen transformer with a kernel machine: `train frozen`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import bert_config, frozen_config
from helpers.watched_config import watched

from routelearn.data.records import PerformanceRecord, record_key
from routelearn.data.sample import Sample
from routelearn.evaluation.evaluate import evaluate
from routelearn.routers.bundle import read_manifest
from routelearn.routers.errors import InputError
from routelearn.routers.loading import load
from routelearn.training.frozen import train as frozen
from routelearn.training.frozen.kernel_machine import KernelHead, LandmarkKernel
from routelearn.training.frozen.train import train_frozen
from routelearn.training.frozen.vector_cache import cached_vectors
from routelearn.training.verifier.config import VerifierConfig


def unit(count: int, dimensions: int, seed: int = 0) -> torch.Tensor:
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions)) + 1
    return torch.nn.functional.normalize(torch.from_numpy(vectors).float(), dim=1)


def test_the_router_learns_without_a_gradient_through_the_transformer(
    frozen_bundle: Path, tested: list[PerformanceRecord]
) -> None:
    report = evaluate({"frozen": load(frozen_bundle)}, tested, bootstrap=50)
    assert report["frozen"].values["apgr"] > report["random"].values["apgr"] + 0.04
    lines = (frozen_bundle.with_name("frozen.training") / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["phase"] for line in lines} == {"ranking", "factors", "done"}
    training = read_manifest(frozen_bundle).training
    assert max(training["parity_batched"], training["parity_single"]) <= 1e-4


def test_whitened_features_have_the_kernel_as_their_dot_product() -> None:
    """Up to the directions left out, none of which counts for more than a tenth."""
    vectors = unit(400, 24)
    kernel = LandmarkKernel(vectors, 200, 3.0, seed=0)
    features = kernel(vectors).double() @ kernel.whitening()
    landmarks = kernel.landmarks.T
    centred = torch.nn.functional.normalize(vectors - vectors.mean(dim=0), dim=1)
    assert kernel(vectors) == pytest.approx(torch.exp(3 * (centred @ landmarks.T - 1)), abs=1e-5)
    rows = [int((centred - landmark).norm(dim=1).argmin()) for landmark in landmarks]
    difference = features[rows] @ features[rows].T - torch.exp(3 * (landmarks @ landmarks.T - 1))
    assert torch.linalg.matrix_norm(difference, ord=2) < 0.1 + 1e-3


def test_a_kernel_machine_learns_what_is_not_linear() -> None:
    vectors = unit(600, 2)
    kernel = LandmarkKernel(vectors, 300, 3.0, seed=0)
    centred = vectors - vectors.mean(dim=0)
    truth = (centred[:, 0] * centred[:, 1] > 0).double()
    features, whitening = kernel(vectors).double(), kernel.whitening()
    phi = features @ whitening
    ridge = torch.linalg.solve(phi.T @ phi + 0.1 * torch.eye(phi.shape[1]), phi.T @ (truth - truth.mean()))
    head = KernelHead(kernel, (whitening @ ridge).unsqueeze(1).numpy(), truth.mean().unsqueeze(0).numpy())
    assert (((head(vectors)[:, 0] > 0.5) == (truth > 0.5)).float().mean()) > 0.9


def test_vectors_are_computed_once(
    tiny_bert: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other labels and other settings need no second pass over the same queries; new queries need one of their own."""
    seen: list[int] = []
    predict = frozen.predict

    def counted(network: Any, ids: Sequence[Any], *rest: Any, **options: Any) -> Any:
        seen.append(len(ids))
        return predict(network, ids, *rest, **options)

    monkeypatch.setattr(frozen, "predict", counted)
    records = [record for record in sample.performances if record.split == "train"]
    some = {record_key(record) for record in records[: len(records) // 2]}
    config = frozen_config(tiny_bert, landmarks=64, vectors=str(tmp_path / "v" / "vectors.npz"))
    noted, read = watched(config)
    train_frozen([record for record in records if record_key(record) in some], tmp_path / "a", noted)
    assert read == {item.name for item in fields(config)}  # no setting is accepted and ignored
    train_frozen(records, tmp_path / "b", config)
    train_frozen(records, tmp_path / "c", replace(config, kernel_scale=2.0))
    without = train_frozen(records, tmp_path / "d", replace(config, vectors=None))
    assert len(seen) == 3  # of "c" none was missing
    assert seen[0] + seen[1] == seen[2]
    queries = [str(record.query) for record in records[:50]]
    assert load(tmp_path / "b").score(queries) == pytest.approx(load(without).score(queries), abs=1e-4)
    with pytest.raises(InputError, match="another encoder"):
        train_frozen(records, tmp_path / "e", replace(config, layers=1))


def test_a_file_that_holds_no_vectors_is_a_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "notes.npz"
    for content in (b"no zip", b""):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"notes\.npz is not a file of vectors"):
            cached_vectors(file, torch.nn.Linear(2, 2), [np.ones(3, np.int32)], lambda ids: unit(len(ids), 4))
        assert file.read_bytes() == content


def test_several_processes_are_refused(
    tiny_bert: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="without torchrun"):
        train_frozen(sample.performances, tmp_path / "r", frozen_config(tiny_bert))


def test_a_verifier_is_always_fine_tuned() -> None:
    with pytest.raises(InputError, match="epochs is 0; expected a whole number from 1"):
        VerifierConfig(epochs=0)


def test_zero_epochs_of_the_bert_recipe_are_refused_and_name_this_recipe(tiny_bert: Path) -> None:
    with pytest.raises(InputError, match=r"epochs is 0; expected .* `routelearn train frozen` .*train_frozen"):
        bert_config(tiny_bert, epochs=0)
