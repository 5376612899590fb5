"""What is handed over in place of records: each is an InputError that says what to write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routelearn.data.queries import read_queries
from routelearn.data.readers import RecordSet, read_many, read_records
from routelearn.data.records import PerformanceRecord, PreferenceRecord, check_records
from routelearn.data.sample import generate_sample
from routelearn.data.splits import deduplicate, find_leaks, split_by_prompt
from routelearn.data.writers import write_records
from routelearn.evaluation.evaluate import evaluate
from routelearn.evaluation.thresholds.calibrate import calibrate_by_quality_loss, calibrate_by_strong_share
from routelearn.routers.errors import InputError
from routelearn.routers.rules import RulesRouter

WRONG: list[tuple[Any, str]] = [
    ("records.jsonl", r"read_records\('records.jsonl'\).records"),
    (Path("records.jsonl"), r"read_records\('records.jsonl'\).records"),
    (RecordSet("records.jsonl", "performance"), "pass its attribute `records`"),
    (None, "a list of records"),
    (["a query"], "a PerformanceRecord or a PreferenceRecord"),
    ([PerformanceRecord("a query", "m", 85)], "record 0 has the score 85; expected a number from 0 to 1"),
    ([PerformanceRecord("a query", "m", "0.85")], "expected a number from 0 to 1"),  # type: ignore[arg-type]
    ([PerformanceRecord("a query", "m", float("nan"))], "expected a number from 0 to 1"),
    ([PreferenceRecord("a query", "a", "b", "a")], "record 0 has the preference 'a'"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("records", "told"), WRONG)
def test_what_is_no_list_of_records_is_refused(records: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_records(records)
    with pytest.raises(InputError, match=told):
        evaluate({"rules": RulesRouter("a", "b")}, records)


@pytest.mark.parametrize("routers", [RulesRouter("a", "b"), "router/", [RulesRouter("a", "b")], {"mine": "router/"}])
def test_evaluate_takes_routers_by_name(routers: Any) -> None:
    with pytest.raises(InputError, match=r"expected routers by name: \{'mine': routelearn.load\(path\)\}"):
        evaluate(routers, [PerformanceRecord("a query", "a", 0.5)])


CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "a number for a source": (lambda: read_records(5), "expected a path"),  # type: ignore[arg-type]
    "one source of queries": (lambda: read_queries("q.txt"), r"expected a list of sources: \['q.txt'\]"),
    "one source of records": (lambda: read_many("q.csv@2"), "expected a list of sources"),
    "a number for sources": (lambda: read_queries(5), "expected a list of sources"),  # type: ignore[arg-type]
    "a path to deduplicate": (lambda: deduplicate("a.jsonl"), "expected records: read_records"),  # type: ignore[arg-type]
    "a path to split": (lambda: split_by_prompt("a.jsonl", (0.5, 0.5)), "expected records: read_records"),  # type: ignore[arg-type]
    "texts for records": (lambda: find_leaks(["a"], ["a"]), "expected a PerformanceRecord"),  # type: ignore[list-item]
    "a path to write": (lambda: write_records("a.jsonl", "b.jsonl"), "expected records: read_records"),  # type: ignore[arg-type]
    "a text for a number": (lambda: generate_sample("100"), "expected a whole number of 1 or more"),  # type: ignore[arg-type]
    "a path to calibrate on": (
        lambda: calibrate_by_strong_share(RulesRouter("a", "b"), "q.txt", 0.5),
        "expected a list of queries",
    ),
    "a path of labels": (
        lambda: calibrate_by_quality_loss(RulesRouter("a", "b"), "labels.csv", 0.01),  # type: ignore[arg-type]
        "expected records: read_records",
    ),
}


@pytest.mark.parametrize(("call", "told"), CALLS.values(), ids=CALLS)
def test_a_function_on_data_says_what_to_write(call: Callable[[], object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        call()
