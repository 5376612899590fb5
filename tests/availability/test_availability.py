"""The choice among candidates, the outcomes that are reported, and what listeners and Prometheus hear of it."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from helpers.availability import Clock, opened, run_threads
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from routelearn.availability.availability import Availability
from routelearn.availability.breaker import BreakerLimits
from routelearn.availability.choice import Choice
from routelearn.monitoring.prometheus import register
from routelearn.routers.checks import MAX_NAME
from routelearn.routers.decision import Decision
from routelearn.routers.errors import InputError

NAMES = st.lists(st.sampled_from("abcde"), min_size=1, max_size=5, unique=True)


def decision(*candidates: str) -> Decision:
    return Decision(candidates[0], 0.7, 0.5, candidates, "learned", "score 0.7000 is at or above threshold 0.5000")


# The choice.


@given(NAMES)
def test_with_all_healthy_the_choice_is_the_first_candidate(names: list[str]) -> None:
    availability = Availability()
    for name in names:
        availability.record(name, ok=True)
    choice = availability.choose(decision(*names))
    assert choice == Choice(names[0], 0, f"{names[0]} is the first available candidate")
    assert availability.fallbacks(decision(*names)) == tuple(names)


@given(NAMES, st.lists(st.tuples(st.sampled_from("abcde"), st.booleans(), st.floats(0, 20)), max_size=60))
def test_the_choice_is_the_first_candidate_that_can_be_asked_and_leads_the_fallbacks(
    names: list[str], calls: list[tuple[str, bool, float]]
) -> None:
    clock = Clock()
    availability = Availability(limits=BreakerLimits(failures=2, reset_timeout_s=30), clock=clock)
    for model, ok, wait in calls:
        clock.now += wait
        availability.record(model, ok=ok)
    can = [availability.is_available(name) for name in names]
    order = availability.fallbacks(names)
    choice = availability.choose(names)
    assert (choice.model, names[choice.position]) == (order[0], order[0])
    assert sorted(order) == sorted(names)
    assert choice.degraded == (not any(can))
    if any(can):
        assert choice.position == can.index(True)
        assert list(order[: sum(can)]) == [name for name, yes in zip(names, can, strict=True) if yes]
    skipped = names if choice.degraded else names[: choice.position]
    assert all(f"{name} is " in choice.reason for name in (*skipped, choice.model))


def test_a_down_candidate_is_skipped_and_the_reason_says_why() -> None:
    clock = Clock()
    availability = opened(clock)
    clock.now += 18
    choice = availability.choose(decision("a", "b", "c"))
    assert choice == Choice(
        "b",
        1,
        "a is out for another 12 s (3 failures in a row, last error down); b is the first available candidate",
    )
    assert availability.status("a").skipped["failures"] == 1


def test_with_all_down_the_last_resort_is_the_one_whose_probe_is_due_soonest() -> None:
    clock = Clock()
    availability = opened(clock, model="b")
    clock.now += 5
    for _ in range(3):
        availability.record("a", ok=False)
    choice = availability.choose(["a", "b"])
    assert (choice.model, choice.position, choice.degraded, choice.probe) == ("b", 1, True, False)
    assert choice.reason.endswith("no candidate is available: b as the last resort, its probe is due soonest, in 25 s")
    assert choice.reason.startswith("a is out for another 30 s (3 failures in a row); b is out for another 25 s")
    availability.record(choice, ok=True)  # no probe: the breaker keeps its time
    assert availability.status("b").state == "open"


def test_with_all_down_a_model_that_is_being_probed_comes_before_one_that_will_be() -> None:
    clock = Clock()
    availability = opened(clock, model="b", probe_lease_s=1000)
    clock.now += 30
    assert availability.choose(["b"]).probe
    for _ in range(3):
        availability.record("a", ok=False)
    clock.now += 29
    choice = availability.choose(["a", "b"])
    assert (choice.model, choice.degraded) == ("b", True)
    assert choice.reason.endswith("b as the last resort, it is being probed now")
    assert availability.fallbacks(["a", "b"]) == ("b", "a")


def test_asking_changes_nothing() -> None:
    clock = Clock()
    availability = opened(clock)
    clock.now += 30
    before = availability.as_dict()
    for _ in range(3):
        assert availability.is_available("a")
        assert availability.fallbacks(["a", "b"]) == ("a", "b")
        availability.status("nobody")
    assert availability.as_dict() == before
    assert availability.choose(["a", "b"]).probe


@pytest.mark.parametrize("candidates", [[], (), "abc"])
def test_no_candidates_are_an_input_error(candidates: object) -> None:
    with pytest.raises(InputError, match="at least one model name"):
        Availability().choose(candidates)  # type: ignore[arg-type]


# Names and threads.


def test_eight_threads_lose_no_outcome() -> None:
    availability = Availability(("m0", "m1"), max_models=4)

    def work(number: int) -> None:
        for i in range(700):
            choice = availability.choose([f"m{i % 7}", "m0"])
            availability.record(f"m{i % 7}", ok=i % 3 > 0, latency_s=1.0, error="down")
            with availability.attempt(choice):
                pass
            if i % 100 == 0:
                availability.as_dict()

    run_threads(8, work)
    statuses = availability.statuses()
    assert sum(status.requests for status in statuses) == 2 * 8 * 700
    assert sum(status.failures for status in statuses) == 8 * 234
    assert {status.model for status in statuses} == {"m0", "m1", "m2", "m3", "other"}


def test_names_beyond_the_bound_are_counted_together_and_never_skipped() -> None:
    availability = Availability(("a",), BreakerLimits(failures=1), max_models=2)
    for name in ("b", "c", "d", "other"):
        availability.record(name, ok=False)
    assert [(s.model, s.requests, s.state) for s in availability.statuses()] == [
        ("a", 0, "closed"),
        ("b", 1, "open"),
        ("other", 3, "closed"),
    ]
    assert availability.choose(["c", "a"]).model == "c"
    for i in range(1000):
        availability.record(f"flood {i}", ok=True)
        availability.choose([f"unheard of {i}"])
    assert len(availability.statuses()) == 3


def test_a_name_is_one_printable_line_of_bounded_length_and_still_the_same_model() -> None:
    availability = Availability(limits=BreakerLimits(failures=1))
    name = "evil\nname " + "x" * 500
    availability.record(name, ok=False)
    status = availability.statuses()[0]
    assert status.model.isprintable() and len(status.model) == MAX_NAME
    choice = availability.choose([name, "b"])
    assert choice.model == "b" and choice.reason.isprintable()


def test_long_names_that_begin_alike_are_two_models() -> None:
    availability = Availability(limits=BreakerLimits(failures=1))
    availability.record("a" * 150 + "1", ok=False)
    assert not availability.is_available("a" * 150 + "1")
    assert availability.is_available("a" * 150 + "2")


def test_more_models_than_the_bound_are_an_input_error() -> None:
    for arguments in ({"models": ("a", "b"), "max_models": 1}, {"max_models": 0}):
        with pytest.raises(InputError, match="max_models"):
            Availability(**arguments)  # type: ignore[arg-type]


# Listeners, metrics and statuses.


def test_listeners_hear_each_change_with_the_reason_and_may_ask_back_or_raise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, heard = Clock(), []

    def listen(model: str, old: str, new: str, reason: str) -> None:
        heard.append((model, old, new, reason, availability.status(model).state))
        raise RuntimeError("in the listener")

    limits = BreakerLimits(failures=2, reset_timeout_s=30)
    availability = Availability(limits=limits, on_change=listen, clock=clock)
    with caplog.at_level(logging.INFO):
        availability.record("a", ok=False)
        availability.record("a", ok=False)
        clock.now += 30
        availability.record(availability.choose(["a", "b"]), ok=False)
        clock.now += 30
        availability.record(availability.choose(["a", "b"]), ok=True)
    assert heard == [
        ("a", "closed", "open", "2 failures in a row", "open"),
        ("a", "open", "half-open", "30 s have passed", "half-open"),
        ("a", "half-open", "open", "a probe failed", "open"),
        ("a", "open", "half-open", "30 s have passed", "half-open"),
        ("a", "half-open", "closed", "a probe succeeded", "closed"),
    ]
    assert caplog.text.count("on_change raised") == 5
    assert [record.levelname for record in caplog.records if "breaker of" in record.message] == [
        "WARNING",
        "INFO",
        "WARNING",
        "INFO",
        "INFO",
    ]


def test_statuses_are_plain_data() -> None:
    availability = opened(Clock())
    availability.record("b", ok=True, latency_s=0.5)
    assert json.loads(json.dumps(availability.as_dict())) == availability.as_dict()
    status = availability.as_dict()["a"]
    assert status["state"] == "open" and status["error_rate"] == 1.0 and status["last_error"] == "down"


def scrape(availability: Availability) -> dict[tuple[str, str, str], float]:
    registry = CollectorRegistry()
    register(availability, registry)
    return {
        (sample.name, sample.labels["model"], sample.labels.get("state", sample.labels.get("reason", ""))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_prometheus_sees_what_the_statuses_say() -> None:
    clock = Clock()
    availability = opened(clock)
    availability.record("b", ok=True, latency_s=0.5)
    availability.record("b", ok=False, error=KeyboardInterrupt())
    availability.choose(["a", "b"])
    clock.now += 30
    probe = availability.choose(["a", "b"])
    availability.choose(["a", "b"])
    scraped = scrape(availability)
    for status in availability.statuses():
        for name in ("requests", "failures", "ignored"):
            assert scraped[f"routelearn_model_{name}_total", status.model, ""] == getattr(status, name)
        for name in ("opened", "closed"):
            assert scraped[f"routelearn_breaker_{name}_total", status.model, ""] == getattr(status, name)
        for kind, count in status.skipped.items():
            assert scraped["routelearn_model_skipped_total", status.model, kind] == count
        states = {s: scraped["routelearn_breaker_state", status.model, s] for s in ("closed", "open", "half-open")}
        assert states == {**dict.fromkeys(states, 0), status.state: 1}
    assert scraped["routelearn_model_skipped_total", "a", "failures"] == 1
    assert scraped["routelearn_model_skipped_total", "a", "probing"] == 1
    assert scraped["routelearn_model_latency_p95_seconds", "b", ""] == 0.5
    assert scraped["routelearn_model_error_rate", "a", ""] == 1
    assert ("routelearn_model_latency_p95_seconds", "a", "") not in scraped
    availability.record(probe, ok=True)
    scraped = scrape(availability)
    assert scraped["routelearn_breaker_closed_total", "a", ""] == 1
    assert scraped["routelearn_breaker_opened_total", "a", ""] == 1


def test_one_registry_takes_one_and_gives_it_back() -> None:
    registry, availability = CollectorRegistry(), Availability()
    collector = register(availability, registry)
    with pytest.raises(InputError, match="one Availability a registry"):
        register(availability, registry)
    registry.unregister(collector)
    register(availability, registry)


# The recipes.

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "availability.md").read_text()


@pytest.mark.parametrize(
    ("code", "expected"),
    list(
        zip(
            re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL),
            (
                "s (5 failures in a row, last error ConnectionRefusedError); sim-small is the first",
                "0.135 0.03375",
                "the switch costs",
            ),
            strict=True,
        )
    ),
    ids=("availability", "conversations", "price of a switch"),
)
def test_the_recipe_runs(code: str, expected: str, tmp_path: Path) -> None:
    """Without a bundle: rules answer."""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_the_documented_limits_and_metrics_are_the_real_ones() -> None:
    for field in fields(BreakerLimits):
        assert f"`{field.name}`" in DOCS
    names = {name for name, _, _ in scrape(opened(Clock())) if "created" not in name}
    assert names <= set(re.findall(r"`(routelearn_\w+)`", DOCS))
