"""The general router: it comes with routelearn, and any models can be placed in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routelearn.routers.abilities import canonical_name
from routelearn.routers.errors import InputError
from routelearn.routers.general import GeneralRouter
from routelearn.routers.golden import GOLDEN_QUERIES
from routelearn.routers.loading import load
from routelearn.routers.placement import ability_at, quality_of
from routelearn.routers.shipped import MODELS, shipped_names

HARD = "Prove that every continuous function on a compact set is uniformly continuous, and give a counterexample else."
EASY = "What is the capital of France?"


def general(**models: object) -> GeneralRouter:
    router = load("general", **models)  # type: ignore[arg-type]
    assert isinstance(router, GeneralRouter)
    return router


def test_the_general_router_is_loaded_by_its_name() -> None:
    assert "general" in shipped_names()
    router = general()
    assert (router.strong, router.weak) == ("strong", "weak")
    decision = router.route(HARD)
    assert (decision.model, decision.source) == ("strong", "general")


def test_a_folder_of_that_name_comes_before_the_shipped_router(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "general").symlink_to(bundle)
    monkeypatch.chdir(tmp_path)
    assert load("general").strong == "sim-max"


def test_a_harder_query_gets_a_higher_difficulty_and_lower_qualities() -> None:
    router = general(strong="gpt-4o", weak="llama-3.1-8b")
    easy, hard = router.difficulty([EASY, HARD])
    assert hard > easy
    assert (router.quality([HARD]) < router.quality([EASY])).all()


def test_models_of_the_table_are_found_by_any_spelling() -> None:
    names = ["openai/gpt-4o-2024-08-06", "meta-llama/Meta-Llama-3-8B-Instruct"]
    router = general(strong=names[0], weak=names[1])
    assert router.models == tuple(names)
    assert [one.by for one in router.placements] == ["table", "table"]
    assert router.placements[0].ability > router.placements[1].ability
    assert "calibrated" not in router.route(HARD).reason


def test_models_of_which_nothing_is_known_are_placed_by_their_tier_and_the_decision_says_so() -> None:
    router = general(strong="brand-new-large", weak="brand-new-small")
    assert [one.by for one in router.placements] == ["tier", "tier"]
    assert "brand-new-large is placed only by its tier" in router.route(HARD).reason
    assert "the score is not calibrated" in router.route(HARD).reason


def test_an_unknown_strong_model_is_placed_above_a_known_weak_one() -> None:
    router = general(strong="brand-new", weak="o1-preview")
    assert router.placements[0].ability > router.placements[1].ability


def test_a_mean_score_places_a_model_so_that_its_mean_quality_over_the_traffic_is_that_score() -> None:
    router = general(strong="a", weak="b", ability={"a": 0.9, "b": 0.6})
    items = np.asarray((router.manifest.general or {})["items"])
    abilities = np.array([one.ability for one in router.placements])
    assert quality_of(items, abilities).mean(axis=0) == pytest.approx([0.9, 0.6], abs=1e-6)


def test_arena_ratings_place_models_in_their_order() -> None:
    router = general(pool=["a", "b", "c"], ability={"a": 1250, "b": 1100, "c": 1300})
    assert (router.strong, router.weak) == ("c", "b")
    assert {one.by for one in router.placements} == {"rating"}


def test_the_default_threshold_sends_half_of_the_traffic_to_strong() -> None:
    router = general(strong="gpt-4o", weak="gpt-4o-mini")
    items = np.asarray((router.manifest.general or {})["items"])
    quality = quality_of(items, np.array([one.ability for one in router.placements]))
    scores = 0.5 + (quality[:, 0] - quality[:, 1]) / 2
    assert (scores.astype(np.float32) >= router.threshold).mean() == pytest.approx(0.5, abs=0.01)


def test_one_query_gets_the_score_that_it_gets_in_a_batch() -> None:
    router = general(strong="gpt-4o", weak="gpt-4o-mini")
    queries = [query for query in GOLDEN_QUERIES if isinstance(query, str)]
    assert [float(router.score([query])[0]) for query in queries] == pytest.approx(router.score(queries), abs=1e-6)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"pool": ["gpt-4o", "never-heard-of", "gpt-4o-mini"]}, "'never-heard-of' is not in the table of abilities"),
        ({"strong": "gpt-4o", "weak": "gpt-4o"}, "strong and weak are both 'gpt-4o'|two or more"),
        ({"strong": "a", "weak": "b", "ability": {"c": 0.5}}, r"ability names \['c'\]; expected models among"),
        ({"strong": "a", "weak": "b", "ability": {"a": 7}}, r"ability\['a'\] is 7; expected a mean score above 0"),
        ({"strong": "a", "weak": "b", "ability": {"a": "high"}}, r"ability\['a'\] is 'high'; expected a mean score"),
        ({"pool": ["gpt-4o"]}, r"the pool has the models \['gpt-4o'\]; expected two or more"),
    ],
)
def test_models_that_cannot_be_placed_are_refused(models: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        general(**models)


def test_a_bundle_with_models_of_its_own_takes_no_others(bundle: Path) -> None:
    with pytest.raises(InputError, match=r"strong: no effect on .* a matrix-factorization router with models of its"):
        load(bundle, strong="gpt-4o")


@given(st.lists(st.tuples(st.floats(0.05, 3), st.floats(-4, 4)), min_size=1, max_size=20), st.floats(0.02, 0.98))
def test_an_ability_is_found_for_every_mean_score(items: list[tuple[float, float]], score: float) -> None:
    array = np.asarray(items)
    assert quality_of(array, np.array([ability_at(array, score)])).mean() == pytest.approx(score, abs=1e-6)


@given(st.text(max_size=40))
@example("0\x1f@")
@example("-it\x1f/A-chat-2024-01-01-fp8")
def test_a_canonical_name_is_its_own_canonical_name(name: str) -> None:
    once = canonical_name(name)
    assert canonical_name(once) == once


def test_no_text_of_a_data_set_stands_in_a_shipped_bundle() -> None:
    for name in shipped_names():
        manifest = json.loads((MODELS / name / "router.json").read_text())
        assert [item["query"] for item in manifest["golden"]] == json.loads(json.dumps(GOLDEN_QUERIES))
        sizes = sum(path.stat().st_size for path in (MODELS / name).iterdir())
        assert sizes < 25e6


@pytest.mark.slow
def test_the_command_line_routes_with_no_data_no_home_and_no_network(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "routelearn", "route", "general", HARD, "--strong", "gpt-4o", "--weak", "gpt-4o-mini"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        timeout=120,
    )
    decision = json.loads(done.stdout)
    assert decision["source"] == "general"
    assert sorted(decision["candidates"]) == ["gpt-4o", "gpt-4o-mini"]
