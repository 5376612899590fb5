"""Slips at the interface of routers: each is an InputError that says what to write, and none a silent wrong result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from routelearn.policies.threshold import StrongShare, Threshold
from routelearn.routers.base import Router
from routelearn.routers.combined import AverageRouter, TwoStageRouter
from routelearn.routers.decision import Model
from routelearn.routers.errors import InputError
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.routers.rules import RulesRouter

BUNDLE = Path(__file__).parents[1] / "bundles" / "version-3"
EASY, HARD = "What is 2 plus 2?", "Prove Fermat's last theorem."


class Short(Router):
    """A router of the user, which implements `quality` alone and takes queries by their place."""

    def quality(self, queries: Any) -> Any:
        lengths = [len(queries[i]) for i in range(len(queries))]
        return np.array([[0.9, 1 / (1 + length)] for length in lengths], np.float32)


@pytest.fixture(scope="module")
def learned() -> LearnedRouter:
    return load(BUNDLE)


def routers(learned: LearnedRouter) -> dict[str, Router]:
    return {
        "learned": learned,
        "fallback": FallbackRouter(learned),
        "rules": RulesRouter("large", "small"),
        "rules behind a fallback": FallbackRouter(None, strong="large", weak="small"),
        "two stages": TwoStageRouter(learned, learned),
        "average": AverageRouter([learned, learned]),
        "of the user": Short([Model("large"), Model("small")], "large", "small"),
    }


KINDS = ["learned", "fallback", "rules", "rules behind a fallback", "two stages", "average", "of the user"]
PROMPTS = pd.Series(["hi", EASY, HARD])


def columns() -> dict[str, Any]:
    """Two prompts as people have them in their hands."""
    return {
        "a filtered Series": PROMPTS[PROMPTS.str.len() > 3],
        "a Series with another index": pd.Series([EASY, HARD], index=["a", "b"]),
        "a column of strings": pd.Series([EASY, HARD], dtype="string"),
        "an index": pd.Index([EASY, HARD]),
        "an array": np.array([EASY, HARD]),
        "an array of objects": np.array([EASY, HARD], object),
        "a column of pyarrow": pa.array([EASY, HARD]),
        "a chunked column": pa.chunked_array([[EASY], [HARD]]),
        "a tuple": (EASY, HARD),
        "a generator": (query for query in (EASY, HARD)),
        "keys of a mapping": {EASY: 1, HARD: 2}.keys(),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_two_are_scored_as_the_list_is(kind: str, learned: LearnedRouter) -> None:
    router = routers(learned)[kind]
    scores, decisions = router.score([EASY, HARD]).tolist(), router.route_batch([EASY, HARD])
    for name in columns():
        assert router.score(columns()[name]).tolist() == scores, name
        assert router.win_rate(columns()[name], router.strong, router.weak).tolist() == scores, name
        assert router.route_batch(columns()[name]) == decisions, name
        assert len(router.assess(columns()[name]).quality) == 2, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_filtered_column_of_one_is_scored_as_the_list_is(kind: str, learned: LearnedRouter) -> None:
    router, one = routers(learned)[kind], PROMPTS[PROMPTS.str.contains("Prove")]
    assert router.score(one).tolist() == router.score([HARD]).tolist()
    assert router.route_batch(one) == [router.route(HARD)]
    if router.threshold_table:
        assert router.route_batch(one, StrongShare(0.3)) == [router.route(HARD, StrongShare(0.3))]


NO_QUERIES: dict[str, tuple[Any, str]] = {
    "a text": ("hello", r"expected a list of queries: \['hello'\]"),
    "a letter": ("h", r"expected a list of queries: \['h'\]"),
    "bytes": (b"hello", "expected a list of queries"),
    "a message": ({"role": "user", "content": "hi"}, r"\[messages\]"),
    "a chat": ([{"role": "user", "content": "hi"}], r"\[message\]"),
    "a frame": (pd.DataFrame({"prompt": [EASY]}), r"frame\['prompt'\]"),
    "a table": (pa.table({"prompt": [EASY]}), r"frame\['prompt'\]"),
    "a matrix": (np.array([[EASY]]), "several columns"),
    "a set": ({EASY}, "no order"),
    "a number": (5, "expected a list of queries"),
    "nothing": (None, "expected a list of queries"),
    "numbers": ([5], "expected a string or a list of messages"),
    "a missing value": (pd.Series([EASY, None], dtype=object), "expected a string or a list of messages"),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "of the user"])
@pytest.mark.parametrize("wrong", NO_QUERIES)
def test_what_is_no_batch_of_queries_is_refused(kind: str, wrong: str, learned: LearnedRouter) -> None:
    router, (value, told) = routers(learned)[kind], NO_QUERIES[wrong]
    calls: list[Callable[[Any], object]] = [
        router.score,
        router.quality,
        router.assess,
        router.route_batch,
        lambda queries: router.win_rate(queries, router.strong, router.weak),
    ]
    for call in calls:
        with pytest.raises(InputError, match=told):
            call(value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (0.5, r"Threshold\(0.5\) or StrongShare\(0.5\)"),
        (1, r"Threshold\(1\)"),
        ("0.5", r"such as Threshold\(0.5\)"),
        (Threshold, r"an object: Threshold\(...\)"),
        ({"tier": "pro"}, "context="),
        ([Threshold(0.5)], "expected a policy"),
        (RulesRouter("a", "b"), "expected a policy"),
    ],
)
def test_what_is_no_policy_is_refused(kind: str, policy: Any, told: str, learned: LearnedRouter) -> None:
    router = routers(learned)[kind]
    with pytest.raises(InputError, match=told):
        router.route(EASY, policy)
    with pytest.raises(InputError, match=told):
        router.route_batch([EASY, HARD], policy)


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_one_context_for_each_query(kind: str, learned: LearnedRouter) -> None:
    router = routers(learned)[kind]
    assert len(router.route_batch([EASY, HARD], None, [{"tier": "pro"}, {}])) == 2
    for contexts in ([], [{}], [{}, {}, {}]):
        with pytest.raises(InputError, match="contexts and 2 queries"):
            router.route_batch([EASY, HARD], None, contexts)
    wrong: Any
    for wrong in ({"tier": "pro"}, "pro", ["pro", "free"], [None, None]):
        with pytest.raises(InputError, match=r"expected a (list|mapping)"):
            router.route_batch([EASY, HARD], None, wrong)
    for wrong in ("pro", [{"tier": "pro"}]):
        with pytest.raises(InputError, match=r"expected a mapping, such as \{'tier': 'pro'\}"):
            router.route(EASY, None, wrong)


@pytest.mark.parametrize(
    ("threshold", "told"),
    [
        (Threshold(0.5), r"policy.decide\(router, assessment\)"),
        (StrongShare(0.5), r"policy.decide\(router, assessment\)"),
        ("0.5", "expected a number"),
        (None, "expected a number"),
        (float("nan"), "expected a number"),
    ],
)
def test_decide_takes_a_threshold_and_says_how_a_policy_is_asked(
    threshold: Any, told: str, learned: LearnedRouter
) -> None:
    with pytest.raises(InputError, match=told):
        learned.decide(learned.assess([EASY]), threshold)
    with pytest.raises(InputError, match=told):
        RulesRouter("a", "b").decide(RulesRouter("a", "b").assess([EASY]), threshold)


def test_decide_takes_any_number_and_an_assessment_alone(learned: LearnedRouter) -> None:
    assessment = learned.assess([EASY])
    for zero in (0, 0.0, np.float32(0), np.float64(0)):
        assert learned.decide(assessment, zero)[0].model == learned.strong  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected router.assess\(queries\)"):
        learned.decide([EASY], 0.5)  # type: ignore[arg-type]


def wrong_calls(learned: LearnedRouter) -> Iterator[Callable[[], object]]:
    some: Any = learned
    yield lambda: load(5)  # type: ignore[arg-type]
    yield lambda: load(None)  # type: ignore[arg-type]
    yield lambda: load(some)
    yield lambda: load(BUNDLE, threads="2")  # type: ignore[arg-type]
    yield lambda: load(BUNDLE, threads=0)
    yield lambda: load(BUNDLE, tokenizer="fast")  # type: ignore[arg-type]
    yield lambda: FallbackRouter(5, strong="a", weak="b")  # type: ignore[arg-type]
    yield lambda: FallbackRouter(BUNDLE, timeout_s="5")  # type: ignore[arg-type]
    yield lambda: FallbackRouter(BUNDLE, novelty_bound="5")  # type: ignore[arg-type]
    yield lambda: FallbackRouter(BUNDLE, rules="rules.toml")  # type: ignore[arg-type]
    yield lambda: FallbackRouter(BUNDLE, strong=Model("a"), weak="b")  # type: ignore[arg-type]
    yield lambda: RulesRouter("a", "b", rules="rules.toml")  # type: ignore[arg-type]
    yield lambda: RulesRouter(Model("a"), Model("b"))  # type: ignore[arg-type]
    yield lambda: Short(["large", "small"], "large", "small")  # type: ignore[list-item]
    yield lambda: Short([Model("a"), Model("b")], "a", "b", threshold="0.5")  # type: ignore[arg-type]
    yield lambda: learned.index(["sim-max"])  # type: ignore[arg-type]
    yield lambda: learned.win_rate([EASY], 0, 1)  # type: ignore[arg-type]
    yield lambda: TwoStageRouter("a/", "b/")  # type: ignore[arg-type]
    yield lambda: TwoStageRouter(learned, learned, share=20)
    yield lambda: TwoStageRouter(learned, learned, share="0.2")  # type: ignore[arg-type]
    yield lambda: AverageRouter(some)
    yield lambda: AverageRouter("a/")  # type: ignore[arg-type]
    yield lambda: AverageRouter(["a/"])  # type: ignore[list-item]
    yield lambda: AverageRouter([learned, learned], queries="hello")
    yield lambda: Model(5)  # type: ignore[arg-type]
    yield lambda: Model("")
    yield lambda: Model("m", "0.15")  # type: ignore[arg-type]
    yield lambda: Model("m", 0.15, [1])  # type: ignore[arg-type]
    yield lambda: Model("m", True)
    yield lambda: learned.route([EASY, HARD])  # type: ignore[list-item]
    yield lambda: learned.route({"role": "user", "content": "hi"})  # type: ignore[arg-type]


@pytest.mark.parametrize("number", range(31))
def test_other_slips_say_what_was_expected(number: int, learned: LearnedRouter) -> None:
    calls = list(wrong_calls(learned))
    assert len(calls) == 31
    with pytest.raises(InputError, match="expected"):
        calls[number]()
