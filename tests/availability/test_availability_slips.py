"""Slips at the interface of availability: each is an InputError that says what to write."""

from __future__ import annotations

import pytest
from helpers.slips import Slip, says_what_to_write

from routelearn.availability.availability import Availability
from routelearn.availability.breaker import BreakerLimits
from routelearn.routers.decision import Model

SLIPS: list[Slip] = [
    (Availability, ("sim-max",), {}, r"a list of names: \['sim-max'\]"),
    (Availability, (5,), {}, "a list of names"),
    (Availability, ([Model("a")],), {}, "a list of names"),
    (Availability, (["a"], 5), {}, r"BreakerLimits\(failures=...\)"),
    (Availability, (["a"], {"failures": 3}), {}, r"BreakerLimits\(failures=...\)"),
    (Availability, (["a"],), {"max_models": "5"}, "a whole number"),
    (Availability, (["a"],), {"on_change": "x"}, "a function"),
    (Availability, (["a"],), {"counts_as_failure": [ValueError]}, "a function"),
    (Availability().choose, ("a",), {}, "at least one model name"),
    (Availability().choose, (5,), {}, "at least one model name"),
    (Availability().choose, ([Model("a")],), {}, "at least one model name"),
    (Availability().fallbacks, ({"a"},), {}, "at least one model name"),
    (BreakerLimits, ("5",), {}, "a whole number"),
    (BreakerLimits, (2.5,), {}, "a whole number"),
    (BreakerLimits, (), {"probes": None}, "a whole number"),
    (BreakerLimits, (), {"error_rate": "0.5"}, "a number above 0"),
    (BreakerLimits, (), {"error_rate": 50}, "a number above 0"),
    (BreakerLimits, (), {"window_s": "60"}, "seconds above 0"),
]


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_says_what_to_write(slip: Slip) -> None:
    says_what_to_write(*slip)


def test_a_latency_that_is_no_number_is_left_out() -> None:
    availability = Availability()
    for latency_s in ("fast", None, [1], "0.5", 1.5):
        availability.record("a", ok=True, latency_s=latency_s)  # type: ignore[arg-type]
    status = availability.status("a")
    assert (status.requests, status.p50_s, status.p95_s) == (5, 0.5, 1.5)
