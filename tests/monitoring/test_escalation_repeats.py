"""The escalation monitor with retries and invented names: no false alarm, and real names keep their labels."""

from __future__ import annotations

import numpy as np
import pytest

from routelearn.monitoring.escalation import MAX_REPEAT_KEYS, EscalationMonitor


@pytest.mark.parametrize("times", [2, 5, 100])
def test_retries_with_a_key_raise_no_alarm_and_are_counted(times: int) -> None:
    random = np.random.default_rng(0)
    monitor = EscalationMonitor(reference=0.15)
    for request in range(1000):
        escalated = bool(random.random() < 0.15)
        for _ in range(times):
            monitor.observe(model="weak", escalated=escalated, key=request)
    assert monitor.status().totals.alarms == 0
    assert monitor.status().totals.requests == 1000 * times


def test_a_jump_is_found_among_retries_as_soon_as_without() -> None:
    for times in (1, 5):
        monitor = EscalationMonitor(reference=0.15)
        for request in range(60):
            for _ in range(times):
                monitor.observe(model="weak", escalated=request % 2 == 0, key=request)
        assert monitor.status().totals.alarms == 1


def test_keys_belong_to_their_pair_and_their_memory_is_bounded() -> None:
    monitor = EscalationMonitor(reference=0.15)
    for use_case in ("a", "b"):
        for request in range(30):
            monitor.observe(model="weak", use_case=use_case, escalated=True, key=request)
    assert monitor.status().totals.alarms == 2
    for request in range(2 * MAX_REPEAT_KEYS):
        monitor.observe(model="weak", escalated=False, key=request)
    assert len(monitor._repeat_keys._known) == MAX_REPEAT_KEYS


def test_invented_names_leave_the_labels_of_known_names() -> None:
    monitor = EscalationMonitor(max_keys=10, known=["sim-small", "chat"])
    for number in range(1000):
        monitor.observe(model=f"invented {number}", use_case=f"invented {number}", escalated=True)
    for use_case in ("", "chat"):
        for _ in range(5):
            monitor.observe(model="sim-small", use_case=use_case, escalated=False)
    for number in range(1000):
        monitor.observe(model="sim-small", use_case=f"invented {number}", escalated=True)
    assert monitor.status("sim-small", "chat").count == 5
    assert monitor.status("sim-small", "").count == 5
    assert monitor.status("sim-small", "other").totals.requests == 1000
    assert len(monitor.statuses()) <= 10 + 4
    assert monitor.status().totals.requests == 2010
