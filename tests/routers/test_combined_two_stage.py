"""Two stages: who is asked, what is decided, and what must fit together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.policies.threshold import StrongShare, Threshold
from routelearn.routers.base import Router
from routelearn.routers.combined import SECOND, TwoStageRouter
from routelearn.routers.decision import Floats, Model
from routelearn.routers.errors import InputError
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.routers.query import Query
from routelearn.routers.threshold_table import threshold_table

CALIBRATION = np.random.default_rng(0).beta(5, 5, 4000)


class Numbers(Router):
    """Scores by the number in the query, after a function; counts what it was asked."""

    def __init__(
        self, function: object = lambda x: x, models: Sequence[str] = ("strong", "weak"), **settings: object
    ) -> None:
        table = threshold_table(CALIBRATION)
        super().__init__([Model(name) for name in models], "strong", "weak", threshold_table=table, **settings)  # type: ignore[arg-type]
        self.function = function
        self.asked: list[Query] = []

    def quality(self, queries: Sequence[Query]) -> Floats:
        self.asked += queries
        scores = [self.function(float(str(query))) for query in queries]  # type: ignore[operator]
        columns = {"strong": scores, "weak": [1 - score for score in scores]}
        return np.array([columns[name] for name in self.models], np.float32).T.reshape(-1, len(self.models))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("strong_share", [0.1, 0.5, 0.8])
def test_the_second_router_is_asked_about_its_share_of_queries(share: float, strong_share: float) -> None:
    queries = [str(score) for score in np.random.default_rng(1).beta(5, 5, 3000)]
    second = Numbers()
    router = TwoStageRouter(Numbers(), second, share=share)
    router.route_batch(queries, StrongShare(strong_share))
    assert abs(len(second.asked) / len(queries) - share) < 0.05  # the table has 21 points


def test_near_the_threshold_the_second_decides_and_far_from_it_the_first() -> None:
    router = TwoStageRouter(Numbers(), Numbers(lambda x: 1 - x), share=0.2)
    decisions = router.route_batch(["0.05", "0.49", "0.51", "0.95"], Threshold(0.5))
    assert [decision.model for decision in decisions] == ["weak", "strong", "weak", "strong"]
    assert [decision.cause for decision in decisions] == ["threshold", SECOND, SECOND, "threshold"]
    assert "by the second router" in decisions[1].reason
    assert decisions[1].score == pytest.approx(0.51)


@given(st.lists(st.floats(0, 1, width=32), max_size=30), st.floats(0, 1), st.floats(0.01, 0.99))
def test_whatever_the_scores_it_decides_as_one_of_the_two(scores: list[float], threshold: float, share: float) -> None:
    first, second = Numbers(), Numbers(lambda x: x * x)
    queries = [str(score) for score in scores]
    found = TwoStageRouter(first, second, share=share).route_batch(queries, Threshold(threshold))
    one, other = first.route_batch(queries, Threshold(threshold)), second.route_batch(queries, Threshold(threshold))
    for decision, fast, slow in zip(found, one, other, strict=True):
        assert decision.score == (slow if decision.cause == SECOND else fast).score


def test_agreement_of_both_routers_is_agreement_with_either() -> None:
    queries = [str(score) for score in np.linspace(0, 1, 50)]
    plain = Numbers().route_batch(queries)
    both = TwoStageRouter(Numbers(), Numbers()).route_batch(queries)
    assert [decision.model for decision in both] == [decision.model for decision in plain]


def test_pools_in_another_order_are_put_in_order() -> None:
    router = TwoStageRouter(Numbers(), Numbers(lambda x: 1 - x, models=("weak", "strong")))
    assert router.route("0.49", Threshold(0.5)).model == "strong"


@pytest.mark.parametrize(
    ("first", "second", "settings", "problem"),
    [
        (Numbers(), Numbers(), {"share": 0.0}, "share"),
        (Numbers(), Numbers(link="bradley-terry"), {}, "link"),
        (Numbers(), Numbers(models=("strong", "weak", "other")), {}, "pool"),
    ],
)
def test_routers_that_do_not_fit_are_refused(
    first: Router, second: Router, settings: dict[str, float], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        TwoStageRouter(first, second, **settings)


def test_a_first_router_without_calibration_is_refused() -> None:
    first = Numbers()
    first.threshold_table = ()
    with pytest.raises(InputError, match="no threshold table"):
        TwoStageRouter(first, Numbers())


def test_rows_that_the_rules_answered_stay_theirs(router: LearnedRouter) -> None:
    """A fallback router as the first stage: a query unlike the training queries is not asked twice."""
    doubtful = FallbackRouter(router, novelty_bound=-1.0)
    decision = TwoStageRouter(doubtful, router).route("Prove it step by step.")
    assert decision == doubtful.route("Prove it step by step.")


def test_real_bundles_go_together(bundle: object, bert_bundle: object, texts: list[str]) -> None:
    fast, slow = load(bundle), load(bert_bundle)  # type: ignore[arg-type]
    router = TwoStageRouter(fast, slow, share=0.3)
    decisions = router.route_batch(texts)
    asked = [decision.cause == SECOND for decision in decisions]
    assert 0.1 < np.mean(asked) < 0.5
    scores = np.where(asked, slow.score(texts), fast.score(texts))
    assert np.allclose([decision.score for decision in decisions], scores, atol=1e-6)
    safe = FallbackRouter(router)
    assert len(safe.route_batch(texts)) == len(texts)
