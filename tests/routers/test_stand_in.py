"""What answers where a learned router cannot: the general router, then rules, then the strong model."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from routelearn.policies import Explore, StrongShare, Threshold
from routelearn.routers import AverageRouter, GeneralRouter, LearnedRouter, Query, Router, load
from routelearn.routers.base import Link, learned_rows, win_rate
from routelearn.routers.decision import Floats, Model
from routelearn.routers.errors import InputError
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.shipped import MODELS
from routelearn.routers.stand_in import StandIn, shipped_general

KNOWN = "Prove that the square root of 2 is irrational."
#: Unlike what the general router learned from: rules fire for the first and not for the second.
GREETING, TURTLES = "hi", "Turtles. " * 40
BROKEN = "no probability"
STRONG, WEAK = "gpt-4o", "gpt-4o-mini"


class Scripted(Router):
    """A router of three models, which gives no probability for queries that say so."""

    def __init__(self, link: Link = "difference") -> None:
        super().__init__([Model(STRONG), Model(WEAK), Model("other")], STRONG, WEAK, link=link)

    def quality(self, queries: Sequence[Query]) -> Floats:
        rows = [[np.nan] * 3 if BROKEN in str(query) else [0.8, 0.6, 0.5] for query in queries]
        return np.array(rows, np.float32)


class Failing(Scripted):
    def quality(self, queries: Sequence[Query]) -> Floats:
        raise RuntimeError("no memory")


def general(**arguments: object) -> GeneralRouter:
    router = load("general", **arguments)  # type: ignore[arg-type]
    assert isinstance(router, GeneralRouter)
    return router


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The bundle of the general router, damaged."""
    shutil.copytree(MODELS / "general", tmp_path / "broken")
    (tmp_path / "broken" / "model.onnx").write_bytes(b"no model")
    return tmp_path / "broken"


def test_the_order_is_learned_then_general_then_rules_then_strong() -> None:
    router = FallbackRouter(Scripted())
    queries = [KNOWN, f"{KNOWN} {BROKEN}"]
    assert [one.source for one in router.route_batch(queries)] == ["learned", "general"]
    missing = FallbackRouter(None, strong=STRONG, weak=WEAK)
    decisions = missing.route_batch([KNOWN, GREETING, TURTLES])
    assert [one.source for one in decisions] == ["general", "rules", "default"]
    assert decisions[2].model == STRONG


def test_each_decision_says_why_the_learned_router_did_not_decide_and_what_the_one_in_its_place_found() -> None:
    router = FallbackRouter(Failing(), strong="brand-new-large", weak="brand-new-small")
    known, unlike = router.route_batch([KNOWN, GREETING])
    assert (known.cause, unlike.cause) == ("unknown-model", "unknown-model")
    assert known.reason.startswith("model 'brand-new-small' was never seen in the router's training; score 0.5")
    assert "brand-new-large is placed only by its tier" in known.reason
    assert "unlike the queries that the general router learned from (novelty" in unlike.reason
    assert "rules: very_short" in unlike.reason


@pytest.mark.parametrize("cause", ["no-router", "load-failed", "error", "novel", "invalid"])
def test_whatever_keeps_the_learned_router_from_answering_the_general_router_does(
    cause: str, router: LearnedRouter, tmp_path: Path
) -> None:
    made: dict[str, Callable[[], FallbackRouter]] = {
        "no-router": lambda: FallbackRouter(None, strong=STRONG, weak=WEAK),
        "load-failed": lambda: FallbackRouter(tmp_path / "none", strong=STRONG, weak=WEAK),
        "error": lambda: FallbackRouter(Failing()),
        "novel": lambda: FallbackRouter(router, novelty_bound=-1.0),
        "invalid": lambda: FallbackRouter(Scripted()),
    }
    decision = made[cause]().route(f"{KNOWN} {BROKEN}")
    assert (decision.source, decision.cause) == ("general", cause)


def test_a_router_that_is_too_slow_is_answered_by_rules_at_once() -> None:
    release = threading.Event()

    class Slow(Scripted):
        def quality(self, queries: Sequence[Query]) -> Floats:
            release.wait(20)
            return super().quality(queries)

    decision = FallbackRouter(Slow(), timeout_s=0.05).route(KNOWN)
    release.set()
    assert (decision.source, decision.cause) == ("rules", "timeout")


def test_without_the_general_router_rules_answer() -> None:
    router = FallbackRouter(Failing(), general=False)
    assert router.general is None
    assert router.route(KNOWN).source == "rules"


def test_the_novelty_bound_of_each_router_holds_for_its_own_answers(router: LearnedRouter) -> None:
    strange = "ζωή ψυχή λόγος"
    assert FallbackRouter(router).route(strange).source == "general"
    assert FallbackRouter(router, novelty_bound=2.0).route(strange).source == "learned"
    assert FallbackRouter(router, novelty_bound=-1.0).route(GREETING).source == "rules"


def test_rows_that_the_general_router_answers_have_its_score_and_its_threshold_for_the_pair() -> None:
    router, alone = FallbackRouter(Failing()), general(strong=STRONG, weak=WEAK)
    found = router.assess([KNOWN, GREETING])
    assert found.sources == ["general", "rules"]
    assert found.thresholds is not None
    assert found.thresholds.tolist() == [alone.threshold, router.rules.threshold]
    assert router.score([KNOWN]).tolist() == pytest.approx(alone.score([KNOWN]).tolist(), abs=1e-6)
    assert found.quality[0].tolist() == [*alone.quality([KNOWN])[0].tolist(), 0.0]


