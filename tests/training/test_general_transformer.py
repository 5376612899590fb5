"""The general recipe on a transformer that stays as it is."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from helpers.watched_config import watched
from test_general_training import records

from routelearn.routers.bundle import read_manifest
from routelearn.routers.errors import InputError
from routelearn.routers.general import GeneralRouter
from routelearn.routers.loading import load
from routelearn.training.general.config import GeneralConfig
from routelearn.training.general.train import check_general, train_general
from routelearn.training.general.transformer_features import TransformerFeatures

EASY, HARD = "Say hello to friend number 3.", "Prove by induction the theorem number 4."


def settings(encoder: Path, **others: object) -> GeneralConfig:
    return GeneralConfig(
        encoder=str(encoder),
        **{"layers": 1, "max_tokens": 64, "precision": "float32", **others},  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_general(records(), tmp_path_factory.mktemp("general") / "router", settings(tiny_bert))


def test_the_router_knows_which_queries_are_hard_and_places_models(trained: Path) -> None:
    router = load(trained, strong="large", weak="tiny")
    assert isinstance(router, GeneralRouter)
    easy, hard = router.difficulty([EASY, HARD])
    assert hard > easy
    assert [placement.by for placement in router.placements] == ["table", "table"]
    assert router.score([HARD])[0] == pytest.approx(router.route(HARD).score, abs=1e-6)


def test_the_graph_gives_the_items_of_the_fit(trained: Path, tiny_bert: Path) -> None:
    """The head is linear in the features that training used, and the mean and the scale are in the graph."""
    router = load(trained)
    assert isinstance(router, GeneralRouter)
    queries = [record.query for record in records()[::4]]
    features, _ = TransformerFeatures(settings(tiny_bert)).learn(queries)
    items = router.items(queries)
    with_constant = np.column_stack([features, np.ones(len(features))])
    fitted = with_constant @ np.linalg.lstsq(with_constant, items, rcond=None)[0]
    assert np.abs(fitted - items).max() < 1e-3


def test_features_of_new_queries_do_not_depend_on_the_others(tiny_bert: Path) -> None:
    reader = TransformerFeatures(settings(tiny_bert))
    learned, _ = reader.learn([EASY, HARD, "", "a longer query " * 100])
    assert reader.of([HARD]) == pytest.approx(learned[1:2], abs=1e-5)
    assert np.isfinite(learned).all()


def test_the_same_records_and_cached_vectors_give_the_same_bytes(
    trained: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    for name in ("first", "second"):  # the second reads the vectors that the first computed
        config, read = watched(settings(tiny_bert, vectors=str(tmp_path / "vectors.npz")))
        again = train_general(records(), tmp_path / name / "router", config)
        for path in trained.iterdir():
            assert path.read_bytes() == (again / path.name).read_bytes(), path.name
        assert read == {item.name for item in fields(config)}  # no setting is accepted and ignored
    assert str(tmp_path) not in (trained / "router.json").read_text()


def test_int8_makes_the_same_decisions_and_a_smaller_graph(trained: Path, tiny_bert: Path, tmp_path: Path) -> None:
    rounded = train_general(records(), tmp_path / "router", settings(tiny_bert, quantise="int8"))
    manifest = read_manifest(rounded)
    assert manifest.training["flips"] <= 0.01
    assert manifest.golden_tolerance == 0.02
    assert (rounded / "model.onnx").stat().st_size < (trained / "model.onnx").stat().st_size
    scores = [load(path).score([EASY, HARD]) for path in (trained, rounded)]
    assert scores[0] == pytest.approx(scores[1], abs=0.05)


def test_settings_that_do_not_go_together_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="layers is 4, but minilm-static has none; expected a transformer"):
        GeneralConfig(layers=4)
    with pytest.raises(InputError, match="quantise"):
        GeneralConfig(quantise="int8")
    with pytest.raises(InputError, match="layers is 3; expected at most 2"):
        check_general(records(), tmp_path / "router", settings(tiny_bert, layers=3))
    with pytest.raises(InputError, match="reads at most 128"):
        check_general(records(), tmp_path / "router", replace(settings(tiny_bert), max_tokens=256))
