"""`routelearn cascade-plan`: which records it plans on."""

from __future__ import annotations

from pathlib import Path

import pytest

from routelearn.cli.cascade_plan import CascadePlanOptions, _records
from routelearn.cli.options import LeakCheck, Reading
from routelearn.cli.terminal import Console
from routelearn.data.records import PerformanceRecord
from routelearn.data.writers import write_records
from routelearn.routers.errors import LeakError

QUESTIONS = [f"How far is it from city {i} to the harbour of town {i * i}, by the old road?" for i in range(4)]


def planned(folder: Path, leaks: LeakCheck) -> tuple[list[object], list[str]]:
    wrapped = [PerformanceRecord(f"Question: {text}\nAnswer:", "m", 1.0) for text in QUESTIONS]
    data = write_records(wrapped, folder / "data.jsonl")
    options = CascadePlanOptions(Path("verifier"), [str(data)], Path("prices.json"))
    records, notes = _records(options, Reading(), leaks, Console(quiet=True))
    return [record.query for record in records], notes


def test_prompts_that_were_trained_on_are_refused_or_left_out(tmp_path: Path) -> None:
    train = [PerformanceRecord(text, "m", 1.0) for text in QUESTIONS[:1]]
    files = [str(write_records(train, tmp_path / "train.jsonl"))]
    with pytest.raises(LeakError, match="1 evaluation prompts"):
        planned(tmp_path, LeakCheck(train=files))
    kept, notes = planned(tmp_path, LeakCheck(train=files, drop_leaks=True))
    assert (len(kept), notes) == (3, ["1 prompts that stand in the training data were left out"])


def test_a_plan_says_that_no_leak_check_was_made(tmp_path: Path) -> None:
    for leaks in (LeakCheck(), LeakCheck(train=["any.jsonl"], no_leak_check=True)):
        kept, notes = planned(tmp_path, leaks)
        assert len(kept) == 4 and "no leak check was made" in notes[0]
