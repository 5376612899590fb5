"""A clock that is set by hand, a breaker that has just opened, decisions, and threads that start together."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from routelearn.availability.availability import Availability
from routelearn.availability.breaker import BreakerLimits
from routelearn.routers.decision import Decision, Source


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock, model: str = "a", **limits: float) -> Availability:
    """A breaker that has just opened."""
    availability = Availability(limits=BreakerLimits(**{"failures": 3, "reset_timeout_s": 30, **limits}), clock=clock)  # type: ignore[arg-type]
    for _ in range(3):
        availability.record(model, ok=False, error="down")
    assert availability.status(model).state == "open"
    return availability


def by_threshold(score: float, threshold: float = 0.5, source: Source = "learned") -> Decision:
    candidates = ("strong", "weak") if score >= threshold else ("weak", "strong")
    cause = "threshold" if source == "learned" else source
    return Decision(candidates[0], score, threshold, candidates, source, "by the threshold", cause=cause)


def by_policy(model: str, score: float = 0.5) -> Decision:
    others = tuple(name for name in ("a", "b", "c") if name != model)
    return Decision(model, score, 0.5, (model, *others), "learned", "by utility", cause="utility")


def run_threads(count: int, work: Callable[[int], object]) -> None:
    """Run `work(number)` in so many threads that start together and take turns as often as they can."""
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        work(number)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(count) as pool:
            for _ in pool.map(run, range(count)):  # raises what a thread raised
                pass
    finally:
        sys.setswitchinterval(interval)
