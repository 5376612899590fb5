"""The average of routers: what is averaged, what is measured, and what must fit together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.policies.threshold import StrongShare
from routelearn.routers.base import Router
from routelearn.routers.combined import AverageRouter
from routelearn.routers.decision import Floats, Model
from routelearn.routers.errors import InputError
from routelearn.routers.loading import load
from routelearn.routers.query import Query


class Powers(Router):
    """The quality of strong is the number in the query to a power, that of weak its complement."""

    def __init__(self, power: float, models: Sequence[str] = ("strong", "weak"), **settings: object) -> None:
        super().__init__([Model(name) for name in models], "strong", "weak", **settings)  # type: ignore[arg-type]
        self.power = power

    def quality(self, queries: Sequence[Query]) -> Floats:
        strong = np.array([float(str(query)) for query in queries], np.float32) ** self.power
        columns = {"strong": strong, "weak": 1 - strong}
        return np.stack([columns[name] for name in self.models], axis=1).astype(np.float32)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=4), st.floats(0, 1, width=32))
def test_it_is_the_weighted_mean_of_the_qualities(weights: list[float], number: float) -> None:
    routers = [Powers(power + 1) for power in range(len(weights))]
    expected = np.average([number ** (power + 1) for power in range(len(weights))], weights=weights)
    quality = AverageRouter(routers, weights=weights).quality([str(number)])
    assert quality[0] == pytest.approx([expected, 1 - expected], abs=1e-5)
    assert 0 <= quality.min() <= quality.max() <= 1


def test_pools_in_another_order_are_put_in_order() -> None:
    router = AverageRouter([Powers(1), Powers(1, ("weak", "strong"))])
    assert router.score(["0.8"])[0] == pytest.approx(0.8)


def test_the_threshold_table_is_of_the_average() -> None:
    """Whose scores are spread unlike those of either router."""
    numbers = np.random.default_rng(0).random(400)
    router = AverageRouter([Powers(0.5), Powers(3)], queries=[str(number) for number in numbers])
    decisions = router.route_batch([str(number) for number in np.random.default_rng(1).random(400)], StrongShare(0.3))
    assert np.mean([decision.model == "strong" for decision in decisions]) == pytest.approx(0.3, abs=0.08)


def test_without_queries_a_share_is_refused_rather_than_guessed() -> None:
    router = AverageRouter([Powers(1, threshold=0.4), Powers(2, threshold=0.8)], weights=[3, 1])
    assert router.threshold == pytest.approx(0.5)
    with pytest.raises(InputError, match="threshold"):
        router.route("0.5", StrongShare(0.3))


@pytest.mark.parametrize(
    ("routers", "weights", "problem"),
    [
        ([], None, "no routers were given; expected one or more"),
        ([Powers(1)], [1, 2], "expected 1 numbers above 0"),
        ([Powers(1), Powers(1)], [1, 0], "above 0"),
        ([Powers(1), Powers(1)], [1, float("nan")], "above 0"),
        ([Powers(1), Powers(1, link="bradley-terry")], None, "link"),
        ([Powers(1), Powers(1, ("strong", "weak", "other"))], None, "pool"),
    ],
)
def test_what_does_not_fit_is_refused(routers: list[Router], weights: list[float] | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        AverageRouter(routers, weights=weights)


def test_real_bundles_go_together(bundle: Path, bert_bundle: Path, texts: list[str]) -> None:
    members = load(bundle), load(bert_bundle)
    router = AverageRouter(members)
    assert np.allclose(router.score(texts), (members[0].score(texts) + members[1].score(texts)) / 2, atol=1e-6)
    found = router.assess([*texts[:5], "word " * 30_000])
    assert found.truncated.tolist() == [False] * 5 + [True]
    assert found.novelty is not None