def test_a_score_stays_the_same_where_the_learned_router_has_another_link() -> None:
    router = FallbackRouter(Failing("bradley-terry"))
    quality = router.quality([KNOWN])
    expected = general(strong=STRONG, weak=WEAK).score([KNOWN])
    assert abs(win_rate(quality[:, 0], quality[:, 1], "bradley-terry") - expected).max() < 1e-4


@pytest.mark.parametrize("policy", [Threshold(0.0), Threshold(1.0), StrongShare(0.5)])
def test_a_policy_does_not_move_rows_that_the_general_router_answers(policy: Threshold | StrongShare) -> None:
    router = FallbackRouter(None, strong=STRONG, weak=WEAK)
    assert router.route(KNOWN, policy) == router.route(KNOWN)


def test_rows_that_the_general_router_answers_are_not_explored_and_not_counted_as_learned() -> None:
    router = FallbackRouter(Scripted())
    queries = [KNOWN, f"{KNOWN} {BROKEN}"]
    assert learned_rows(router.assess(queries)) == [0]
    learned, stood_in = router.route_batch(queries, Explore(epsilon=1.0, seed=0))
    assert learned.propensity < 1
    assert stood_in.propensity == 1


def test_the_average_of_general_routers_is_an_average() -> None:
    routers = [general(strong=STRONG, weak=WEAK, ability={STRONG: one}) for one in (0.9, 0.7)]
    expected = np.mean([one.quality([KNOWN]) for one in routers], axis=0)
    assert np.allclose(AverageRouter(routers).quality([KNOWN]), expected)


def test_a_damaged_general_bundle_is_answered_by_rules_with_one_line_in_the_log(
    broken: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        router = FallbackRouter(None, strong=STRONG, weak=WEAK, general=broken)
        assert [router.route(KNOWN).source for _ in range(3)] == ["rules"] * 3
    assert len(caplog.records) == 1
    assert "the general router does not load, rules answer" in caplog.text


def test_a_bundle_of_another_kind_is_no_general_router(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert FallbackRouter(None, strong=STRONG, weak=WEAK, general=bundle).general is None
    assert "expected a general router" in caplog.text


def test_a_general_router_that_fails_is_answered_by_rules() -> None:
    class Broken(GeneralRouter):
        def placed(self, **_: object) -> GeneralRouter:  # type: ignore[override]
            return self

        def assess(self, queries: object, contexts: object = None) -> object:  # type: ignore[override]
            raise RuntimeError("no memory")

    alone = general(strong=STRONG, weak=WEAK)
    router = FallbackRouter(
        None, strong=STRONG, weak=WEAK, general=Broken(alone.manifest, alone._session, alone.placements)
    )
    decision = router.route(KNOWN)
    assert (decision.source, decision.cause) == ("rules", "no-router")


def test_the_general_router_is_not_loaded_while_the_learned_router_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    real = StandIn._open
    monkeypatch.setattr(StandIn, "_open", lambda self: opened.append(self) or real(self))
    router = FallbackRouter(Scripted())
    router.route_batch([KNOWN, KNOWN])
    assert not opened
    router.route(BROKEN)
    assert len(opened) == 1


def test_many_threads_open_the_general_router_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    real = StandIn._open
    monkeypatch.setattr(StandIn, "_open", lambda self: opened.append(self) or real(self))
    router = FallbackRouter(Failing())
    with ThreadPoolExecutor(8) as threads:
        decisions = list(threads.map(router.route, [KNOWN] * 40))
    assert {one.source for one in decisions} == {"general"}
    assert len(opened) == 1


def test_the_shipped_router_is_loaded_once_a_process() -> None:
    assert shipped_general() is shipped_general()


def test_the_name_general_gives_a_learned_router_for_the_named_pair() -> None:
    router = FallbackRouter("general", strong=STRONG, weak="brand-new")
    decision = router.route(KNOWN)
    assert (router.unavailable, router.models) == (None, (STRONG, "brand-new"))
    assert (decision.source, decision.cause) == ("general", "threshold")
    assert "brand-new is placed only by its tier" in decision.reason
    assert router.route(GREETING).source == "rules"


def test_a_general_router_is_placed_for_another_pair_and_keeps_what_is_known_of_a_model() -> None:
    mine = general(strong="mine", weak=WEAK, ability={"mine": 0.95})
    router = FallbackRouter(mine, strong="mine", weak=STRONG)
    assert router.models == ("mine", STRONG)
    assert isinstance(router.learned, GeneralRouter)
    assert [one.by for one in router.learned.placements] == ["score", "table"]
    assert router.learned.placements[0] == mine.placements[0]
    assert FallbackRouter(mine).learned is mine


def test_a_pool_stays_the_pool_of_a_general_router_that_is_placed_for_another_pair() -> None:
    pool = [Model(STRONG, 2.5, 10.0), Model("llama-3.1-8b"), Model(WEAK)]
    placed = general(pool=pool).placed(strong=STRONG, weak=WEAK)
    assert placed.pool == tuple(pool)
    assert (placed.strong, placed.weak) == (STRONG, WEAK)
    assert placed.threshold == pytest.approx(general(strong=STRONG, weak=WEAK).threshold)


def test_a_general_router_of_ones_own_stands_in_with_its_abilities() -> None:
    mine = general(strong=STRONG, weak=WEAK, ability={STRONG: 0.99, WEAK: 0.05})
    router = FallbackRouter(None, strong=STRONG, weak=WEAK, general=mine)
    assert router.score([KNOWN]).tolist() == pytest.approx(mine.score([KNOWN]).tolist(), abs=1e-6)


def test_what_is_no_general_router_is_an_input_error() -> None:
    with pytest.raises(InputError, match="general is 5; expected True, False, a general router"):
        FallbackRouter(None, strong="a", weak="b", general=5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="general is None"):
        FallbackRouter(None, strong="a", weak="b", general=None)  # type: ignore[arg-type]
