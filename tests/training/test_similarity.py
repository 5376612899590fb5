"""The similarity routers: exact where RouteLLM refits, local where the kernel is, and extended without retraining."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import PAIR
from sklearn.linear_model import LogisticRegression

from routelearn.data.records import PerformanceRecord, PreferenceRecord
from routelearn.data.sample import Sample
from routelearn.evaluation.evaluate import evaluate
from routelearn.policies.threshold import StrongShare
from routelearn.routers.bundle import read_manifest
from routelearn.routers.decision import Model
from routelearn.routers.errors import BundleCorruptError, InputError
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.training.examples import Outcomes
from routelearn.training.similarity.config import SimilarityConfig
from routelearn.training.similarity.extend import extend_similarity
from routelearn.training.similarity.index import subsample
from routelearn.training.similarity.stored import KernelIndex
from routelearn.training.similarity.train import check_similarity, train_similarity
from routelearn.training.similarity.weighted_ranking import (
    Start,
    battle_counts,
    similarity_weights,
    tier_ratings,
    tiers_of,
    weighted_counts,
)


def battles(count: int, models: int, seed: int = 0) -> tuple[Outcomes, np.ndarray]:
    """Battles of models of known strength, one a query, a fifth of them ties; and unit vectors of the queries."""
    random = np.random.default_rng(seed)
    pairs = np.array([random.choice(models, 2, replace=False) for _ in range(count)])
    strength = np.linspace(1.2, -1.2, models)
    won = (random.random(count) < 1 / (1 + np.exp(strength[pairs[:, 1]] - strength[pairs[:, 0]]))).astype(np.float32)
    won[random.random(count) < 0.2] = 0.5
    vectors = random.standard_normal((count, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ones = np.ones(count, np.float32)
    return Outcomes(np.arange(count), pairs, won, ones, np.zeros(count, np.int64)), vectors


def refit(outcomes: Outcomes, tier: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """RouteLLM's own computation: logistic regression over all battles, each twice, ties as one win each."""
    a, b = tier[outcomes.model[:, 0]], tier[outcomes.model[:, 1]]
    rows = np.arange(len(a))
    design = np.zeros((len(a), tier.max() + 1))
    design[rows, a] = math.log(10)
    design[rows, b] = -math.log(10)  # where both are of one tier, this entry alone stands
    first = np.where(outcomes.target == 0, 0.0, 1.0)
    second = np.where(outcomes.target == 1, 1.0, 0.0)
    model = LogisticRegression(fit_intercept=False, C=np.inf, tol=1e-12, max_iter=5000)
    model.fit(np.concatenate([design] * 2), np.concatenate([first, second]), np.concatenate([weights] * 2))
    return model.coef_[0] * math.log(10)


@pytest.mark.parametrize("tiers", [4, 8])  # with battles within a tier, and without
def test_the_weighted_ranking_equals_scikit_learns_refit(tiers: int) -> None:
    outcomes, vectors = battles(3000, 8)
    tier = tiers_of(np.linspace(1.2, -1.2, 8), tiers)
    counts = battle_counts(outcomes, 3000, tier)
    index = vectors
    matrices = weighted_counts(index[:5], index, counts)
    exact = tier_ratings(matrices)[:, :-1]
    start = Start.of(counts)
    graph = start.ratings(matrices, start.steps_for(matrices))[:, :-1]
    for row in range(5):
        weights = similarity_weights(index[row : row + 1] @ index.T)[0]
        expected = refit(outcomes, tier, weights)
        if tiers == 8:  # nothing fixes the level of ratings without battles within a tier
            expected = expected - expected.mean()
            exact[row] -= exact[row].mean()
            graph[row] -= graph[row].mean()
        assert np.abs(exact[row] - expected).max() < 1e-4
        assert np.abs(graph[row] - expected).max() < 1e-4


def test_weights_are_routellms() -> None:
    similarity = np.array([[0.8, 0.4, -0.2]], np.float32)
    expected = 10 * 10 ** (similarity / similarity.max())
    assert similarity_weights(similarity) == pytest.approx(expected, rel=1e-5)


def test_tiers_group_like_ratings() -> None:
    ratings = np.array([3.0, 0.1, 2.9, -1.0, 0.0, 3.1])
    assert tiers_of(ratings, 3).tolist() == [0, 1, 0, 2, 1, 0]
    assert sorted(tiers_of(ratings, 10).tolist()) == [0, 1, 2, 3, 4, 5]


def test_the_kernel_router_learns_what_is_local(similarity_bundle: Path, tested: list[PerformanceRecord]) -> None:
    report = evaluate({"similarity": load(similarity_bundle)}, tested, bootstrap=50)
    assert report["similarity"].values["apgr"] > report["random"].values["apgr"] + 0.04


def test_preferences_make_a_kernel_router(tiny_encoder: Path, sample: Sample, tmp_path: Path) -> None:
    config = SimilarityConfig(encoder=str(tiny_encoder), **PAIR)
    router = load(train_similarity(sample.preferences, tmp_path / "r", config))
    assert router.link == "bradley-terry"
    assert len(router.models) == 4


def test_the_ranking_wants_battles(sample: Sample, tiny_encoder: Path, tmp_path: Path) -> None:
    config = SimilarityConfig(encoder=str(tiny_encoder), method="bradley-terry", **PAIR)
    for refuse in (check_similarity, train_similarity):
        with pytest.raises(InputError, match="needs preference records"):
            refuse(sample.performances, tmp_path / "r", config)
    assert list(tmp_path.iterdir()) == []


