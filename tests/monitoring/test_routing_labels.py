"""The labels of decisions: invented names never push the names of the pool into "other"."""

from __future__ import annotations

from routelearn.monitoring.routing import MAX_KEYS, RouteMonitor
from routelearn.routers.decision import Decision
from routelearn.routers.rules import RulesRouter


def decision(model: str, cause: str = "threshold") -> Decision:
    return Decision(model, 0.7, 0.5, (model,), "learned", "why", cause=cause)


def test_invented_names_leave_the_labels_of_the_pool() -> None:
    monitor = RouteMonitor(RulesRouter("large", "small"))
    for number in range(5 * MAX_KEYS):
        monitor.observe(decision(f"invented {number}", f"cause {number}"))
    for model in ("large", "small"):
        for cause in ("threshold", "timeout", "an invented cause"):
            monitor.observe(decision(model, cause))
    counts = monitor.status().totals.decisions
    for model in ("large", "small"):
        assert counts[model, "learned", "threshold"] == counts[model, "learned", "timeout"] == 1
        assert counts[model, "learned", "other"] == 1
    assert sum(counts.values()) == monitor.status().totals.requests
    assert len(counts) < MAX_KEYS + 20
