from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import wait as wait_for
from pathlib import Path

import numpy as np
import pytest

from routelearn.policies.threshold import Threshold
from routelearn.routers.base import Link, Router, win_rate
from routelearn.routers.decision import Floats, Model
from routelearn.routers.errors import BundleCorruptError, InputError
from routelearn.routers.fallback import WORKERS, FallbackRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.query import Query
from routelearn.routers.rules import RulesRouter

HARD = "Prove the theorem step by step."


class Scripted(Router):
    """A router that answers what a test tells it to."""

    def __init__(self, answer: Callable[[int], Floats], link: Link = "difference") -> None:
        super().__init__([Model("big"), Model("small"), Model("other")], "big", "small", link=link)
        self.answer = answer

    def quality(self, queries: Sequence[Query]) -> Floats:
        return self.answer(len(queries))


def constant(n: int) -> Floats:
    return np.tile(np.array([0.8, 0.6, 0.5], np.float32), (n, 1))


def test_a_sound_answer_is_passed_on_as_learned() -> None:
    decision = FallbackRouter(Scripted(constant)).route(HARD)
    assert decision.source == "learned"
    assert decision.score == pytest.approx(0.6)


def test_no_bundle_is_answered_by_rules() -> None:
    decision = FallbackRouter(None, strong="big", weak="small", general=False).route("hi")
    assert (decision.source, decision.model) == ("rules", "small")
    assert "no learned router" in decision.reason


def test_rules_alone_need_the_names_of_both_models() -> None:
    with pytest.raises(InputError, match="give the names of the strong and the weak model"):
        FallbackRouter(None, strong="big")


def test_a_bundle_that_does_not_load_is_answered_by_rules(bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    (broken / "model.onnx").write_bytes(b"no model")
    router = FallbackRouter(broken, strong="big", weak="small", general=False)
    assert isinstance(router.load_error, BundleCorruptError)
    decision = router.route(HARD)
    assert decision.source == "rules"
    assert "does not load (BundleCorruptError" in decision.reason
    assert FallbackRouter(tmp_path / "none", strong="big", weak="small", general=False).route(LONG).model == "big"


LONG = "A plain remark about turtles in the garden of a neighbour who likes them a lot. " * 3


def test_when_neither_knows_the_answer_is_strong_and_says_default() -> None:
    decision = FallbackRouter(None, strong="big", weak="small", general=False).route(LONG)
    assert (decision.model, decision.source) == ("big", "default")


def test_an_inference_error_is_answered_by_rules() -> None:
    def fail(n: int) -> Floats:
        raise RuntimeError("no memory")

    decision = FallbackRouter(Scripted(fail), general=False).route(HARD)
    assert decision.source == "rules"
    assert "failed (RuntimeError)" in decision.reason


def test_the_callers_mistake_is_not_hidden(router: LearnedRouter) -> None:
    with pytest.raises(InputError):
        FallbackRouter(router).route(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.5])
def test_an_answer_that_is_no_probability_is_replaced_in_its_row_only(bad: float) -> None:
    def one_bad(n: int) -> Floats:
        quality = constant(n)
        quality[1, 0] = bad
        return quality

    decisions = FallbackRouter(Scripted(one_bad), general=False).route_batch([HARD, HARD, HARD])
    assert [decision.source for decision in decisions] == ["learned", "rules", "learned"]
    assert "no probability" in decisions[1].reason


def test_an_answer_of_the_wrong_shape_is_answered_by_rules() -> None:
    decision = FallbackRouter(Scripted(lambda n: np.zeros((n, 2), np.float32)), general=False).route(HARD)
    assert decision.source == "rules"
    assert "shape" in decision.reason


def test_a_model_that_was_never_seen_is_answered_by_rules() -> None:
    router = FallbackRouter(Scripted(constant), strong="brand-new", weak="small", general=False)
    decision = router.route(HARD)
    assert decision.source == "rules"
    assert "'brand-new' was never seen" in decision.reason
    assert "brand-new" in router.models


def test_a_slow_router_is_answered_by_rules_and_recovers() -> None:
    release = threading.Event()

    def wait(n: int) -> Floats:
        release.wait(20)
        return constant(n)

    router = FallbackRouter(Scripted(wait), timeout_s=0.05)
    for _ in range(WORKERS):
        assert "took longer than 0.05 s" in router.route(HARD).reason
    assert "still busy" in router.route(HARD).reason
    release.set()
    wait_for(router._stuck)
    assert router.route(HARD).source == "learned"


def test_an_unfamiliar_query_is_answered_by_rules(router: LearnedRouter, texts: list[str]) -> None:
    strange = "ζωή ψυχή λόγος"
    decision = FallbackRouter(router, general=False).route(strange)
    assert decision.source in {"rules", "default"}
    assert "unlike the training queries" in decision.reason
    familiar = [d.source for d in FallbackRouter(router, general=False).route_batch(texts[20:220])]
    assert familiar.count("learned") > 190


def test_a_bound_can_be_set_and_no_bound_trusts_everything(router: LearnedRouter) -> None:
    assert FallbackRouter(router, novelty_bound=2.0, general=False).route("ζωή ψυχή").source == "learned"
    assert FallbackRouter(router, novelty_bound=-1.0, general=False).route(HARD).source == "rules"


@pytest.mark.parametrize("link", ["difference", "bradley-terry"])
def test_quality_of_ruled_rows_gives_back_the_rules_score(link: Link) -> None:
    def fail(n: int) -> Floats:
        raise RuntimeError

    router = FallbackRouter(Scripted(fail, link), general=False)
    queries: list[Query] = ["hi", HARD, "What is 2+2? Why? How?", "Turtles."]
    quality = router.quality(queries)
    expected = RulesRouter("big", "small").score(queries)
    assert np.abs(win_rate(quality[:, 0], quality[:, 1], link) - expected).max() < 1e-4
    assert (quality[:, 2] == 0).all()


def test_ruled_rows_keep_the_rules_threshold() -> None:
    router = FallbackRouter(None, strong="big", weak="small", general=False)
    assert router.route("hi", Threshold(0.01)).model == "small"


def test_a_bad_timeout_is_an_input_error() -> None:
    with pytest.raises(InputError, match="timeout_s"):
        FallbackRouter(None, strong="a", weak="b", timeout_s=0)
