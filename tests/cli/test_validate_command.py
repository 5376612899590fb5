"""`routelearn data validate` says what is there, what is missing, and what the data can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from routelearn.cli.main import app
from routelearn.cli.possibilities import possibilities
from routelearn.data.records import PerformanceRecord, PreferenceRecord, Record
from routelearn.routers.errors import DataError


def validated(tmp_path: Path, rows: list[dict[str, Any]], *options: str) -> tuple[str, BaseException | None]:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(app, ["data", "validate", str(path), *options], env={"COLUMNS": "200"})
    return done.stdout, done.exception


def performances(number: int, response: str | None = None) -> list[Record]:
    return [
        PerformanceRecord(f"query {i}", model, float(i % 2 == 0 or model == "big"), response=response)
        for i in range(number)
        for model in ("big", "small")
    ]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], ["no record could be read"]),
        (performances(20)[::2], ["missing: a second model (big alone)"]),
        (performances(4), ["cannot train a router: 4 prompts; at least 6 more needed"]),
        (performances(20), ["can train a router (routelearn train mf) on 20 prompts and 2 models; 280 more prompts"]),
        (performances(20), ["cannot train a verifier: there are no answers", "cannot give a guarantee", "129 more"]),
        (performances(20, "An answer."), ["can train a verifier (routelearn train verifier): 40 answers"]),
        (performances(8, "An answer."), ["cannot train a verifier: 16 answers with labels, 12 of them good"]),
        (performances(400), ["can train a router (routelearn train mf) on 400 prompts", "can try for a guarantee"]),
        ([PreferenceRecord(f"query {i}", "a", "b", 1.0) for i in range(20)], ["every label is the same (a win of a)"]),
        ([PreferenceRecord(f"query {i}", "a", "b", 0.5) for i in range(20)], ["every label is the same (a tie)"]),
        (
            [PreferenceRecord(f"query {i}", "a", "bc"[i % 2], float(i % 3 > 0)) for i in range(20)],
            ["train mf --strong NAME --weak NAME"],
        ),
        ([*performances(20), PerformanceRecord("q", "Big", 1.0)], ["differ only by case: make them one with --alias"]),
    ],
)  # fmt: skip
def test_what_records_can_do_is_said(records: list[Record], said: list[str]) -> None:
    lines = "\n".join(possibilities(records))
    assert not [part for part in said if part not in lines], lines


def test_what_is_there_comes_first_and_what_it_can_do_last(tmp_path: Path) -> None:
    rows = [{"Question": f"query {i}", "mini": i % 2, "max": 1, "latency_s": 0.3, "note": "-"} for i in range(20)]
    printed, error = validated(tmp_path, [{**rows[0], "note": "checked"}, *rows[1:]])
    lines = printed.splitlines()
    assert error is None or error.code == 0  # type: ignore[attr-defined]
    assert lines[0].endswith("t.jsonl: columns Question, mini, max, latency_s, note")
    assert lines[1] == "queries are read from Question"
    assert any(line.endswith("scores of the models mini, max") for line in lines)
    assert any(line.endswith("left out, not scores by their names: latency_s; --models takes them") for line in lines)
    assert any(line.endswith("left out, because they hold text: note") for line in lines)
    assert lines[-3].startswith("can train a router")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"prompt": "q"}], "no labels in the columns"),
        ([{"prompt": "q", "note": "text"}], "no score in the row"),
        ([{"prompt": "q", "model_a": "a", "model_b": "b"}], "no such column"),
    ],
)
def test_queries_without_labels_are_told_what_they_are_good_for(
    tmp_path: Path, rows: list[dict[str, Any]], problem: str
) -> None:
    printed, error = validated(tmp_path, rows)
    assert "can be scored (routelearn score)" in printed
    assert "labels are: model_a, model_b and winner; or model and score" in printed
    assert isinstance(error, DataError)
    assert problem in str(error)


def test_bad_rows_are_counted_by_cause(tmp_path: Path) -> None:
    good = {"prompt": "q", "model": "m", "score": 1}
    rows = [good, {**good, "score": 3}, {**good, "score": 3}, {**good, "prompt": None}, {**good, "model": " "}]
    printed, _ = validated(tmp_path, rows, "--skip-bad")
    for cause in (
        "2 bad rows, column 'score': expected a number from 0 to 1",
        "1 bad rows, column 'prompt': expected a prompt",
        "1 bad rows, column 'model': expected the name of a model",
    ):
        assert cause in printed, printed
    assert "row 4, column 'prompt'" in printed


@pytest.mark.parametrize("command", [["calibrate", "--strong-share", "0.3"], ["evaluate", "--no-leak-check"]])
def test_rows_that_other_commands_skip_are_listed_too(bundle: Path, tmp_path: Path, command: list[str]) -> None:
    rows = [{"prompt": f"query {i}", "sim-max": 1, "sim-small": i % 2} for i in range(40)]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": None}, {"prompt": None}]))
    arguments = [command[0], str(bundle), "--data", str(path), "--skip-bad", *command[1:]]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.exception
    assert "row 42, column 'prompt': missing" in done.stderr
    assert "2 bad rows, column 'prompt': expected a prompt" in done.stderr
