"""Adapting a router: the general router to labels, and any other router to new models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from routelearn.cli.main import app
from routelearn.data.records import PerformanceRecord, PreferenceRecord, Record, record_key
from routelearn.data.sample import Sample
from routelearn.data.writers import write_records
from routelearn.routers.blended import BlendedRouter
from routelearn.routers.bundle import read_manifest
from routelearn.routers.errors import InputError
from routelearn.routers.explanation import explain
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.golden import GOLDEN_QUERIES
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.training.adaptation import adapt
from routelearn.training.matrix_factorization.config import MatrixFactorizationConfig
from routelearn.training.matrix_factorization.train import train_matrix_factorization
from routelearn.training.similarity.extend import extend_similarity
from routelearn.training.similarity.train import SimilarityConfig, train_similarity

PAIR = ("sim-max", "sim-small")
#: A small bundle with a companion.
BLENDED = Path(__file__).resolve().parents[1] / "bundles" / "version-5"


def labels_of_pair(sample: Sample, prompts: int) -> list[Record]:
    """The records of two models for so many prompts."""
    kept = dict.fromkeys(record_key(record) for record in sample.performances)
    chosen = set(list(kept)[:prompts])
    return [replace(one, split=None) for one in sample.performances if record_key(one) in chosen and one.model in PAIR]


def new_model(sample: Sample, prompts: int) -> list[Record]:
    """Labels of a model that answers as sim-max does."""
    best = [record for record in sample.performances if record.model == "sim-max"][:prompts]
    return [replace(record, model="newcomer", split=None) for record in best]


def test_the_general_router_adapts_to_ten_prompts_with_both_answers(sample: Sample, tmp_path: Path) -> None:
    path = adapt("general", labels_of_pair(sample, 10), tmp_path / "mine")
    router = load(path)
    assert set(router.models) == set(PAIR)
    general = read_manifest(path).training["general"]
    assert general["router"] == "general"
    assert general["share"] > 0.5  # ten prompts tell less than the general router
    assert general["abilities"]["sim-max"] > general["abilities"]["sim-small"]


def test_with_many_labels_the_general_router_hardly_counts(sample: Sample, tmp_path: Path) -> None:
    path = adapt("general", labels_of_pair(sample, 300), tmp_path / "mine")
    assert read_manifest(path).training["general"]["share"] < 0.15


def test_too_few_labels_are_an_error_that_says_how_many_are_needed(sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="19 labels are too few; expected 20 or more"):
        adapt("general", labels_of_pair(sample, 20)[:19], tmp_path / "mine")


def test_the_same_labels_and_seed_give_the_same_bundle(sample: Sample, tmp_path: Path) -> None:
    labels = labels_of_pair(sample, 40)
    first, second = (adapt("general", labels, tmp_path / name / "mine") for name in ("a", "b"))
    assert [(first / name).read_bytes() for name in ("model.onnx", "router.json")] == [
        (second / name).read_bytes() for name in ("model.onnx", "router.json")
    ]


def test_a_new_model_is_placed_and_the_others_stay(bundle: Path, sample: Sample, tmp_path: Path) -> None:
    path = adapt(bundle, new_model(sample, 60), tmp_path / "wider")
    before, after = load(bundle), load(path)
    prompts = [str(query) for query in sample.queries[-50:]]
    old, new = before.quality(prompts), after.quality(prompts)
    assert after.models == (*before.models, "newcomer")
    assert np.array_equal(new[:, :-1], old)
    assert abs(new[:, -1].mean() - old[:, before.index("sim-max")].mean()) < 0.08
    assert (after.strong, after.weak, after.threshold) == (before.strong, before.weak, before.threshold)
    assert read_manifest(path).training["placed"] == {"newcomer": 60}


def test_preferences_place_a_new_model_too(bundle: Path, sample: Sample, tmp_path: Path) -> None:
    labels: list[Record] = [
        PreferenceRecord(query, "newcomer", "sim-small", 1.0 if i % 10 else 0.0)
        for i, query in enumerate(sample.queries[:80])
    ]
    router = load(adapt(bundle, labels, tmp_path / "wider"))
    quality = router.quality([str(query) for query in sample.queries[-50:]]).mean(axis=0)
    assert quality[router.index("newcomer")] > quality[router.index("sim-small")] + 0.1


def test_two_new_models_and_one_more_later(bundle: Path, sample: Sample, tmp_path: Path) -> None:
    first = new_model(sample, 30)
    second = [replace(record, model="other", score=0.0) for record in first]
    path = adapt(bundle, [*first, *second], tmp_path / "wider")
    third = [replace(record, model="third") for record in first]
    router = load(adapt(path, third, tmp_path / "widest"))
    assert router.models[-3:] == ("newcomer", "other", "third")
    quality = router.quality(["How much is 12 * 12?"])[0]
    assert quality[router.index("other")] < quality[router.index("third")]


def test_a_new_model_joins_both_graphs_of_a_router_with_a_companion(tmp_path: Path) -> None:
    labels: list[Record] = [
        PerformanceRecord(f"Question number {i}: how much is {i} + {i}?", "newcomer", float(i % 3 > 0))
        for i in range(30)
    ]
    known, wider = load(BLENDED), load(adapt(BLENDED, labels, tmp_path / "wider"))
    assert isinstance(wider, BlendedRouter)
    queries = list(GOLDEN_QUERIES)
    assert wider.quality(queries)[:, :-1] == pytest.approx(known.quality(queries), abs=1e-6)
    own, general, share = wider.parts(queries)
    assert own.shape == general.shape == (len(queries), len(known.models) + 1)
    assert wider.quality(queries)[:, -1] == pytest.approx((own + share[:, None] * (general - own))[:, -1], abs=1e-6)


def test_labels_of_known_models_alone_are_an_error(bundle: Path, sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the records name no model that the router lacks"):
        adapt(bundle, sample.performances[:100], tmp_path / "wider")


def test_settings_for_a_router_that_is_not_trained_again_are_an_error(
    bundle: Path, sample: Sample, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="settings have no effect"):
        adapt(bundle, new_model(sample, 60), tmp_path / "wider", MatrixFactorizationConfig(seed=3))


def test_a_similarity_router_with_a_placed_model_is_extended_before_it_is_adapted(
    sample: Sample, tmp_path: Path
) -> None:
    config = SimilarityConfig(strong="sim-max", weak="sim-small")
    path = train_similarity(sample.performances[:1200], tmp_path / "similar", config)
    wider = adapt(path, new_model(sample, 40), tmp_path / "wider")
    assert load(wider).models[-1] == "newcomer"
    with pytest.raises(InputError, match="extend that one, then adapt it"):
        extend_similarity(wider, sample.performances[1200:1300], tmp_path / "more")


def test_the_command_says_what_the_labels_did(bundle: Path, sample: Sample, tmp_path: Path) -> None:
    write_records(labels_of_pair(sample, 30), tmp_path / "labels.jsonl")
    write_records(new_model(sample, 40), tmp_path / "new.jsonl")
    runs = {
        "general": ["general", "--data", str(tmp_path / "labels.jsonl"), "-o", str(tmp_path / "mine")],
        "placed": [str(bundle), "--data", str(tmp_path / "new.jsonl"), "-o", str(tmp_path / "wider")],
    }
    said = {name: CliRunner().invoke(app, ["adapt", *arguments]) for name, arguments in runs.items()}
    assert all(run.exit_code == 0 for run in said.values()), {name: run.output for name, run in said.items()}
    assert "abilities by the labels: sim-max" in said["general"].output
    assert "newcomer is placed from 40 labels" in said["placed"].output


def test_a_placed_model_needs_no_torch_and_passes_the_checks_of_a_load(
    router: LearnedRouter, bundle: Path, tmp_path: Path
) -> None:
    labels: list[Record] = [
        PerformanceRecord(f"Question number {i}: how much is {i} + {i}?", "newcomer", float(i % 3 > 0))
        for i in range(30)
    ]
    wider = load(adapt(bundle, labels, tmp_path / "wider"))
    single = wider.quality(["Hello!"])
    assert np.array_equal(single[:, :-1], router.quality(["Hello!"]))
    assert wider.manifest.novelty_bound == router.novelty_bound


def test_a_query_unlike_the_labels_is_routed_by_the_general_router_as_the_labels_place_the_models(
    sample: Sample, tmp_path: Path
) -> None:
    router = FallbackRouter(adapt("general", labels_of_pair(sample, 40), tmp_path / "mine"), novelty_bound=-1.0)
    found = explain(router, "Prove that the square root of 2 is irrational.")
    abilities = read_manifest(tmp_path / "mine").training["general"]["abilities"]
    assert (found.decision.source, found.decision.cause) == ("general", "novel")
    assert found.abilities == pytest.approx(abilities)
    assert "sim-max is placed by labels" in str(found)


def test_nothing_is_written_where_the_general_router_cannot_be_used(
    bundle: Path, sample: Sample, tmp_path: Path
) -> None:
    config = MatrixFactorizationConfig(general=str(bundle))
    with pytest.raises(InputError, match="expected a general router"):
        train_matrix_factorization(labels_of_pair(sample, 40), tmp_path / "out", config)
    assert not list(tmp_path.iterdir())
