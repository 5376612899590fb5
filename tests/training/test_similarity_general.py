"""The general router inside a similarity router: trained, extended by records and by models, and adapted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import routelearn
from routelearn.data.records import PerformanceRecord, Record
from routelearn.data.sample import Sample
from routelearn.routers.base import sigmoid
from routelearn.routers.bundle import read_manifest
from routelearn.routers.errors import BundleCorruptError, InputError
from routelearn.routers.golden import GOLDEN_QUERIES
from routelearn.routers.loading import load
from routelearn.training.encoders.general_part import GeneralPart
from routelearn.training.encoders.static_network import EncodedQueries, encode_queries
from routelearn.training.examples import Outcomes
from routelearn.training.general.new_abilities import with_new_models
from routelearn.training.new_models import place_new_models
from routelearn.training.similarity.config import SimilarityConfig
from routelearn.training.similarity.extend import extend_similarity
from routelearn.training.similarity.stored import StoredGeneral, StoredRouter
from routelearn.training.similarity.train import check_similarity, train_similarity

PAIR = {"strong": "sim-max", "weak": "sim-small"}
METHODS = ("kernel", pytest.param("bradley-terry", marks=pytest.mark.slow))
Trained = Callable[[str, str], Path]
UNUSUAL = [query for query in GOLDEN_QUERIES if isinstance(query, str) and query]


def records_for(method: str, sample: Sample) -> list[Record]:
    return list(sample.performances if method == "kernel" else sample.preferences)


@pytest.fixture(scope="module")
def trained(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Makes a router of a method with a general router, or with "none", over the encoder that comes with routelearn."""
    folder = tmp_path_factory.mktemp("trained")

    @cache
    def train(method: str, general: str) -> Path:
        config = SimilarityConfig(method=method, general=general, **PAIR)
        return train_similarity(records_for(method, sample), folder / f"{method}-{general}", config)

    return train


def stored_general(path: Path) -> StoredGeneral:
    general = StoredRouter.read(path).general()
    assert general is not None
    return general


def encoded(path: Path, queries: list[str]) -> EncodedQueries:
    stored = StoredRouter.read(path)
    return encode_queries(queries, stored.encoder, stored.manifest.truncation, stored.index.epsilon)


def prompts(sample: Sample, count: int) -> list[str]:
    """Prompts that the routers were trained on."""
    kept = [r.query for r in sample.performances if r.split != "test" and isinstance(r.query, str)]
    return list(dict.fromkeys(kept))[:count]


@pytest.mark.parametrize("method", METHODS)
def test_the_general_router_counts_more_where_a_query_is_unlike_the_labelled_ones(
    method: str, trained: Trained, sample: Sample
) -> None:
    path = trained(method, "general")
    part, queries = stored_general(path).part, encoded(path, UNUSUAL)
    share = part.share(queries.unit)
    assert share.max() > 0.9
    assert np.median(part.share(encoded(path, prompts(sample, 300)).unit)) == pytest.approx(part.least)
    own, general = load(trained(method, "none")).quality(UNUSUAL), part.quality(queries.features)
    expected = own + share[:, None] * (general - own)
    assert np.abs(load(path).quality(UNUSUAL) - expected).max() < 1e-4


def test_the_general_quality_is_that_of_the_shipped_router(trained: Trained) -> None:
    path = trained("kernel", "general")
    general, router = stored_general(path), load("general", **PAIR)
    items = router.items(UNUSUAL)
    expected = sigmoid(items[:, :1] * general.ability + items[:, 1:])
    assert np.abs(general.part.quality(encoded(path, UNUSUAL).features) - expected).max() < 0.01


@pytest.mark.parametrize("method", METHODS)
def test_a_router_of_the_labels_alone_has_no_trace_of_it(method: str, trained: Trained) -> None:
    path = trained(method, "none")
    assert "general" not in read_manifest(path).training
    assert StoredRouter.read(path).general() is None
    assert not {"general_weight", "vector_length"} & StoredRouter.read(path).arrays.keys()


