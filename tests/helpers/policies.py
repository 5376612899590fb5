"""A router whose qualities the tests state, and what several policy tests share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from routelearn.routers.assessment import Assessment
from routelearn.routers.base import Policy, Router
from routelearn.routers.decision import Context, Floats, Model
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.query import Query
from routelearn.routers.threshold_table import threshold_table

NAMES = ("large", "medium", "small")
#: USD per million tokens.
PRICED = (Model("large", 10.0, 30.0), Model("medium", 2.0, 6.0), Model("small", 0.5, 1.0))


class TableRouter(Router):
    """Query "7" (or "7 and more words") has the qualities of row 7."""

    def __init__(self, quality: Sequence[Sequence[float]], pool: Sequence[Model] = PRICED) -> None:
        self.table = np.asarray(quality, np.float32).reshape(-1, len(pool))
        super().__init__(pool, pool[0].name, pool[-1].name)
        scores = self.score(queries(self.table))
        if len(scores) and np.isfinite(scores).all():
            self.threshold_table = tuple(threshold_table(scores))

    def quality(self, queries: Sequence[Query]) -> Floats:
        return self.table[[int(str(query).split(maxsplit=1)[0]) for query in queries]]


def queries(table: Sequence[object]) -> list[str]:
    return [str(row) for row in range(len(table))]


def random_router(rows: int = 400, seed: int = 0, pool: Sequence[Model] = PRICED) -> TableRouter:
    return TableRouter(np.random.default_rng(seed).random((rows, len(pool))).tolist(), pool)


def half_broken(rows: int = 40) -> FallbackRouter:
    """Every other row has no probability, and the rules answer it."""
    table = np.random.default_rng(1).random((rows, len(NAMES)))
    table[::2] = np.nan
    return FallbackRouter(TableRouter(table.tolist()), general=False)


def assert_rules_rows_are_kept(policy: Policy, context: Context | None = None) -> None:
    """Rows that the rules answered are decided as without the policy."""
    router = half_broken()
    contexts = None if context is None else [context] * 40
    assessment: Assessment = router.assess(queries(range(40)), contexts)
    own = router.decide(assessment, router.threshold)
    decisions = policy.decide(router, assessment, contexts)
    ruled = [row for row, decision in enumerate(own) if decision.source != "learned"]
    assert ruled == list(range(0, 40, 2))
    for row in ruled:
        assert (decisions[row].model, decisions[row].reason, decisions[row].cause, decisions[row].propensity) == (
            own[row].model,
            own[row].reason,
            "invalid",
            1.0,
        )


QUALITIES = st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=20)
