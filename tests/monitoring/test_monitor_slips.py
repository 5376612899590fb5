"""What is handed to a monitor in place of what it needs: each is an InputError that says what to write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from routelearn.monitoring.decision_log import DecisionLog
from routelearn.monitoring.drift import DriftMonitor
from routelearn.monitoring.routing import RouteMonitor
from routelearn.routers.errors import InputError

SLIPS: dict[str, tuple[Callable[[], object], str]] = {
    "the path of a router": (lambda: RouteMonitor("router/"), "expected a router, such as routelearn.load"),  # type: ignore[arg-type]
    "the path of a reference": (lambda: DriftMonitor("router/"), "expected Reference.of"),  # type: ignore[arg-type]
    "a number for a path": (lambda: DecisionLog(5), "expected a path"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("make", "told"), SLIPS.values(), ids=SLIPS)
def test_a_monitor_says_what_to_write(make: Callable[[], object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        make()
