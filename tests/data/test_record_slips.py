"""What is handed over in place of records: each is an InputError that says what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from routelearn.data.readers import RecordSet
from routelearn.data.records import PerformanceRecord, PreferenceRecord, check_records
from routelearn.evaluation.evaluate import evaluate
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