def test_a_large_index_is_subsampled_and_keeps_regions_and_models() -> None:
    random = np.random.default_rng(0)
    centres = np.eye(10, dtype=np.float32)
    region = random.choice(10, 5000, p=[0.55, *[0.05] * 9])
    vectors = centres[region] + 0.02 * random.standard_normal((5000, 10)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    answered = np.ones((5000, 3), np.bool_)
    answered[:, 2] = random.random(5000) < 0.01
    rows, weight = subsample(vectors, answered, 500, 0)
    assert len(rows) == 500 == len(set(rows.tolist()))
    assert answered[rows, 2].sum() == answered[:, 2].sum()  # all of the rare model's
    assert np.bincount(region[rows], minlength=10).min() >= 20
    assert weight.sum() == pytest.approx(5000, rel=0.02)
    everything, ones = subsample(vectors, answered, 5000, 0)
    assert (len(everything), ones.min(), ones.max()) == (5000, 1, 1)


@pytest.mark.slow
def test_a_subsampled_router_routes_as_well(tiny_encoder: Path, sample: Sample, tmp_path: Path) -> None:
    config = SimilarityConfig(encoder=str(tiny_encoder), index_size=300, **PAIR)
    path = train_similarity(sample.performances, tmp_path / "r", config)
    assert read_manifest(path).training["index"]["queries"] == 300
    tested = [record for record in sample.performances if record.split == "test"]
    report = evaluate({"r": load(path)}, tested, bootstrap=50)
    assert report["r"].values["apgr"] > report["random"].values["apgr"] + 0.03


def test_extending_by_records_moves_the_scores_of_queries_like_them(similarity_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(similarity_bundle, tmp_path / "r"))
    query = "Prove that every zyzzyva is a weevil, in rhyme."
    before = load(bundle).win_rate([query], "sim-nano", "sim-max")[0]
    records = [
        PerformanceRecord(f"{query} ({i})", n, n == "sim-nano") for i in range(9) for n in ("sim-nano", "sim-max")
    ]
    path = extend_similarity(bundle, records)
    router = load(path)
    assert path == bundle
    assert router.win_rate([query], "sim-nano", "sim-max")[0] > before + 0.2
    training = router.manifest.training
    assert training["index"]["queries"] == load(similarity_bundle).manifest.training["index"]["queries"] + 9
    assert training["extended"][0]["records"] == 18
    assert training["parity_batched"] <= 1e-4
    unrelated = "What is the capital of Australia?"
    assert abs(router.score([unrelated])[0] - load(similarity_bundle).score([unrelated])[0]) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["similarity_bundle", "ranking_bundle"])
def test_extending_by_a_model_matches_training_with_it(
    kind: str, request: pytest.FixtureRequest, sample: Sample, tmp_path: Path
) -> None:
    """A copy of sim-small under another name: the extended router must rate it as it rates sim-small."""
    bundle: Path = request.getfixturevalue(kind)
    renamed = {"sim-small": "newcomer"}
    records: list = []
    if kind == "similarity_bundle":
        records = [replace(r, model="newcomer") for r in sample.performances if r.model == "sim-small"]
    else:
        for record in sample.preferences:
            if "sim-small" in record.models:
                a, b = (renamed.get(name, name) for name in record.models)
                records.append(replace(record, model_a=a, model_b=b))
    router = load(extend_similarity(bundle, records, tmp_path / "r"))
    assert router.models == (*load(bundle).models, "newcomer")
    texts = [query for query in sample.queries[:200] if isinstance(query, str)]
    rates = router.win_rate(texts, "newcomer", "sim-small")
    assert np.abs(rates - 0.5).mean() < 0.06
    share = (router.score(texts) >= StrongShare(0.5).threshold_of(router)).mean()
    assert 0.25 < share < 0.75


def test_what_cannot_be_extended_says_why(bundle: Path, similarity_bundle: Path, router: LearnedRouter) -> None:
    records = [PerformanceRecord(f"q{i}", "sim-max", i % 2) for i in range(4)]
    with pytest.raises(InputError, match="only a similarity router"):
        extend_similarity(bundle, records)
    with pytest.raises(InputError, match="no records to add"):
        extend_similarity(similarity_bundle, [replace(record, split="test") for record in records])
    with pytest.raises(InputError, match="cannot take preference records"):
        extend_similarity(
            similarity_bundle, [PreferenceRecord(f"q{i}", "sim-max", "sim-small", i % 2) for i in range(4)]
        )


def test_a_stored_router_of_format_version_3_is_extended(tmp_path: Path) -> None:
    old = Path(__file__).parents[1] / "bundles" / "version-3-similarity"
    before = read_manifest(old)
    records = [PerformanceRecord(f"q{i}, proven", name, i % 2) for i in range(8) for name in ("sim-max", "newcomer")]
    path = extend_similarity(old, records, tmp_path / "r", pool=[Model("newcomer", 1.0, 2.0)])
    after = read_manifest(path)
    assert [model.name for model in after.pool] == [*(model.name for model in before.pool), "newcomer"]
    assert after.pool[-1] == Model("newcomer", 1.0, 2.0)
    assert set(after.training["index"]) == set(before.training["index"])
    assert KernelIndex.from_dict(before.training["index"]).to_dict() == before.training["index"]
    assert after.training["extended"][0]["new_models"] == ["newcomer"]
    assert load(path).models[-1] == "newcomer"


def test_an_index_with_a_wrong_key_is_a_typed_error() -> None:
    manifest = read_manifest(Path(__file__).parents[1] / "bundles" / "version-3-similarity")
    misspelt = {{"prior": "priors"}.get(name, name): value for name, value in manifest.training["index"].items()}
    with pytest.raises(BundleCorruptError, match=r"training\.index of the manifest cannot be read: .*priors"):
        KernelIndex.from_dict(misspelt)
