"""The expected cost of a cascade plan beside what a real cascade over the recorded answers accounts for."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from routelearn.cascade.backends import Answer
from routelearn.cascade.cascade import Cascade
from routelearn.cascade.confidence import Ask, Estimate
from routelearn.cascade.tiers import Tier
from routelearn.cascade.verifier import Verifier
from routelearn.data.records import PerformanceRecord, Record
from routelearn.data.splits import split_by_prompt
from routelearn.evaluation.cascade_plan.answered_queries import answered_queries
from routelearn.evaluation.cascade_plan.plan import plan_cascade
from routelearn.routers.decision import Model
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.query import Query


class Known:
    """A `Confidence` that was computed beforehand: the replay checks the accounting, not the verifier again."""

    def __init__(self, confidence: dict[str, float]) -> None:
        self._confidence = confidence

    async def estimate(self, query: Query, answer: Answer, ask: Ask, prior: float | None = None) -> Estimate:
        """See `Confidence.estimate`."""
        return Estimate(self._confidence[str(query)])


def replay(
    test: list[Record],
    verifier: Verifier,
    router: LearnedRouter | None,
    strong: Model,
    weak: Model,
    output_tokens: int | None,
) -> dict[str, Any]:
    """Plan on half of the questions, then run a real cascade over that half and over the other one."""
    halves = split_by_prompt(test, (0.5, 0.5), 0)
    options: dict[str, Any] = {"strong": strong, "weak": weak, "output_tokens": output_tokens}
    plan = plan_cascade(halves[0], verifier, router=router, bootstrap=20, **options)
    point = plan.best["cascade"] or plan.curves["cascade"][len(plan.curves["cascade"]) // 2]
    assert point.threshold is not None
    result: dict[str, Any] = {"expected": point.cost, "recommendation": plan.recommendation}
    for half, records in zip(("same", "other"), halves, strict=True):
        result[half] = run_cascade(records, verifier, strong, weak, point.threshold, output_tokens)
    return result


def run_cascade(
    records: list[Record], verifier: Verifier, strong: Model, weak: Model, threshold: float, output_tokens: int | None
) -> dict[str, float]:
    """USD a thousand queries that a cascade over recorded answers accounts for, and its escalation rate."""
    asked = answered_queries(records, strong, weak, output_tokens)
    confidence = verifier.confidence(asked.queries, asked.answers)
    known = Known({str(query): float(c) for query, c in zip(asked.queries, confidence, strict=True)})
    weak_answer = dict(zip(map(str, asked.queries), asked.answers, strict=True))
    strong_answer = {
        str(record.query): record.response
        for record in records
        if isinstance(record, PerformanceRecord) and record.model == strong.name
    }

    def ask_strong(query: Query) -> Answer | str:
        answer = strong_answer[str(query)]
        if answer is not None:
            return answer
        return "x" * (4 * output_tokens) if output_tokens else weak_answer[str(query)]

    cascade = Cascade([Tier(weak, lambda query: weak_answer[str(query)], known, threshold), Tier(strong, ask_strong)])

    async def run() -> list[Any]:
        return [await cascade.arun(query) for query in asked.queries]

    results = asyncio.run(run())
    return {
        "cost": 1000 * float(np.mean([one.cost_usd for one in results])),
        "escalation_rate": float(np.mean([one.escalated for one in results])),
        "queries": len(results),
    }


def expected(what: str, replays: list[dict[str, Any]]) -> list[str]:
    """Expected cost beside that of a real cascade."""
    same = [abs(one["same"]["cost"] / one["expected"] - 1) for one in replays]
    other = [one["other"]["cost"] / one["expected"] - 1 for one in replays]
    sizes = [one["other"]["queries"] for one in replays]
    rates = [one["same"]["escalation_rate"] for one in replays]
    return [
        f"Expected cost against a replay by a real cascade ({min(rates):.0%} to {max(rates):.0%} escalated): at most "
        f"{max(same):.2%} off on the questions that the plan was made on; on others ({min(sizes):.0f} to "
        f"{max(sizes):.0f}{what} a plan) {np.mean(other):+.1%} on average, {max(map(abs, other)):.1%} at most.",
        "",
    ]
