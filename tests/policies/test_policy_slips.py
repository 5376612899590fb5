"""Slips at the interface of policies: each is an InputError that says what to write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.policies import NAMES, TableRouter
from helpers.slips import Slip, says_what_to_write

from routelearn.policies.composed import ByContext, Explore, TopK
from routelearn.policies.conversation import Conversations
from routelearn.policies.cost import CostPerThousand, budget_threshold
from routelearn.policies.objective import Objective, cost_aware
from routelearn.policies.switch_price import margin_of_cost, switch_cost
from routelearn.policies.threshold import GuaranteedThreshold, StrongShare, Threshold
from routelearn.routers.decision import Model
from routelearn.routers.errors import InputError

ROUTER: Any = TableRouter([[0.9, 0.5, 0.2], [0.5, 0.5, 0.5]])
DECISION: Any = ROUTER.route("0")
MODEL: Any = Model("large", 10.0, 30.0)
PRO: Any = {"pro": Threshold(0.5)}

SLIPS: list[Slip] = [
    (StrongShare, (30,), {}, r"for 30 %, write 0.3"),
    (StrongShare, (2.5,), {}, r"for 2.5 %, write 0.025"),
    (StrongShare, ("30%",), {}, "a number from 0 to 1"),
    (StrongShare, (None,), {}, "a number from 0 to 1"),
    (StrongShare, (True,), {}, "a number from 0 to 1"),
    (StrongShare, (-1,), {}, "a number from 0 to 1"),
    (Threshold, ("0.5",), {}, "a finite number"),
    (Threshold, (None,), {}, "a finite number"),
    (Threshold, ([0.5],), {}, "a finite number"),
    (Threshold, (float("nan"),), {}, "a finite number"),
    (GuaranteedThreshold, ("0.02",), {}, "a number such as 0.02"),
    (CostPerThousand, ("4", 250), {}, "the budget in USD"),
    (CostPerThousand, (4, "250"), {}, "a number of tokens"),
    (CostPerThousand, (4, 250), {"prices": {"large": (1, 2)}}, r"\[Model\("),
    (CostPerThousand, (4, 250), {"prices": MODEL}, r"\[Model\("),
    (CostPerThousand, (4, 250), {"prices": [("large", 1, 2)]}, r"Model\("),
    (budget_threshold, (ROUTER, "hello", 4), {}, r"a list of queries: \['hello'\]"),
    (budget_threshold, ("router/", ["0"], 4), {}, r"routelearn.load\(path\)"),
    (budget_threshold, (ROUTER, ["0"], "4"), {}, "the budget in USD"),
    (Objective, ("1",), {}, "a number from 0"),
    (Objective, (), {"latency_weight": 1, "latency_s": 5.0}, r"\{'model': seconds\}"),
    (Objective, (), {"latency_weight": 1, "latency_s": ["large"]}, r"\{'model': seconds\}"),
    (Objective, (), {"available": ["large"]}, "a function of the model's name"),
    (Objective, (), {"models": "large"}, r"a list of names: \['large'\]"),
    (Objective, (), {"models": [MODEL]}, "a list of names"),
    (Objective, (), {"prices": {"large": 1}}, r"\[Model\("),
    (Objective, (), {"input_tokens": "5"}, "a number of tokens"),
    (cost_aware, ("0.05",), {}, "USD above 0"),
    (TopK, ("2",), {}, "a whole number"),
    (TopK, (2.5,), {}, "a whole number"),
    (TopK, (Threshold(0.5),), {}, "a whole number"),
    (TopK, (2, 0.5), {}, r"Threshold\(0.5\)"),
    (ByContext, ("tier", {"pro": 0.8}), {}, r"a policy: Threshold\(0.8\)"),
    (ByContext, ("tier", {"pro": StrongShare}), {}, r"StrongShare\(...\)"),
    (ByContext, (PRO, "tier"), {}, "a key of the context"),
    (ByContext, ("tier", [Threshold(0.5)]), {}, r"a mapping: \{'pro'"),
    (ByContext, ("tier", PRO, 0.5), {}, r"a policy: Threshold\(0.5\)"),
    (Explore, (0.1,), {}, r"Explore\(epsilon=0.1\)"),
    (Explore, (Threshold,), {}, r"Threshold\(...\)"),
    (Explore, (None, "0.1"), {}, "a number from 0 to 1"),
    (Explore, (None, 5), {}, "a number from 0 to 1"),
    (Explore, (), {"candidates": "large"}, r"a list of names: \['large'\]"),
    (Explore, (), {"candidates": [MODEL]}, "a list of names"),
    (Explore, (), {"seed": "x"}, "a whole number"),
    (Conversations, ("0.1",), {}, "a number from 0 to 1"),
    (Conversations, (), {"max_sessions": "5"}, "a whole number"),
    (Conversations, (), {"ttl_s": "5"}, "seconds above 0"),
    (Conversations().decide, (DECISION, "session"), {}, "the decision of router.route"),
    (Conversations().decide, ("session", "a query"), {}, "the decision of router.route"),
    (Conversations().decide, (5, DECISION), {}, "a text, or None"),
    (Conversations().decide, ("session", DECISION), {"available": ["large"]}, "a function of a model's name"),
    (Conversations().decide, ("session", DECISION), {"margin": "1"}, "a number from 0 to 1"),
    (switch_cost, ("5", MODEL, 0.1), {}, "a number from 0"),
    (switch_cost, (5, "large", 0.1), {}, r"Model\("),
    (margin_of_cost, (None, 2), {}, "a number from 0"),
]


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_says_what_to_write(slip: Slip) -> None:
    says_what_to_write(*slip)


@pytest.mark.parametrize("number", [1, np.float32(1), np.float64(1), np.int64(1)])
def test_numbers_of_numpy_are_numbers(number: Any) -> None:
    assert StrongShare(number).threshold_of(ROUTER) == 0.0
    assert ROUTER.route("0", Threshold(number)).threshold == 1.0
    assert ROUTER.route("0", Objective(number)).cause == "utility"


def test_a_policy_that_is_asked_with_other_contexts_than_rows_is_an_input_error() -> None:
    by_tier, assessment = ByContext("tier", PRO), ROUTER.assess(["0", "1"])
    for contexts in ([], [{"tier": "pro"}], [{}, {}, {}]):
        with pytest.raises(InputError, match="contexts and 2 queries"):
            by_tier.decide(ROUTER, assessment, contexts)
    with pytest.raises(InputError, match=r"the context's tier is \['pro'\]; expected a text"):
        ROUTER.route("0", by_tier, {"tier": ["pro"]})


def test_explore_draws_every_model_of_the_pool() -> None:
    decisions = ROUTER.route_batch(["0"] * 200, Explore(epsilon=1.0, seed=0))
    assert {decision.model for decision in decisions} == set(NAMES)
    assert [decision.propensity for decision in decisions] == [pytest.approx(1 / 3)] * 200
