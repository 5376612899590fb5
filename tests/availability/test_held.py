"""Breakers that are opened and closed for reasons outside, such as what another process found."""

from __future__ import annotations

import pytest
from helpers.availability import Clock, opened

from routelearn.availability.availability import Availability
from routelearn.availability.breaker import BreakerLimits
from routelearn.routers.errors import InputError


def test_a_held_model_is_skipped_for_so_long_and_then_probed() -> None:
    clock = Clock()
    availability = Availability(["a", "b"], clock=clock)
    availability.hold("a", 12, "another replica: 5 failures in a row")
    choice = availability.choose(["a", "b"])
    assert choice.model == "b"
    assert choice.reason.startswith("a is out for another 12 s (another replica: 5 failures in a row)")
    assert availability.status("a").skipped["held"] == 1
    assert availability.wait_s("a") == 12
    clock.now += 11.9
    assert not availability.is_available("a")
    clock.now += 0.2
    assert availability.wait_s("a") == 0
    probe = availability.choose(["a", "b"])
    assert (probe.model, probe.probe) == ("a", True)
    availability.record(probe, ok=True)
    assert availability.status("a").state == "closed"


def test_a_hold_makes_an_open_breaker_open_for_longer_and_never_for_shorter() -> None:
    clock = Clock()
    availability = opened(clock, reset_timeout_s=30)
    availability.hold("a", 10, "x")
    assert availability.wait_s("a") == 30
    availability.hold("a", 50, "x")
    assert availability.wait_s("a") == 50


def test_a_running_probe_decides_whatever_is_held() -> None:
    clock = Clock()
    availability = opened(clock, reset_timeout_s=30)
    clock.now += 30
    probe = availability.choose(["a"])
    availability.hold("a", 50, "x")
    availability.record(probe, ok=True)
    assert availability.status("a").state == "closed"


def test_a_released_model_starts_with_an_empty_window() -> None:
    clock = Clock()
    availability = opened(clock, error_rate=0.1, min_requests=4)
    availability.release("a", "another replica: a probe succeeded")
    status = availability.status("a")
    assert (status.state, status.count, status.closed) == ("closed", 0, 1)
    assert availability.choose(["a"]).probe is False
    availability.record("a", ok=False)
    assert availability.status("a").state == "closed"
    availability.release("a", "it is closed")
    assert availability.status("a").closed == 1


def test_a_released_model_forgets_the_probe_that_runs() -> None:
    clock = Clock()
    availability = opened(clock, reset_timeout_s=30)
    clock.now += 30
    probe = availability.choose(["a"])
    availability.release("a", "x")
    availability.record(probe, ok=False)  # counts as one failure of a closed breaker
    assert availability.status("a").state == "closed"
    assert availability.status("a").failures == 4


def test_watchers_hear_of_holds_and_releases_and_one_that_raises_stops_no_other() -> None:
    heard: list[tuple[str, str, str, str]] = []
    availability = Availability(["a"], BreakerLimits(failures=1), clock=Clock())

    def broken(*_: str) -> None:
        raise RuntimeError("in a watcher")

    availability.watch(broken)
    availability.watch(lambda *change: heard.append(change))
    availability.hold("a", 1, "why")
    availability.release("a", "why not")
    availability.record("a", ok=False)
    assert heard == [
        ("a", "closed", "open", "why"),
        ("a", "open", "closed", "why not"),
        ("a", "closed", "open", "1 failures in a row"),
    ]


def test_models_beyond_the_bound_cannot_be_held() -> None:
    availability = Availability(["a"], max_models=1, clock=Clock())
    availability.hold("b", 10, "x")
    availability.release("b", "x")
    assert availability.is_available("b")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "3"])
def test_a_hold_of_no_seconds_is_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="seconds"):
        Availability(["a"]).hold("a", seconds, "x")
