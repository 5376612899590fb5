from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

import routelearn
from routelearn import FallbackRouter, RulesRouter
from routelearn.cli.main import main
from routelearn.policies.threshold import policy_of
from routelearn.routers import explain
from routelearn.routers.assessment import Assessment
from routelearn.routers.base import Router
from routelearn.routers.decision import Context, Floats, Model
from routelearn.routers.general import GeneralRouter
from routelearn.routers.placement import Placement
from routelearn.routers.query import Query


def test_the_explanation_of_a_learned_router_holds_its_decision_and_qualities(
    router: routelearn.LearnedRouter,
) -> None:
    query = "Prove it step by step."
    found = explain(router, query)
    assert found.decision == router.route(query)
    assert list(found.quality) == list(router.models)
    assert "reasoning" in dict(found.rules)
    assert "which did not decide: " in str(found)
    assert not found.abilities


def test_an_explanation_follows_the_policy() -> None:
    router = RulesRouter("big", "small")
    assert explain(router, "Turtles.", policy=policy_of(0.0, None, False)).decision.threshold == 0.0


def test_an_explanation_follows_the_context() -> None:
    found = explain(RulesRouter("big", "small"), "Turtles.", context={"tier": "premium"})
    assert found.decision.model == "big"


def test_where_rules_decide_the_words_name_them_and_claim_no_quality() -> None:
    found = explain(FallbackRouter(None, strong="big", weak="small", general=False), "Hello there!")
    assert not found.quality
    assert "greeting" in dict(found.rules)
    assert "Rules that fire: very_short -0.4, short -0.4, greeting -1.5." in str(found)
    assert "Expected quality" not in str(found)


def test_an_explanation_is_plain_data_for_json() -> None:
    found = explain(RulesRouter("big", "small"), "Hello there!").as_dict()
    assert json.loads(json.dumps(found))["decision"]["model"] == "small"


def test_the_command_prints_the_explanation_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["routelearn", "route", "rules", "Hello there!", "--explain"])
    try:
        main()
    except SystemExit as end:
        assert end.code in {None, 0}
    assert capsys.readouterr().out == f"{explain(RulesRouter(), 'Hello there!')}\n"


class TwoItems(GeneralRouter):
    """A general router without a graph: every query has difficulty 1, its traffic has the difficulties 0 and 2."""

    def __init__(self) -> None:
        Router.__init__(self, [Model("big"), Model("small")], "big", "small")
        self.placements = (Placement("big", 2.0, "table"), Placement("small", 0.0, "tier"))
        self.manifest = SimpleNamespace(general={"items": [[1.0, 0.0], [1.0, -2.0]]})  # type: ignore[assignment]
        self._abilities = np.array([2.0, 0.0], np.float32)
        self.doubt = ""

    def items(self, queries: Sequence[Query]) -> Floats:
        return np.array([[1.0, -1.0]] * len(queries), np.float32)

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        return Router.assess(self, queries, contexts)


def test_a_general_router_explains_difficulty_its_rank_and_the_placements() -> None:
    found = explain(TwoItems(), "Turtles.")
    assert (found.difficulty, found.harder_than) == (1.0, 0.5)
    assert found.abilities == {"big": 2.0, "small": 0.0}
    assert "The difficulty is 1.00: harder than 50% of the queries" in str(found)
    assert "small is placed only by its tier" in str(found)
