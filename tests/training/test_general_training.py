"""The general recipe: what the item response model learns, and the bundle that it becomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from routelearn.data.records import PerformanceRecord, PreferenceRecord, Record
from routelearn.routers.base import sigmoid
from routelearn.routers.bundle import read_manifest
from routelearn.routers.errors import InputError
from routelearn.routers.general import GeneralRouter
from routelearn.routers.loading import load
from routelearn.training.examples import Outcomes
from routelearn.training.general.config import GeneralConfig
from routelearn.training.general.item_response import Penalties, _Loss, fit_item_response, source_weights
from routelearn.training.general.train import check_general, train_general

WEAK_PENALTIES = Penalties(difficulty=1, discrimination=1, level=0.1, ability=0.01)


def outcomes(random: np.random.Generator, features: np.ndarray, paired: bool, count: int) -> Outcomes:
    """Outcomes of five models with abilities -2 to 2, at queries whose difficulty is their first feature."""
    ability = np.linspace(-2, 2, 5)
    query = random.integers(0, len(features), count)
    models = np.stack([random.permutation(5)[: 2 if paired else 1] for _ in range(count)])
    logit = ability[models[:, 0]] - (ability[models[:, 1]] if paired else features[query, 0])
    target = (random.random(count) < sigmoid(logit)).astype(np.float32)
    source = np.full(count, int(paired))
    return Outcomes(query, models, target, np.ones(count, np.float32), source)


@pytest.fixture
def problem() -> tuple[np.ndarray, Outcomes, Outcomes]:
    random = np.random.default_rng(0)
    features = random.standard_normal((400, 3))
    return features, outcomes(random, features, False, 6000), outcomes(random, features, True, 3000)


def test_the_gradient_is_that_of_the_loss(problem: tuple[np.ndarray, Outcomes, Outcomes]) -> None:
    features, performances, preferences = problem
    weights = source_weights([performances, preferences], 2, 100, 3.0)
    loss = _Loss(features, list(zip([performances, preferences], weights, strict=True)), 5, 2)
    random = np.random.default_rng(1)
    sizes = {"ability": 5, "mean": 1, "slope": 3, "intercept": 3, "level": 2, "log_scale": 2}
    point = {name: 0.3 * random.standard_normal(size) for name, size in sizes.items()}
    gradient = loss.at(point)[1]
    for name, size in sizes.items():
        for place in range(size):
            step = np.zeros(size)
            step[place] = 1e-5
            ahead, behind = (loss.at({**point, name: point[name] + sign * step})[0] for sign in (1, -1))
            assert gradient[name][place] == pytest.approx((ahead - behind) / 2e-5, rel=1e-4, abs=1e-4), name


def test_abilities_and_difficulties_are_recovered(problem: tuple[np.ndarray, Outcomes, Outcomes]) -> None:
    features, performances, preferences = problem
    fit = fit_item_response(
        features,
        [performances, preferences],
        source_weights([performances, preferences], 2, 400, 1.0),
        models=5,
        sources=2,
        penalties=WEAK_PENALTIES,
    )
    assert (np.diff(fit.ability) > 0).all()
    items = fit.items(features)
    assert np.corrcoef(-items[:, 1] / items[:, 0], features[:, 0])[0, 1] > 0.95


def test_a_source_weighs_as_much_as_its_queries_up_to_the_bound(
    problem: tuple[np.ndarray, Outcomes, Outcomes],
) -> None:
    _, performances, preferences = problem
    first, second = source_weights([performances, preferences], 2, 300, 3.0)
    assert first.sum() == pytest.approx(600)
    assert second.sum() == pytest.approx(1800)


def records() -> list[Record]:
    """Two sources that share models: exams with easy and hard questions, and preferences of a judge."""
    random = np.random.default_rng(2)
    made: list[Record] = []
    for number in range(160):
        hard = number % 2
        prompt = f"{'Prove by induction the theorem' if hard else 'Say hello to friend'} number {number}."
        for model, able in (("tiny", 0.2), ("middle", 0.5), ("large", 0.95)):
            chance = able if hard else 0.9
            score = float(random.random() < chance)
            made.append(PerformanceRecord(prompt, model, score, source="exam"))
        made.append(PreferenceRecord(prompt, "large", "tiny", float(random.random() < 0.8), source="judge"))
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_general(records(), tmp_path_factory.mktemp("general") / "router")


def test_a_trained_router_knows_which_queries_are_hard_and_which_models_are_able(trained: Path) -> None:
    router = load(trained, strong="large", weak="tiny")
    assert isinstance(router, GeneralRouter)
    easy, hard = router.difficulty(["Say hello to friend number 3.", "Prove by induction the theorem number 4."])
    assert hard > easy
    abilities = (router.manifest.general or {})["abilities"]
    assert abilities["large"] > abilities["middle"] > abilities["tiny"]


def test_the_same_records_give_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    again = train_general(records(), tmp_path / "router")
    for path in trained.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_the_manifest_names_sources_and_counts(trained: Path) -> None:
    training = read_manifest(trained).training
    assert training["sources"] == ["exam", "judge"]
    assert (training["performance_records"], training["preference_records"]) == (480, 160)


@pytest.mark.parametrize(
    ("chosen", "settings", "message"),
    [
        ([], {}, "no records to learn from"),
        (records()[3::4], {}, "there are preference records only; expected performance records"),
        (records(), {"traffic": ("judge",)}, r"traffic names \['judge'\]; expected sources with performance records"),
    ],
)
def test_records_that_say_nothing_of_difficulty_are_refused(
    chosen: list[Record], settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        check_general(chosen, tmp_path / "router", GeneralConfig(**settings))  # type: ignore[arg-type]
