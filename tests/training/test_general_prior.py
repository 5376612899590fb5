"""The general router inside a trained router: how much it counts, and where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.data.sample import Sample
from routelearn.routers.errors import InputError
from routelearn.routers.golden import GOLDEN_QUERIES
from routelearn.routers.loading import load
from routelearn.training.encoders.general_part import GeneralPart
from routelearn.training.fit.novelty import novelty_bound
from routelearn.training.general.familiarity import Background, held_out_familiarity
from routelearn.training.general.prior import GeneralPrior
from routelearn.training.matrix_factorization.config import MatrixFactorizationConfig
from routelearn.training.matrix_factorization.few_labels import share_of_path
from routelearn.training.matrix_factorization.train import check_matrix_factorization, train_matrix_factorization


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@given(
    least=st.floats(0, 1),
    own=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2),
    seed=st.integers(0, 1000),
)
def test_a_blended_quality_lies_between_both(least: float, own: list[float], seed: int) -> None:
    random = np.random.default_rng(seed)
    part = GeneralPart(
        random.standard_normal((5, 2)).astype(np.float32),
        random.standard_normal(2).astype(np.float32),
        least,
        random.standard_normal(4).astype(np.float32),
        float(random.standard_normal()),
    )
    features = random.standard_normal((1, 5)).astype(np.float32)
    general = part.quality(features)
    blended = part.blended(np.array([own], np.float32), features, features[:, :4])
    low, high = np.minimum(general, own), np.maximum(general, own)
    assert ((low - 1e-6 <= blended) & (blended <= high + 1e-6)).all()
    assert least - 1e-6 <= part.share(features[:, :4])[0] <= 1


def test_familiarity_tells_labelled_queries_from_other_traffic() -> None:
    random = np.random.default_rng(0)
    other = unit(random.standard_normal((800, 20)))
    labelled = unit(random.standard_normal((300, 20)) + np.eye(20)[0] * 3)
    background = Background.from_dict(Background.of(other).to_dict())
    weight, offset = background.discriminant(labelled[:200])
    assert ((labelled[200:] @ weight + offset) > 0).mean() > 0.85
    assert ((other @ weight + offset) < 0).mean() > 0.85
    fold = np.arange(300) >= 200
    held_out = held_out_familiarity(labelled, background, [fold], np.ones(300, np.bool_))
    assert np.allclose(held_out, labelled[200:] @ weight + offset)


def test_a_query_of_another_kind_gets_the_quality_of_the_general_router(sample: Sample, tmp_path: Path) -> None:
    config = {"strong": "sim-max", "weak": "sim-small"}
    alone, blended = (
        load(train_matrix_factorization(sample.performances, tmp_path / name, MatrixFactorizationConfig(**more)))
        for name, more in (("alone", {**config, "general": "none"}), ("blended", config))
    )
    queries = [query for query in GOLDEN_QUERIES if isinstance(query, str)]
    abilities = blended.manifest.training["general"]["abilities"]
    general = load("general", strong="sim-max", weak="sim-small")
    items = general.items(queries)
    expected = 1 / (1 + np.exp(-(items[:, :1] * np.array([abilities[name] for name in blended.models]) + items[:, 1:])))
    far = np.abs(blended.quality(queries) - expected).max(axis=1) < 0.03
    assert far.any()
    assert not np.allclose(alone.quality(queries)[far], expected[far], atol=0.05)


def test_a_trained_router_without_the_general_router_has_no_trace_of_it(sample: Sample, tmp_path: Path) -> None:
    config = MatrixFactorizationConfig(strong="sim-max", weak="sim-small", general="none")
    path = train_matrix_factorization(sample.performances, tmp_path / "alone", config)
    assert "general" not in load(path).manifest.training
    assert b"general_weight" not in (path / "model.onnx").read_bytes()


def test_a_router_that_is_no_general_one_is_refused_before_training(
    bundle: Path, sample: Sample, tmp_path: Path
) -> None:
    config = MatrixFactorizationConfig(strong="sim-max", weak="sim-small", general=str(bundle))
    with pytest.raises(InputError, match="expected a general router, such as 'general'"):
        check_matrix_factorization(sample.performances, tmp_path / "out", config)


def test_the_table_places_models_before_any_label() -> None:
    prior = GeneralPrior.read("general")
    assert prior.field["abilities"]["gpt-4o"] > prior.field["abilities"]["gpt-3.5-turbo"]


def test_the_prior_of_few_labels_fades_out() -> None:
    shares = [share_of_path(count) for count in (0, 100, 500, 4500, 4501)]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[2] == 0.5
    assert shares[-1] == 1


@pytest.mark.parametrize("count", [4, 20, 100, 1000])
def test_the_novelty_bound_calls_few_familiar_queries_unfamiliar_however_few_were_held_out(count: int) -> None:
    random = np.random.default_rng(count)
    alarms = []
    for _ in range(200):
        known, new = (random.normal(0.4, 0.08, size).astype(np.float32) for size in (count, 1000))
        alarms.append((new > novelty_bound(known)).mean())
    assert np.mean(alarms) < 0.015
