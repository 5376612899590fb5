"""Thresholds for a budget."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.policies import PRICED, TableRouter, assert_rules_rows_are_kept, queries, random_router
from hypothesis import given
from hypothesis import strategies as st

from routelearn.policies.cost import CostPerThousand, budget_threshold, query_costs, threshold_within
from routelearn.policies.threshold import Threshold
from routelearn.routers.decision import Model
from routelearn.routers.errors import InputError

#: 400 tokens in, 100 out, a thousand times: 7 USD at large, 0.3 USD at small.
TOKENS = {"input_tokens": 400, "output_tokens": 100}


@pytest.mark.parametrize(
    ("usd", "share"), [(0.3, 0.0), (0.3 + 6.7 / 4, 0.25), (0.3 + 6.7 / 2, 0.5), (7.0, 1.0), (900.0, 1.0)]
)
def test_the_strong_share_is_the_one_that_costs_the_budget(usd: float, share: float) -> None:
    assert CostPerThousand(usd, **TOKENS).strong_share(random_router()) == pytest.approx(share)


def test_decisions_spend_the_budget_on_queries_of_the_expected_length() -> None:
    router = random_router(2000)
    decisions = router.route_batch(queries(router.table), CostPerThousand(3.0, **TOKENS))
    spent = np.mean([7.0 if decision.model == "large" else 0.3 for decision in decisions])
    assert spent == pytest.approx(3.0, rel=0.02)


def test_prices_at_call_time_win_over_those_of_the_pool() -> None:
    router = random_router()
    dearer = [Model("large", 20.0, 60.0)]
    assert CostPerThousand(7.15, **TOKENS, prices=dearer).strong_share(router) == pytest.approx(0.5)


def test_a_model_may_write_more_than_another() -> None:
    router = random_router()
    same = CostPerThousand(3.0, 400, {"large": 100, "small": 100}).strong_share(router)
    assert same == CostPerThousand(3.0, **TOKENS).strong_share(router)
    assert CostPerThousand(3.0, 400, {"large": 500, "small": 100}).strong_share(router) < same
    with pytest.raises(InputError, match="output_tokens has no number for 'small'"):
        CostPerThousand(3.0, 400, {"large": 500}).strong_share(router)


def test_a_budget_below_always_weak_is_refused_with_its_cost() -> None:
    with pytest.raises(InputError, match=r"always 'small' costs 0\.3 USD per 1,000 queries, above the budget of 0\.2"):
        random_router().route("1", CostPerThousand(0.2, **TOKENS))
    with pytest.raises(InputError, match="always 'small' costs"):
        budget_threshold(random_router(), ["1 word"], 0.01)


def test_models_without_a_price_are_named() -> None:
    router = TableRouter([[0.5, 0.5]], [Model("a", 1.0), Model("b")])
    with pytest.raises(InputError, match=r"no prices are known for \['a', 'b'\]"):
        router.route("0", CostPerThousand(1.0, **TOKENS))


@pytest.mark.parametrize("usd", [float("nan"), -1.0, float("inf")])
def test_what_is_no_budget_is_an_input_error(usd: float) -> None:
    with pytest.raises(InputError, match="USD per 1,000 queries"):
        CostPerThousand(usd, 100)


def test_rules_rows_are_kept_under_a_budget() -> None:
    assert_rules_rows_are_kept(Threshold(0.0))
    assert_rules_rows_are_kept(Threshold(1.01))


ROWS = st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 0.1), st.floats(0, 0.02)), min_size=1, max_size=60)


@given(ROWS, st.floats(0, 1))
def test_the_measured_budget_is_met_and_the_next_lower_threshold_exceeds_it(
    rows: list[tuple[float, float, float]], part: float
) -> None:
    scores, extra, weak = np.array(rows).T
    costs = np.stack([weak + extra, weak], axis=1)
    low, high = costs.mean(axis=0)[::-1] * 1000
    usd = low + part * (high - low)
    threshold = threshold_within(scores, costs, usd, "weak")

    def spent(at: float) -> float:
        return float(np.where(scores >= at, costs[:, 0], costs[:, 1]).mean() * 1000)

    assert spent(threshold) <= usd * (1 + 1e-9) + 1e-12
    lower = scores[scores < threshold]
    if len(lower):
        assert spent(lower.max()) >= usd * (1 - 1e-9) - 1e-12


def test_a_measured_budget_counts_long_queries_that_go_to_strong() -> None:
    table = np.column_stack([np.linspace(0, 1, 200), np.zeros(200), np.linspace(1, 0, 200)])
    router = TableRouter(table.tolist())
    asked = [f"{row} " + "word " * (row * 4) for row in range(200)]  # the harder, the longer
    costs = query_costs([PRICED[0], PRICED[2]], asked, 100)
    measured = budget_threshold(router, asked, 5.0, output_tokens=100)
    to_strong = np.array([decision.model == "large" for decision in router.route_batch(asked, measured)])
    spent = np.where(to_strong, costs[:, 0], costs[:, 1]).mean() * 1000
    assert 4.9 < spent <= 5.0
    mean_tokens = float(np.mean([len(query) / 4 for query in asked]))
    by_mean = CostPerThousand(5.0, mean_tokens, 100).strong_share(router)
    assert to_strong.mean() < by_mean - 0.02


def test_a_measured_budget_needs_queries() -> None:
    with pytest.raises(InputError, match="no queries were given"):
        budget_threshold(random_router(), [], 5.0)
