"""Policies by tier and use case, and targets for ensembles."""

from __future__ import annotations

import pytest
from helpers.policies import assert_rules_rows_are_kept, half_broken, queries, random_router
from hypothesis import given
from hypothesis import strategies as st

from routelearn.policies.composed import ByContext, TopK
from routelearn.policies.objective import Objective
from routelearn.policies.threshold import StrongShare, Threshold
from routelearn.routers.base import Policy
from routelearn.routers.errors import InputError

ROUTER = random_router(60)
POLICIES: dict[str, Policy] = {"pro": Threshold(0.2), "free": StrongShare(0.1), "api": Objective(cost_weight=30)}
CONTEXTS = st.lists(
    st.dictionaries(st.sampled_from(["tier", "other"]), st.sampled_from(["pro", "free", "api", "x"])), max_size=60
)


@given(CONTEXTS, st.sampled_from([None, Threshold(0.9)]))
def test_each_row_is_decided_as_by_its_own_policy(contexts: list[dict[str, str]], default: Policy | None) -> None:
    asked = queries(contexts)
    decisions = ROUTER.route_batch(asked, ByContext("tier", POLICIES, default), contexts)
    for query, context, decision in zip(asked, contexts, decisions, strict=True):
        assert decision == ROUTER.route(query, POLICIES.get(context.get("tier", ""), default), context)


def test_tier_and_use_case_nest() -> None:
    by_use_case = ByContext("use_case", {"chat": Threshold(1.01), "code": Threshold(0.0)})
    policy = ByContext("tier", {"pro": by_use_case}, Threshold(1.01))
    contexts = [{"tier": "pro", "use_case": "code"}, {"tier": "pro", "use_case": "chat"}, {"use_case": "code"}]
    found = ROUTER.route_batch(["0"] * 3, policy, contexts)
    assert [decision.model for decision in found] == ["large", "small", "small"]


def test_without_contexts_the_default_decides() -> None:
    asked = queries(range(20))
    assert ROUTER.route_batch(asked, ByContext("tier", POLICIES, Threshold(0.3))) == ROUTER.route_batch(
        asked, Threshold(0.3)
    )


def test_a_choice_among_no_policies_is_refused() -> None:
    with pytest.raises(InputError, match="no policies for 'tier'"):
        ByContext("tier", {})


def test_rules_rows_keep_their_own_decision_in_every_tier() -> None:
    assert_rules_rows_are_kept(ByContext("tier", {"pro": Objective(cost_weight=1e6)}), {"tier": "pro"})
    assert_rules_rows_are_kept(ByContext("tier", {"pro": Objective()}, Threshold(1.01)), {"tier": "free"})


@given(st.integers(1, 3), st.sampled_from([None, Threshold(0.5), Objective(), Objective(cost_weight=20)]))
def test_targets_are_the_first_k_candidates_and_nothing_else_changes(k: int, policy: Policy | None) -> None:
    asked = queries(range(20))
    for plain, decision in zip(
        ROUTER.route_batch(asked, policy), ROUTER.route_batch(asked, TopK(k, policy)), strict=True
    ):
        assert decision.targets == plain.candidates[:k]
        assert decision.targets[0] == decision.model
        assert {**decision.as_dict(), "targets": ()} == plain.as_dict()


def test_more_targets_than_candidates_is_refused() -> None:
    with pytest.raises(InputError, match="k is 4; expected at most 3"):
        ROUTER.route("0", TopK(4))
    with pytest.raises(InputError, match="k is 0"):
        TopK(0)


def test_where_rules_answer_targets_are_models_they_know() -> None:
    for decision in half_broken().route_batch(queries(range(40)), TopK(3)):
        if decision.source == "learned":
            assert len(decision.targets) == 3
        else:
            assert decision.targets in {("large", "small"), ("small", "large")}
    assert_rules_rows_are_kept(TopK(2))
