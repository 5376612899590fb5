"""One rule for the cost of a query: every command and every class that states USD states the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from routelearn.cascade.tiers import Tier
from routelearn.data.records import PerformanceRecord
from routelearn.evaluation.cascade_plan.answered_queries import answered_queries
from routelearn.evaluation.evaluate import evaluate
from routelearn.evaluation.thresholds.calibrate import calibrate_by_budget, calibrate_by_strong_share
from routelearn.policies.cost import CostPerThousand, budget_threshold, call_cost, query_costs, query_tokens
from routelearn.routers.base import Router
from routelearn.routers.decision import Floats, Model
from routelearn.routers.errors import InputError
from routelearn.routers.query import Query

STRONG, WEAK = Model("strong", 10.0, 30.0), Model("weak", 0.5, 1.5)
OUTPUT_TOKENS = 120
CHAT = (
    {"role": "system", "content": "Answer in one short, polite sentence. " * 15},
    {"role": "user", "content": "Is 91 a prime number?"},
    {"role": "assistant", "content": "No: 7 times 13 is 91."},
    {"role": "user", "content": [{"type": "text", "text": "And 97?"}, {"type": "image_url", "image_url": "x"}]},
)
#: Query and its tokens by hand: one for each four characters of the transcript, rounded up.
TOKENS: dict[str, tuple[Query, int]] = {
    "a prompt whose length is not a multiple of four": ("abcde", 2),
    "an empty prompt": ("", 0),
    "a long prompt": ("word " * 400, 500),
    "a chat with a long system prompt": (
        CHAT,
        -(
            -len(
                f"system: {CHAT[0]['content']}\nuser: Is 91 a prime number?\n"
                "assistant: No: 7 times 13 is 91.\nuser: And 97?"
            )
            // 4
        ),
    ),
}


class Even(Router):
    """A router of which every query goes to strong, at any threshold up to 0.5."""

    def __init__(self) -> None:
        super().__init__([STRONG, WEAK], "strong", "weak")
        self.threshold_table = ((0.0, 1.5), (1.0, 0.0))

    def quality(self, queries: Sequence[Query]) -> Floats:
        return np.full((len(queries), 2), 0.5, np.float32)


def records(query: Query) -> list[PerformanceRecord]:
    """Scores of both models, and answers that are OUTPUT_TOKENS long."""
    answer = "x" * 4 * OUTPUT_TOKENS
    return [
        PerformanceRecord(query, "strong", 1.0, response=answer),
        PerformanceRecord(query, "weak", 0.0, response=answer),
    ]


@pytest.mark.parametrize("name", list(TOKENS))
def test_commands_tiers_and_policies_state_the_same_usd(name: str) -> None:
    query, tokens = TOKENS[name]
    strong, weak = ((tokens * i + OUTPUT_TOKENS * o) / 1e6 for i, o in ((10.0, 30.0), (0.5, 1.5)))
    router = Even()

    assert query_tokens(query) == tokens
    assert call_cost(STRONG, tokens, OUTPUT_TOKENS) == pytest.approx(strong, rel=1e-12)
    assert query_costs([STRONG, WEAK], [query], OUTPUT_TOKENS)[0].tolist() == pytest.approx([strong, weak])

    tiers = [Tier(model, str, expected_output_tokens=OUTPUT_TOKENS) for model in (STRONG, WEAK)]
    assert [tier.expected_cost(query) for tier in tiers] == pytest.approx([strong, weak])

    report = evaluate({"r": router}, records(query), output_tokens=OUTPUT_TOKENS, bootstrap=2)
    assert report["always-strong"].values["cost"] == pytest.approx(1000 * strong)
    assert report["always-weak"].values["cost"] == pytest.approx(1000 * weak)

    for share, expected in ((1.0, strong), (0.0, weak)):
        found = calibrate_by_strong_share(router, [query], share, output_tokens=OUTPUT_TOKENS)
        assert found.report.chosen.usd == pytest.approx(1000 * expected)
    assert calibrate_by_budget(router, [query], 1000 * strong, output_tokens=OUTPUT_TOKENS).threshold == 0.0

    known = answered_queries(records(query), STRONG, WEAK)
    assert (known.strong_cost[0], known.weak_cost[0]) == pytest.approx((strong, weak))

    policy = CostPerThousand(1000 * (strong + weak) / 2, tokens, OUTPUT_TOKENS)
    assert policy.strong_share(router) == pytest.approx(0.5)
    with pytest.raises(InputError, match="costs " + re.escape(f"{1000 * weak:.4g} USD")):
        budget_threshold(router, [query], 0.0, output_tokens=OUTPUT_TOKENS)


def test_a_measured_cost_wins_over_prices_and_tokens() -> None:
    measured = [PerformanceRecord(r.query, r.model, r.score, 0.25, r.response) for r in records(CHAT)]
    known = answered_queries(measured, STRONG, WEAK)
    assert (known.strong_cost[0], known.weak_cost[0]) == (0.25, 0.25)


def test_a_model_without_a_price_has_no_cost() -> None:
    assert call_cost(Model("m", 1.0), 10, 10) is None
    assert call_cost(Model("m", None, 1.0), 10, 10) is None
    with pytest.raises(InputError, match=r"no prices are known for \['m'\]"):
        query_costs([STRONG, Model("m", 1.0)], ["x"], 10)
