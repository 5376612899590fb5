"""Which tests `make quick` leaves out: those that make a transformer, start a server or start several processes.

They carry the mark `slow`. A test that needs a fixture with a transformer gets the mark by itself; every other one
states it. A test without the mark that does such a thing all the same fails, so nobody has to look after a list.
"""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from typing import Any

import pytest

#: Fixtures that make a transformer. What depends on one of them is slow as well.
TRANSFORMERS = {"tiny_bert", "bert_bundle", "int8_bundle", "frozen_bundle", "blended_bundle", "verifier_bundle"}
#: So many processes may a test start that is not slow.
PROCESSES = 1

_running: list[pytest.Item] = []
#: The tests whose own code runs, and not their fixtures, which other tests share.
_called: list[pytest.Item] = []
_started: dict[str, int] = {}


def mark_slow_tests(items: list[pytest.Item]) -> None:
    """Mark the tests that need a transformer, by a fixture or by a parameter that names such a fixture."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        parameters = {value for value in callspec.params.values() if isinstance(value, str)} if callspec else set()
        if TRANSFORMERS & (parameters | set(getattr(item, "fixturenames", ()))):
            item.add_marker("slow")


def refuse_unless_slow(what: str) -> None:
    """Fail the test that runs unless it is marked as slow."""
    if _running and not _running[-1].get_closest_marker("slow"):
        pytest.fail(f"this test {what}: mark it with pytest.mark.slow, so that `make quick` leaves it out")


def count_processes() -> None:
    """From now on, a test that starts more processes than one fails unless it is marked as slow."""
    start = subprocess.Popen.__init__

    def counted(self: subprocess.Popen[Any], *arguments: Any, **options: Any) -> None:
        if _called:
            name = _called[-1].nodeid
            _started[name] = _started.get(name, 0) + 1
            if _started[name] > PROCESSES:
                refuse_unless_slow("starts more than one process")
        start(self, *arguments, **options)

    subprocess.Popen.__init__ = counted  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Remember which test runs."""
    _running.append(item)
    try:
        return (yield)
    finally:
        _running.pop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Remember whose own code runs."""
    _called.append(item)
    try:
        return (yield)
    finally:
        _called.pop()
