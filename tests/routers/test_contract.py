"""One contract for every router, learned or not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.quick import TRANSFORMERS

from routelearn.policies.threshold import Threshold
from routelearn.routers.base import Router
from routelearn.routers.combined import AverageRouter
from routelearn.routers.decision import Decision
from routelearn.routers.errors import InputError
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.routers.rules import RulesRouter

CHAT = [
    {"role": "system", "content": "You are helpful."},
    {"role": "user", "content": [{"type": "text", "text": "What is in it?"}, {"type": "image_url", "image_url": {}}]},
    {"role": "assistant", "content": None},
    {"role": "user", "content": "yes"},
]
ODD = [
    "",
    " ",
    "\x00",
    "a\x00b",
    "🙂👩‍💻🏳️‍🌈",
    "مرحبا، كيف حالك؟ שלום",
    "\ud800 lone surrogate",
    "x" * 100_000,
    "word " * 20_000,
    "日本語のテキスト",
    "\u202e right to left override",
    "\r\n\t",
    CHAT,
    [],
]


#: Routers that run a bundle, by the fixture that trains it.
BUNDLES = {
    "mf": "bundle",
    "similarity": "similarity_bundle",
    "similarity-bradley-terry": "ranking_bundle",
    "bert": "bert_bundle",
    "bert-int8": "int8_bundle",
    "frozen": "frozen_bundle",
    "blended": "blended_bundle",
}
#: A batch of another shape sums in another order: exact where sums are of integers, else the last bits of float32.
TOLERANCE = {"bert": 2e-6, "bert-int8": 2e-3, "frozen": 2e-5, "blended": 2e-5, "similarity-bradley-terry": 2e-6}


ROUTERS = [
    pytest.param(name, marks=pytest.mark.slow) if "bert" in name or BUNDLES.get(name) in TRANSFORMERS else name
    for name in [
        *BUNDLES,
        "general",
        "rules",
        "mf-one-thread",
        "mf-tokenizers",
        "bert-one-thread",
        "average",
        "fallback",
        "fallback-missing",
        "fallback-timeout",
        "fallback-bert",
    ]
]


@pytest.fixture(params=ROUTERS)
def any_router(request: pytest.FixtureRequest, router: LearnedRouter, bundle: object) -> Router:
    makers = {
        **{name: lambda fixture=fixture: load(request.getfixturevalue(fixture)) for name, fixture in BUNDLES.items()},
        "general": lambda: load("general", pool=["gpt-4o", "llama-3.1-8b", "gpt-4o-mini"]),
        "rules": lambda: RulesRouter("sim-max", "sim-small"),
        "mf-one-thread": lambda: load(str(bundle), threads=1),
        "mf-tokenizers": lambda: load(str(bundle), tokenizer="tokenizers"),
        "bert-one-thread": lambda: load(request.getfixturevalue("bert_bundle"), threads=1),
        "average": lambda: AverageRouter([router, load(request.getfixturevalue("similarity_bundle"))]),
        "fallback": lambda: FallbackRouter(router),
        "fallback-missing": lambda: FallbackRouter(None, strong="sim-max", weak="sim-small"),
        "fallback-timeout": lambda: FallbackRouter(router, timeout_s=30),
        "fallback-bert": lambda: FallbackRouter(load(request.getfixturevalue("bert_bundle"))),
    }
    return makers[request.param]()


@pytest.fixture
def tolerance(request: pytest.FixtureRequest) -> float:
    name = request.node.callspec.params["any_router"].removeprefix("fallback-").removesuffix("-one-thread")
    return TOLERANCE.get(name, 1e-6)


def test_quality_is_float32_n_by_m_within_0_and_1(any_router: Router, texts: list[str]) -> None:
    quality = any_router.quality(texts[:50])
    assert quality.shape == (50, len(any_router.models))
    assert quality.dtype == np.float32
    assert np.isfinite(quality).all()
    assert quality.min() >= 0
    assert quality.max() <= 1


def test_scores_are_float32_within_0_and_1(any_router: Router, texts: list[str]) -> None:
    scores = any_router.score(texts[:50])
    assert scores.shape == (50,)
    assert scores.dtype == np.float32
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_the_same_query_gets_the_same_score_twice(any_router: Router, texts: list[str]) -> None:
    assert np.array_equal(any_router.score(texts[:50]), any_router.score(texts[:50]))


def test_a_batch_scores_like_its_queries_one_by_one(any_router: Router, texts: list[str], tolerance: float) -> None:
    queries = [*texts[:60], *ODD]
    batch = any_router.score(queries)
    single = np.concatenate([any_router.score([query]) for query in queries])
    assert np.abs(batch - single).max() < tolerance


def test_a_batch_that_is_cut_into_many_runs_scores_the_same(
    any_router: Router, texts: list[str], tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [*texts[:40], *ODD]
    whole = any_router.assess(queries)
    for name, value in (("TEXTS_PER_CHUNK", 17), ("ROWS_PER_RUN", 3), ("TOKENS_PER_RUN", 64)):
        monkeypatch.setattr(f"routelearn.routers.session.{name}", value)
    cut = any_router.assess(queries)
    assert np.abs(cut.quality - whole.quality).max() < tolerance
    assert np.array_equal(cut.truncated, whole.truncated)


def test_order_within_a_batch_does_not_matter(any_router: Router, texts: list[str], tolerance: float) -> None:
    queries = texts[:80]
    order = np.random.default_rng(0).permutation(80)
    shuffled = any_router.score([queries[i] for i in order])
    assert np.abs(shuffled - any_router.score(queries)[order]).max() < tolerance


def test_an_empty_batch_gives_empty_results(any_router: Router) -> None:
    assert any_router.quality([]).shape == (0, len(any_router.models))
    assert any_router.score([]).shape == (0,)
    assert any_router.route_batch([]) == []


@pytest.mark.parametrize("query", ODD, ids=lambda query: repr(query)[:20])
def test_odd_queries_get_a_decision(any_router: Router, query: object) -> None:
    decision = any_router.route(query)  # type: ignore[arg-type]
    assert isinstance(decision, Decision)
    assert decision.model in any_router.models
    assert 0 <= decision.score <= 1
    assert decision.reason


def test_100k_characters_are_marked_truncated_and_short_ones_are_not(any_router: Router) -> None:
    assert any_router.route("word " * 20_000).truncated
    assert not any_router.route("What is the capital of Australia?").truncated


@pytest.mark.parametrize(
    "query", [None, 7, b"bytes", {"role": "user"}, [{"content_": "x"}], ["text"], [{"content": 3}]]
)
def test_what_is_no_query_is_an_input_error(any_router: Router, query: object) -> None:
    with pytest.raises(InputError):
        any_router.route(query)  # type: ignore[arg-type]


def test_win_rates_of_a_pair_sum_to_one(any_router: Router, texts: list[str]) -> None:
    forth = any_router.win_rate(texts[:30], any_router.strong, any_router.weak)
    back = any_router.win_rate(texts[:30], any_router.weak, any_router.strong)
    assert np.abs(forth + back - 1).max() < 1e-5


def test_an_unknown_model_is_an_input_error_that_lists_the_pool(any_router: Router) -> None:
    with pytest.raises(InputError, match=any_router.strong):
        any_router.win_rate(["x"], "no-such-model", any_router.weak)


def test_decisions_follow_the_threshold_and_rank_the_pool(any_router: Router, texts: list[str]) -> None:
    for decision in any_router.route_batch(texts[:40]):
        expected = any_router.strong if decision.score >= decision.threshold else any_router.weak
        assert decision.model == expected
        assert decision.candidates[0] == decision.model
        assert sorted(decision.candidates) == sorted(any_router.models)


def test_threshold_0_sends_learned_rows_to_strong_and_above_1_to_weak(any_router: Router, texts: list[str]) -> None:
    for value, model in ((0.0, any_router.strong), (1.01, any_router.weak)):
        decisions = any_router.route_batch(texts[:40], Threshold(value))
        learned = [decision for decision in decisions if decision.source == "learned"]
        assert {decision.model for decision in learned} <= {model}


def test_threads_share_a_router(any_router: Router, texts: list[str]) -> None:
    expected = any_router.score(texts[:20])
    with ThreadPoolExecutor(8) as pool:
        for scores in pool.map(lambda _: any_router.score(texts[:20]), range(40)):
            assert np.array_equal(scores, expected)
