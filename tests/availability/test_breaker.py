"""One model's breaker: when it opens, what probes do, that every path of states is a legal one."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from itertools import pairwise

import pytest
from helpers.availability import Clock, opened, run_threads
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from routelearn.availability.availability import Availability
from routelearn.availability.breaker import BreakerLimits
from routelearn.availability.choice import Choice
from routelearn.routers.errors import InputError, MissingExtraError

LEGAL = {("closed", "open"), ("open", "half-open"), ("half-open", "closed"), ("half-open", "open")}


class Paths(RuleBasedStateMachine):
    """Any order of choices, outcomes, silence and time; the oracle keeps the state that the rules in the docs give."""

    FAILURES, RESET, LEASE = 3, 10.0, 25.0
    choices = Bundle("choices")

    @initialize(probes=st.integers(1, 3))
    def start(self, probes: int) -> None:
        self.clock, self.probes = Clock(), probes
        self.changes: list[tuple[str, str]] = []
        limits = BreakerLimits(
            failures=self.FAILURES,
            error_rate=1.0,
            min_requests=10_000,
            window=10_000,
            reset_timeout_s=self.RESET,
            probes=probes,
            probe_lease_s=self.LEASE,
        )
        self.availability = Availability(
            ("a",), limits, clock=self.clock, on_change=lambda _, old, new, __: self.changes.append((old, new))
        )
        self.state, self.streak, self.elapsed, self.opened_at = "closed", 0, 0.0, 0.0
        self.leases: dict[int, float] = {}
        self.unsettled = 0
        self.recorded: Counter[str] = Counter()

    def due(self) -> bool:
        if self.state == "open":
            return self.elapsed - self.opened_at >= self.RESET
        over = [end for end in self.leases.values() if end <= self.elapsed]
        return self.state == "half-open" and (len(self.leases) < self.probes or bool(over))

    @rule(target=choices)
    def choose(self) -> Choice:
        due = self.due()
        assert self.availability.is_available("a") == (due or self.state == "closed")
        choice = self.availability.choose(["a", "b"])
        if self.state == "closed":
            assert (choice.model, choice.position, choice.lease) == ("a", 0, None)
        elif due:
            assert (choice.model, choice.probe) == ("a", True)
            self.state = "half-open"
            if len(self.leases) >= self.probes:
                del self.leases[min(self.leases)]
            assert choice.lease is not None and choice.lease not in self.leases
            self.leases[choice.lease] = self.elapsed + self.LEASE
        else:
            assert (choice.model, choice.position, choice.lease) == ("b", 1, None)
        assert not choice.degraded
        return choice

    @rule(choice=consumes(choices), ok=st.booleans(), again=st.booleans())
    def outcome(self, choice: Choice, ok: bool, again: bool) -> None:
        for _ in range(1 + again):
            self.availability.record(choice, ok=ok or choice.model == "b")
            if choice.model == "b":
                continue
            self.recorded.update(requests=1, failures=not ok)
            if self.state == "closed":
                self.streak = 0 if ok else self.streak + 1
                if self.streak == self.FAILURES:
                    self.moved("open")
            elif self.leases.pop(choice.lease or 0, None) is not None:
                self.moved("closed" if ok else "open")

    def moved(self, state: str) -> None:
        self.state, self.streak, self.leases, self.unsettled = state, 0, {}, 0
        if state == "open":
            self.opened_at = self.elapsed

    @rule(choice=consumes(choices))
    def cancelled(self, choice: Choice) -> None:
        self.availability.record(choice, ok=False, error=KeyboardInterrupt())
        if choice.model == "a":
            self.recorded.update(requests=1, ignored=1)
            self.leases.pop(choice.lease or 0, None)

    @rule(choice=consumes(choices))
    def left(self, choice: Choice) -> None:
        self.availability.record(choice, ok=False, error=asyncio.CancelledError())
        if choice.model == "a":
            self.recorded.update(requests=1, ignored=1)
            if self.leases.pop(choice.lease or 0, None) is not None:
                self.unsettled += 1
                if self.unsettled == self.FAILURES:
                    self.moved("open")

    @rule(choice=consumes(choices))
    def never_told(self, choice: Choice) -> None:
        pass

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0, 25.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.clock.now += seconds
        self.availability.status("a")
        self.elapsed += seconds

    @rule(seconds=st.floats(0.5, 10_000))
    def the_clock_jumps_back(self, seconds: float) -> None:
        self.clock.now -= seconds
        self.availability.status("a")

    @invariant()
    def the_state_is_the_one_that_the_rules_give(self) -> None:
        status = self.availability.status("a")
        assert status.state == self.state
        counts = {"requests": status.requests, "failures": status.failures, "ignored": status.ignored}
        assert +Counter(counts) == +self.recorded

    @invariant()
    def the_changes_are_a_legal_path(self) -> None:
        assert set(self.changes) <= LEGAL
        assert all(before[1] == after[0] for before, after in pairwise([("", "closed"), *self.changes]))
        news = Counter(new for _, new in self.changes)
        status = self.availability.status("a")
        assert (status.opened, status.closed) == (news["open"], news["closed"])

    def teardown(self) -> None:
        """Whatever happened: once the model is back, it is asked again."""
        self.clock.now += self.RESET + self.LEASE
        choice = self.availability.choose(["a", "b"])
        assert choice.model == "a"
        self.availability.record(choice, ok=True)
        assert self.availability.status("a").state == "closed"


TestPaths = Paths.TestCase


def test_successes_in_between_start_the_count_of_failures_in_a_row_again() -> None:
    availability = Availability(limits=BreakerLimits(failures=3, error_rate=1.0))
    for ok in [False, False, True] * 10:
        availability.record("a", ok=ok)
    assert availability.status("a").state == "closed"
    availability.record("a", ok=False)
    availability.record("a", ok=False)
    availability.record("a", ok=False)
    assert availability.status("a").state == "open"
    assert availability.status("a").why == "3 failures in a row"


@given(st.lists(st.booleans(), max_size=80), st.integers(1, 30), st.floats(0.05, 1))
def test_an_error_rate_opens_at_the_first_outcome_where_the_window_reaches_it(
    outcomes: list[bool], least: int, rate: float
) -> None:
    limits = BreakerLimits(failures=1000, error_rate=rate, min_requests=least, window=30)
    availability = Availability(limits=limits)
    expected = "closed"
    for i, ok in enumerate(outcomes, 1):
        availability.record("a", ok=ok)
        newest = outcomes[max(0, i - 30) : i]
        if len(newest) >= least and newest.count(False) / len(newest) >= rate:
            expected = "open"
        assert availability.status("a").state == expected


def test_a_slow_model_is_skipped_until_a_probe_is_fast_enough() -> None:
    clock = Clock()
    limits = BreakerLimits(max_p95_s=2.0, min_requests=20, reset_timeout_s=30)
    availability = Availability(limits=limits, clock=clock)
    for latency_s in [0.5] * 95 + [9.0] * 5:
        availability.record("a", ok=True, latency_s=latency_s)
    assert availability.status("a").p95_s == 0.5
    assert availability.is_available("a")
    availability.record("a", ok=True, latency_s=9.0)
    assert availability.choose(["a", "b"]).reason == (
        "a is out for another 30 s (P95 latency 9 s, above 2 s); b is the first available candidate"
    )
    clock.now += 30
    availability.record(availability.choose(["a", "b"]), ok=True, latency_s=2.1)
    assert availability.status("a").state == "open"
    clock.now += 30
    availability.record(availability.choose(["a", "b"]), ok=True, latency_s=1.9)
    assert availability.status("a").state == "closed"
    assert availability.status("a").count == 0  # the slow ones do not open it again


def test_without_a_limit_no_latency_opens() -> None:
    availability = Availability()
    for _ in range(200):
        availability.record("a", ok=True, latency_s=600.0)
    assert availability.is_available("a")


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -1.0])
def test_a_broken_latency_is_left_out(broken: float) -> None:
    availability = Availability(limits=BreakerLimits(max_p95_s=1.0, min_requests=1))
    availability.record("a", ok=True, latency_s=broken)
    assert availability.status("a").p95_s is None
    assert availability.status("a").requests == 1


@pytest.mark.parametrize("probes", [1, 3])
def test_threads_get_no_more_probes_than_the_bound(probes: int) -> None:
    clock = Clock()
    availability = opened(clock, probes=probes)
    clock.now += 30
    chosen: list[Choice] = []
    run_threads(16, lambda _: chosen.extend([availability.choose(["a", "b"]) for _ in range(50)]))
    assert len(chosen) == 800
    assert sum(choice.model == "a" for choice in chosen) == probes
    assert len({choice.lease for choice in chosen if choice.probe}) == probes
    assert availability.status("a").skipped["probing"] == 800 - probes


def test_a_probe_that_is_never_told_of_holds_others_up_for_its_lease_only() -> None:
    clock = Clock()
    availability = opened(clock, probe_lease_s=60)
    clock.now += 30
    lost = availability.choose(["a", "b"])
    assert lost.probe
    clock.now += 59
    assert availability.choose(["a", "b"]).model == "b"
    clock.now += 1
    second = availability.choose(["a", "b"])
    assert second.probe and second.lease != lost.lease
    availability.record(lost, ok=False)  # its place is taken: too late to count
    assert availability.status("a").state == "half-open"
    availability.record(second, ok=True)
    assert availability.status("a").state == "closed"


def test_a_probe_told_late_still_counts_while_no_other_took_its_place() -> None:
    clock = Clock()
    availability = opened(clock, probe_lease_s=60)
    clock.now += 30
    slow = availability.choose(["a", "b"])
    clock.now += 500
    availability.record(slow, ok=True)
    assert availability.status("a").state == "closed"


@pytest.mark.parametrize("ok", [True, False])
def test_of_several_probes_the_first_outcome_decides(ok: bool) -> None:
    clock = Clock()
    availability = opened(clock, probes=2)
    clock.now += 30
    first, second = availability.choose(["a", "b"]), availability.choose(["a", "b"])
    availability.record(first, ok=ok)
    availability.record(second, ok=not ok)
    assert availability.status("a").state == ("closed" if ok else "open")
    if not ok:
        clock.now += 30
        assert [availability.choose(["a", "b"]).probe for _ in range(3)] == [True, True, False]


def test_a_clock_that_jumps_back_delays_nothing() -> None:
    clock = Clock()
    availability = opened(clock)
    clock.now -= 1_000_000
    assert availability.choose(["a", "b"]).model == "b"
    clock.now += 30
    assert availability.choose(["a", "b"]).probe
    clock.now -= 1_000_000
    assert availability.choose(["a", "b"]).model == "b"
    clock.now += 60
    assert availability.choose(["a", "b"]).probe


def test_outcomes_of_calls_that_began_before_the_opening_settle_no_probe() -> None:
    clock = Clock()
    availability = Availability(limits=BreakerLimits(failures=1, reset_timeout_s=30), clock=clock)
    before = [availability.choose(["a", "b"]) for _ in range(4)]
    availability.record(before[0], ok=False)
    availability.record(before[1], ok=True)
    assert availability.status("a").state == "open"
    clock.now += 30
    probe = availability.choose(["a", "b"])
    availability.record(before[2], ok=False)
    availability.record(before[3], ok=True)
    assert availability.status("a").state == "half-open"
    availability.record(probe, ok=True)
    assert availability.status("a").state == "closed"


@pytest.mark.parametrize(
    "limits",
    [
        {"failures": 0},
        {"min_requests": 0},
        {"probes": 0},
        {"error_rate": 0.0},
        {"error_rate": 1.1},
        {"error_rate": float("nan")},
        {"window": 19},
        {"window_s": 0.0},
        {"max_p95_s": -1.0},
        {"reset_timeout_s": 0.0},
        {"probe_lease_s": float("nan")},
    ],
)
def test_a_limit_out_of_its_range_is_an_input_error(limits: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(limits))):
        BreakerLimits(**limits)  # type: ignore[arg-type]


def test_without_pybreaker_the_install_line_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pybreaker", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'routelearn\[availability\]'"):
        Availability()
