"""The general router on a small transformer, which comes with routelearn as well."""

from __future__ import annotations

import json

import pytest

from routelearn.routers.general import GeneralRouter
from routelearn.routers.golden import GOLDEN_QUERIES
from routelearn.routers.loading import load
from routelearn.routers.shipped import MODELS, shipped_names

NAME = "general-minilm"
HARD = "Prove that every continuous function on a compact set is uniformly continuous, and give a counterexample else."
EASY = "What is the capital of France?"
#: Bytes that the bundles of models/ may take: one, and all together.
LARGEST_BUNDLE, LARGEST_SUM = 25e6, 60e6


@pytest.fixture(scope="module")
def router() -> GeneralRouter:
    loaded = load(NAME, strong="openai/gpt-4o-2024-08-06", weak="meta-llama/Meta-Llama-3-8B-Instruct")
    assert isinstance(loaded, GeneralRouter)
    return loaded


def test_it_is_loaded_by_its_name_and_places_models_by_the_table(router: GeneralRouter) -> None:
    assert NAME in shipped_names()
    assert [placement.by for placement in router.placements] == ["table", "table"]
    assert router.route(HARD).source == "general"


def test_a_harder_query_gets_a_higher_difficulty_and_lower_qualities(router: GeneralRouter) -> None:
    easy, hard = router.difficulty([EASY, HARD])
    assert hard > easy
    assert (router.quality([HARD]) < router.quality([EASY])).all()


def test_one_query_gets_the_score_that_it_gets_in_a_batch(router: GeneralRouter) -> None:
    together = router.score([EASY, HARD, "", HARD * 30])
    assert [router.score([text])[0] for text in (EASY, HARD)] == pytest.approx(together[:2].tolist(), abs=1e-5)


def test_both_general_routers_know_the_same_models(router: GeneralRouter) -> None:
    static = load("general")
    assert isinstance(static, GeneralRouter)
    assert set((router.manifest.general or {})["abilities"]) == set((static.manifest.general or {})["abilities"])


def test_the_golden_queries_are_our_own(router: GeneralRouter) -> None:
    stored = [golden.query for golden in router.manifest.golden]
    assert json.loads(json.dumps(stored)) == json.loads(json.dumps(GOLDEN_QUERIES))


def test_bundles_are_small() -> None:
    sizes = {name: sum(path.stat().st_size for path in (MODELS / name).iterdir()) for name in shipped_names()}
    assert max(sizes.values()) < LARGEST_BUNDLE
    assert sum(sizes.values()) < LARGEST_SUM
