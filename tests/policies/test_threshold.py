from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.policies.threshold import GuaranteedThreshold, StrongShare, Threshold
from routelearn.routers.errors import InputError
from routelearn.routers.fallback import FallbackRouter
from routelearn.routers.threshold_table import threshold_table

SCORES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=300)


@given(SCORES, st.lists(st.floats(0, 1), min_size=2, max_size=10))
def test_a_larger_strong_share_never_raises_the_threshold(scores: list[float], shares: list[float]) -> None:
    table = threshold_table(np.array(scores))
    thresholds = [StrongShare(share).threshold_in(table) for share in sorted(shares)]
    assert all(a >= b - 1e-12 for a, b in pairwise(thresholds))


@given(SCORES)
def test_shares_0_and_1_send_nothing_and_everything(scores: list[float]) -> None:
    table = threshold_table(np.array(scores))
    assert not (np.array(scores) >= StrongShare(0).threshold_in(table)).any()
    assert (np.array(scores) >= StrongShare(1).threshold_in(table)).all()


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.9])
def test_the_share_is_met_on_the_scores_it_was_measured_on(share: float) -> None:
    scores = np.random.default_rng(0).random(999)
    threshold = StrongShare(share).threshold_in(threshold_table(scores))
    assert abs((scores >= threshold).mean() - share) < 0.002


@pytest.mark.parametrize("make", [lambda: Threshold(float("nan")), lambda: StrongShare(1.2), lambda: StrongShare(-0.1)])
def test_a_value_out_of_range_is_an_input_error(make: object) -> None:
    with pytest.raises(InputError):
        make()  # type: ignore[operator]


def test_a_strong_share_needs_a_calibrated_router() -> None:
    class Uncalibrated:
        threshold_table: tuple[tuple[float, float], ...] = ()

    with pytest.raises(InputError, match="no threshold table"):
        StrongShare(0.5).threshold_of(Uncalibrated())
    with pytest.raises(InputError, match="at least one score"):
        threshold_table(np.array([]))


def test_no_bundle_no_threshold_needed_where_rules_answer_everything() -> None:
    router = FallbackRouter("no/such/bundle", strong="large", weak="small", general=False)
    for policy in (StrongShare(0.3), Threshold(0.0), GuaranteedThreshold()):
        decisions = router.route_batch(["Hi!", "Prove that the square root of 2 is irrational."], policy)
        assert [decision.model for decision in decisions] == ["small", "large"]
        assert {decision.cause for decision in decisions} == {"load-failed"}