def test_a_router_that_is_no_general_one_is_refused_before_training(
    bundle: Path, sample: Sample, tmp_path: Path
) -> None:
    config = SimilarityConfig(general=str(bundle), **PAIR)
    with pytest.raises(InputError, match="expected a general router, such as 'general'"):
        check_similarity(sample.performances, tmp_path / "out", config)


def test_ratings_are_not_blended_where_scores_give_the_general_router_a_level(sample: Sample, tmp_path: Path) -> None:
    config = SimilarityConfig(method="bradley-terry", **PAIR)
    path = train_similarity([*sample.preferences[:400], *sample.performances[:200]], tmp_path / "r", config)
    assert StoredRouter.read(path).general() is None


@pytest.mark.parametrize("method", METHODS)
def test_records_of_known_models_leave_the_general_part_as_it_is(
    method: str, trained: Trained, sample: Sample, tmp_path: Path
) -> None:
    path = trained(method, "general")
    usual = records_for(method, sample)[:40]
    records = [replace(record, query=f"Again: {record.query}", split=None) for record in usual]
    extended = extend_similarity(path, records, tmp_path / "r")
    before, after = stored_general(path), stored_general(extended)
    for name in ("weight", "bias", "least", "direction", "offset"):
        assert np.array_equal(getattr(after.part, name), getattr(before.part, name)), name
    assert np.array_equal(after.ability, before.ability)
    added = encoded(path, list(dict.fromkeys(str(record.query) for record in records)))
    assert after.length == pytest.approx(np.concatenate([before.length, np.log(added.inverse[:, 0])]), abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_an_extended_router_blends_what_its_index_says_now(
    method: str, trained: Trained, sample: Sample, tmp_path: Path
) -> None:
    records = [
        replace(record, query=UNUSUAL[row % len(UNUSUAL)], split=None)
        for row, record in enumerate(records_for(method, sample)[:60])
    ]
    path, alone = (
        extend_similarity(trained(method, general), records, tmp_path / general) for general in ("general", "none")
    )
    part, queries = stored_general(path).part, encoded(path, UNUSUAL)
    own, share = load(alone).quality(UNUSUAL), part.share(queries.unit)[:, None]
    expected = own + share * (part.quality(queries.features) - own)
    assert np.abs(load(path).quality(UNUSUAL) - expected).max() < 1e-4
    assert np.abs(own - load(trained(method, "none")).quality(UNUSUAL)).max() > 0.001


@pytest.mark.parametrize("method", METHODS)
def test_a_new_model_gets_a_column_of_the_general_part(
    method: str, trained: Trained, sample: Sample, tmp_path: Path
) -> None:
    """A copy of sim-nano under another name is placed beside it, far from the mean of the pool."""
    records = []
    for record in records_for(method, sample):
        if "sim-nano" in record.models:
            fields = [name for name in ("model", "model_a", "model_b") if getattr(record, name, None) == "sim-nano"]
            records.append(replace(record, **dict.fromkeys(fields, "newcomer")))
    path = trained(method, "general")
    extended = extend_similarity(path, records[:150], tmp_path / "r")
    before, after = stored_general(path), stored_general(extended)
    names = load(extended).models
    abilities = read_manifest(extended).training["general"]["abilities"]
    assert abilities.keys() == set(names)
    assert abs(abilities["newcomer"] - abilities["sim-nano"]) < 0.35
    general = after.part.quality(encoded(extended, UNUSUAL).features)
    assert np.abs(general[:, names.index("newcomer")] - general[:, names.index("sim-nano")]).max() < 0.1
    if method == "kernel":
        assert np.array_equal(after.part.weight[:, :-1], before.part.weight)
    else:  # utilities are relative to the mean of the pool
        assert np.abs(after.part.weight.mean(axis=1)).max() < 1e-5


def test_extending_needs_no_general_router(sample: Sample, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(Path(routelearn.__file__).parent / "models" / "general", tmp_path / "mine"))
    path = train_similarity(sample.performances[:1200], tmp_path / "r", SimilarityConfig(general=str(mine), **PAIR))
    shutil.rmtree(mine)
    records = [PerformanceRecord(query, "newcomer", 1.0) for query in prompts(sample, 30)]
    extended = extend_similarity(path, records)
    abilities = read_manifest(extended).training["general"]["abilities"]
    assert abilities["newcomer"] > abilities["sim-small"]


def test_a_general_part_without_abilities_is_a_typed_error(trained: Trained) -> None:
    stored = StoredRouter.read(trained("kernel", "general"))
    training = {name: value for name, value in stored.manifest.training.items() if name != "general"}
    with pytest.raises(BundleCorruptError, match="the general part of the router lacks 'general'"):
        replace(stored, manifest=replace(stored.manifest, training=training)).general()


@pytest.mark.parametrize("method", METHODS)
def test_adapt_places_a_new_model_beside_a_general_part(
    method: str, trained: Trained, sample: Sample, tmp_path: Path
) -> None:
    path = trained(method, "general")
    records = [PerformanceRecord(query, "newcomer", 1.0) for query in prompts(sample, 30)]
    placed, before = load(place_new_models(path, records, tmp_path / "r")), load(path)
    assert placed.models == (*before.models, "newcomer")
    assert np.abs(placed.quality(UNUSUAL)[:, :-1] - before.quality(UNUSUAL)).max() < 1e-6


@settings(deadline=None, max_examples=20)
@given(ability=st.floats(-2, 2), seed=st.integers(0, 1000))
def test_outcomes_tell_the_ability_of_a_new_model(ability: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    slope, level = random.standard_normal((2, 4)) * 0.3
    known = np.array([-1.0, 1.5])
    bias = np.array([1.0, 0.0])  # slope and intercept of a usual query
    part = GeneralPart(
        (slope[:, None] * known + level[:, None]).astype(np.float32),
        (bias[0] * known + bias[1]).astype(np.float32),
        0.1,
        np.zeros(3, np.float32),
        0.0,
    )
    features = random.standard_normal((3000, 4)).astype(np.float32)
    chance = sigmoid((features @ slope + bias[0]) * ability + features @ level + bias[1])
    won = (random.random(3000) < chance).astype(np.float32)
    rows = np.arange(3000)
    ones = np.ones(3000, np.float32)
    outcomes = Outcomes(rows, np.full((3000, 1), 2), won, ones, np.zeros(3000, np.int64))
    joined, abilities = with_new_models(part, known, features, [outcomes], 3, centre=False)
    assert abilities[2] == pytest.approx(ability, abs=0.25)
    assert joined.weight[:, 2] == pytest.approx(slope * abilities[2] + level, abs=1e-4)
    assert joined.bias[2] == pytest.approx(bias[0] * abilities[2] + bias[1], abs=1e-4)


def test_models_of_one_ability_give_a_new_model_the_same_column() -> None:
    column = np.array([[0.2], [-0.4], [0.1]], np.float32)
    part = GeneralPart(np.repeat(column, 2, axis=1), np.array([0.3, 0.3], np.float32), 0.1, np.zeros(2, np.float32), 0)
    rows = np.arange(20)
    outcomes = Outcomes(
        rows, np.full((20, 1), 2), np.ones(20, np.float32), np.ones(20, np.float32), np.zeros(20, np.int64)
    )
    joined, abilities = with_new_models(
        part, np.array([0.7, 0.7]), np.ones((20, 3), np.float32), [outcomes], 3, centre=False
    )
    assert joined.weight[:, 2:] == pytest.approx(column)
    assert abilities.tolist() == pytest.approx([0.7] * 3)
