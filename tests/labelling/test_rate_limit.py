"""Rate limits of a model, with a clock of the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from routelearn.labelling.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.floats(30, 6000), st.integers(50, 300))
def test_no_minute_has_more_requests_than_the_limit_and_a_burst_of_a_second(per_minute: float, count: int) -> None:
    clock = Clock()
    limit = RateLimit(per_minute, None, clock=clock)
    starts = []
    for _ in range(count):
        clock.now += limit.take(10)
        starts.append(clock.now)
    for first in range(count):
        within = sum(starts[first] <= start < starts[first] + 60 for start in starts)
        assert within <= per_minute + per_minute / 60 + 1


def test_tokens_are_limited_too_and_corrected_afterwards() -> None:
    clock = Clock()
    limit = RateLimit(None, 6000, clock=clock)
    assert limit.take(500) == 0
    assert round(limit.take(100), 3) == 4.0  # 500 tokens are 5 seconds, of which one is a burst
    limit.correct(-500)
    clock.now += 1.0
    assert limit.take(100) == 0


def test_a_pause_holds_every_call() -> None:
    clock = Clock()
    limit = RateLimit(None, None, clock=clock)
    assert limit.take(10) == 0
    limit.pause(7.0)
    assert limit.take(10) == 7.0
    clock.now += 7.0
    assert limit.take(10) == 0
