"""The reference: what it keeps of a sample, how it is stored, and what trained bundles hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.data.sample import Sample
from routelearn.monitoring.reference import LEAST_REFERENCE, Moments, Reference, Spread, reference_of
from routelearn.routers.bundle import read_manifest
from routelearn.routers.errors import InputError
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import describe, load
from routelearn.routers.rules import RulesRouter
from routelearn.training.fit.drift_reference import blended, projection_of
from routelearn.training.similarity.extend import extend_similarity

FLOATS = st.floats(-10, 10, width=32)
SCORES = st.lists(FLOATS | st.sampled_from([0.0, 0.25, 0.5]), min_size=1, max_size=300)


def normal(n: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, k))


def some_reference() -> Reference:
    random = np.random.default_rng(0)
    return Reference.from_samples(random.random(400), random.random(200), normal(300, 4), 0.9)


@given(SCORES)
def test_a_spread_is_exact_at_its_points_also_for_numbers_that_repeat(numbers: list[float]) -> None:
    spread = Spread.of(np.asarray(numbers))
    for value, share in zip(spread.values, spread.shares, strict=True):
        assert share == pytest.approx(np.mean(np.asarray(numbers, np.float32) <= value))
    assert len(spread.values) <= 50
    assert spread.shares[-1] == 1


@given(SCORES, st.lists(FLOATS, max_size=100))
def test_counts_say_where_numbers_fall_between_the_points(numbers: list[float], others: list[float]) -> None:
    spread = Spread.of(np.asarray(numbers))
    counts = spread.counts(np.asarray(others))
    assert counts.sum() == len(others)
    for place, value in enumerate(spread.values):
        assert counts[: place + 1].sum() == np.sum(np.asarray(others, np.float32) <= value)


@given(SCORES)
def test_a_spread_survives_json_to_the_last_bit(numbers: list[float]) -> None:
    spread = Spread.of(np.asarray(numbers))
    again = Spread.from_dict(json.loads(json.dumps(spread.as_dict())), "score")
    assert np.array_equal(again.values, spread.values)
    assert again.shares == pytest.approx(spread.shares, abs=1e-8)


def test_whitening_brings_vectors_to_unit_covariance_and_drops_what_does_not_vary() -> None:
    vectors = normal(2000, 3) @ np.array([[2.0, 1.0, 0.0], [0.0, 0.1, 0.0], [1.0, 0.0, 0.0]]) + 5
    white = (vectors - Moments.of(vectors).mean) @ Moments.of(vectors).whitening().T
    assert white.shape == (2000, 2)
    assert np.cov(white.T) == pytest.approx(np.eye(2), abs=1e-6)


def test_a_reference_is_stored_as_a_file_and_read_again(tmp_path: Path) -> None:
    reference = some_reference()
    reference.save(tmp_path / "reference.json")
    again = Reference.load(tmp_path / "reference.json")
    assert again.as_dict() == reference.as_dict()
    assert again.unfamiliar == reference.unfamiliar > 0
    with pytest.raises(InputError, match="no reference can be read"):
        Reference.load(tmp_path / "nowhere.json")


def broken(**changes: Any) -> dict[str, Any]:
    content = json.loads(json.dumps(some_reference().as_dict()))
    for path, value in changes.items():
        *folders, name = path.split("__")
        place = content
        for folder in folders:
            place = place[folder]
        place[name] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "JSON object"),
        ({}, "JSON object"),
        (broken(score=None), "score"),
        (broken(score__n="many"), "n is 'many'"),
        (broken(score__n=0), "n is 0"),
        (broken(score__values=["a"]), "expected numbers"),
        (broken(score__values=[0.5, 0.1], score__shares=[0.5, 1.0]), "rising"),
        (broken(score__values=[0.1, 0.5], score__shares=[0.5, 0.9]), "rise to 1"),
        (broken(score__values=[0.1], score__shares=[0.5, 1.0]), "as many"),
        (broken(novelty__values=[float("nan")], novelty__shares=[1.0]), "finite"),
        (broken(vector__mean=[0.0]), "covariance has shape"),
        (broken(vector__covariance=[[-1.0]], vector__mean=[0.0]), "not symmetric"),
        (broken(novelty_bound="far"), "novelty_bound"),
        (broken(unfamiliar=10_000), "unfamiliar"),
    ],
)
def test_what_is_no_reference_is_refused_by_name(content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Reference.from_dict(content)


def test_too_few_queries_make_no_reference_and_too_few_vectors_no_covariance(router: LearnedRouter) -> None:
    with pytest.raises(InputError, match="at least 50"):
        Reference.of(router, ["hello"] * (LEAST_REFERENCE - 1))
    with pytest.raises(InputError, match="0 queries"):
        Reference.of(router, [])
    assert Reference.from_samples(np.ones(60), np.ones(10), normal(60, 30)).vectors is None
    assert Reference.from_samples(np.ones(60), np.ones(10), normal(60, 30)).novelties is None


def test_a_reference_of_ones_own_traffic_holds_what_the_router_says_of_it(
    router: LearnedRouter, texts: list[str]
) -> None:
    queries = texts[:200]
    assessment = router.assess(queries)
    reference = Reference.of(FallbackRouter(router), queries)
    scores = router.scores_of(assessment)
    assert reference.scores.values[-1] == scores.max()
    assert reference.novelty_bound == router.novelty_bound
    assert assessment.vectors is not None
    assert reference.vectors is not None
    assert reference.vectors.mean == pytest.approx(assessment.vectors.mean(axis=0), abs=1e-6)
    ruled = Reference.of(RulesRouter("a", "b"), queries)
    assert (ruled.novelties, ruled.vectors) == (None, None)


# What trained bundles hold.

BUNDLES = ("bundle", "similarity_bundle", "ranking_bundle", "bert_bundle", "int8_bundle")


@pytest.mark.slow
@pytest.mark.parametrize("fixture", BUNDLES)
def test_every_trained_router_gives_vectors_and_holds_a_reference_of_them(
    fixture: str, request: pytest.FixtureRequest, texts: list[str]
) -> None:
    router = load(request.getfixturevalue(fixture))
    reference = reference_of(router)
    assert reference is not None
    assert reference.scores.n >= LEAST_REFERENCE
    assert reference.novelties is not None
    assert reference.novelty_bound == router.novelty_bound
    assert reference.unfamiliar <= max(1, 0.01 * reference.novelties.n)
    vectors = router.assess(texts[:100]).vectors
    assert vectors is not None
    assert vectors.dtype == np.float32
    assert reference.vectors is not None
    assert vectors.shape == (100, len(reference.vectors.mean))
    one_by_one = np.concatenate([router.assess([text]).vectors for text in texts[:5]])
    assert np.abs(one_by_one - vectors[:5]).max() < (2e-2 if fixture == "int8_bundle" else 1e-3)
    assert len(json.dumps(router.manifest.reference)) < 10_000
    assert describe(request.getfixturevalue(fixture))["reference"]["score"] == reference.scores.n


@pytest.mark.parametrize("fixture", ["bundle", "similarity_bundle"])
def test_training_queries_are_white_in_the_sketch(fixture: str, request: pytest.FixtureRequest, sample: Sample) -> None:
    router = load(request.getfixturevalue(fixture))
    queries = list({str(r.query): r.query for r in sample.performances if r.split != "test"}.values())
    vectors = router.assess(queries).vectors
    assert vectors is not None
    assert np.abs(vectors.mean(axis=0)).max() < 0.02
    assert np.cov(vectors.T) == pytest.approx(np.eye(vectors.shape[1]), abs=0.02)


def test_the_first_version_of_bundles_has_no_reference() -> None:
    old = Path(__file__).parents[1] / "bundles" / "version-1"
    assert reference_of(load(old)) is None
    assert describe(old)["reference"] is None


def test_the_projection_is_that_of_the_largest_components() -> None:
    vectors = normal(500, 40) * np.linspace(5, 0.1, 40)
    weight, offset = projection_of(vectors)
    assert weight.shape == (40, 16)
    projected = vectors @ weight + offset
    assert np.cov(projected.T) == pytest.approx(np.eye(16), abs=1e-3)
    kept = np.square(weight).sum(axis=1)
    assert kept[:16].mean() > 5 * kept[24:].mean() * (5 / 0.1) ** -2
    assert np.array_equal(projection_of(vectors)[0], weight)
    assert projection_of(vectors[:45])[0].shape == (40, 4)  # ten queries a component, an even number of them


def test_queries_that_are_all_alike_have_a_sketch_of_zeros() -> None:
    weight, offset = projection_of(np.ones((100, 8)))
    assert np.isfinite(weight).all()
    assert np.abs(np.ones((3, 8)) @ weight + offset).max() < 1e-6


def test_moments_of_a_mixture_are_those_of_all_its_vectors() -> None:
    one, two = normal(600, 3), normal(200, 3, seed=1) * 2 + 1
    moments = blended(Moments.of(one), Moments.of(two), 200 / 800)
    expected = Moments.of(np.concatenate([one, two]))
    assert moments.n == 800
    assert moments.mean == pytest.approx(expected.mean)
    assert moments.covariance == pytest.approx(expected.covariance, rel=0.01, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("fixture", ["similarity_bundle", "ranking_bundle"])
def test_extending_keeps_the_projection_and_renews_the_reference(
    fixture: str, request: pytest.FixtureRequest, sample: Sample, tmp_path: Path, texts: list[str]
) -> None:
    bundle = request.getfixturevalue(fixture)
    records = sample.preferences if fixture == "ranking_bundle" else sample.performances
    added = [record for record in records if record.split == "train"][:40]
    extended = extend_similarity(bundle, added, tmp_path / "extended")
    before, after = read_manifest(bundle).reference, read_manifest(extended).reference
    assert before is not None
    assert after is not None
    assert after["vector"]["n"] > before["vector"]["n"]
    assert after["score"] != before["score"]
    old, new = load(bundle).assess(texts[:50]).vectors, load(extended).assess(texts[:50]).vectors
    assert old is not None
    assert new is not None
    assert np.abs(old - new).max() < 1e-4
