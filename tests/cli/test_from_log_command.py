"""`routelearn data from-log`: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.cli import run

from routelearn import Decision
from routelearn.data import open_table, read_records
from routelearn.monitoring import DecisionLog

LITELLM = Path(__file__).parents[1] / "data" / "logs" / "litellm-1.110.2.jsonl"


@pytest.fixture
def decisions(tmp_path: Path) -> Path:
    """A log with hashes: three explored decisions, two that were not drawn, of which one has no outcome."""
    log = DecisionLog(tmp_path / "decisions.jsonl", salt="pepper")
    for number, propensity in enumerate((0.5, 0.25, 0.001, 1.0, 1.0)):
        decision = Decision("big", 0.5, 0.5, ("big",), "learned", "threshold", propensity=propensity)
        name = log.write(f"Question {number}", decision)
        if number != 4:
            log.write_outcome(name, number / 4)
    log.close()
    (tmp_path / "prompts.txt").write_text("".join(f"Question {number}\n" for number in range(5)))
    return tmp_path / "decisions.jsonl"


def test_records_of_a_decision_log_and_what_is_said_of_them(
    decisions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_SALT", "pepper")
    out = tmp_path / "records.parquet"
    command = (
        "data",
        "from-log",
        decisions,
        "-o",
        out,
        "--prompts",
        tmp_path / "prompts.txt",
        "--salt-env",
        "LOG_SALT",
    )
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert [(one.query, one.score, one.weight) for one in read_records(out).records] == [
        ("Question 0", 0.0, 2.0),
        ("Question 1", 0.25, 4.0),
        ("Question 2", 0.5, 100.0),
        ("Question 3", 0.75, 1.0),
    ]
    for sentence in (
        "9 lines, 5 requests\n",
        "1 requests left out, because they have no outcome\n",
        "3 records of explored decisions have the weight 1 / propensity\n",
        "1 of these weights are cut to 100 (--most-weight)",
        "1 records have the weight 1, because their model was not drawn: such a log says nothing of the model that was",
        "wrote 4 records to ",
    ):
        assert sentence in done.stderr
    again = run(*command)
    assert again.returncode == 2
    assert "is there already" in again.stderr
    done = run(*command, "--force", "--most-weight", "3")
    assert "2 of these weights are cut to 3 " in done.stderr


def test_hashes_without_prompts_are_an_error_that_says_what_to_do(decisions: Path, tmp_path: Path) -> None:
    done = run("data", "from-log", decisions, "-o", tmp_path / "records.parquet")
    assert done.returncode == 2
    assert "has hashes in place of the texts of all 5 requests; expected --prompts FILE" in done.stderr
    done = run("data", "from-log", decisions, "-o", tmp_path / "r.parquet", "--prompts", tmp_path / "prompts.txt")
    assert done.returncode == 2
    assert "expected the salt that the log was written with (--salt-env)" in done.stderr
    done = run("data", "from-log", decisions, "-o", tmp_path / "r.parquet", "--salt-env", "NOT_THERE")
    assert done.returncode == 2
    assert "--salt-env NOT_THERE: there is no such environment variable" in done.stderr


def test_prompts_alone(tmp_path: Path) -> None:
    out = tmp_path / "prompts.jsonl"
    done = run("data", "from-log", LITELLM, LITELLM, "-o", out, "--queries-only")
    assert done.returncode == 0, done.stderr
    assert "wrote 6 prompts of 6 requests to " in done.stderr
    assert "1 lines of other calls left out (aembedding)" in done.stderr
    assert "no outcome" not in done.stderr
    rows = [row for _, row in open_table(out).rows]
    assert {"prompt": "Stream it", "weight": 1.0} in rows
    assert len(rows) == 6


def test_outcomes_from_a_table_prices_and_names_of_fields(tmp_path: Path) -> None:
    log, table, pool, out = (tmp_path / name for name in ("log.txt", "o.csv", "pool.json", "r.jsonl"))
    line = {
        "request": {"model": "azure/gpt-4o", "input": "Hi"},
        "response": {"id": "r1", "output": [], "usage": {"input_tokens": 1_000_000, "output_tokens": 0}},
        "team": "math",
    }
    log.write_text(json.dumps(line) + "\n")
    table.write_text("call,stars\nr1,4\nr2,1\n")
    pool.write_text('[{"name": "gpt-4o", "input_price": 2.5, "output_price": 10}]')
    options = ["--outcomes", table, "--map", "id=call", "--map", "score=stars", "--score-scale", "5", "--pool", pool]
    options += ["--alias", "azure/gpt-4o=gpt-4o", "--task-field", "team"]
    done = run("data", "from-log", log, "-o", out, *options)
    assert done.returncode == 0, done.stderr
    assert "1 outcomes that name no request" in done.stderr
    (record,) = read_records(out).records
    assert (record.query, record.models, record.task) == ("Hi", ("gpt-4o",), "math")
    row = json.loads(out.read_text())
    assert (row["score"], row["cost_usd"], row["source"]) == (0.8, 2.5, "log")


def test_bad_lines_stop_the_command_or_are_listed(tmp_path: Path) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "r.jsonl"
    good = json.dumps({"request": {"model": "m", "input": "Hi"}, "response": "Yes", "score": 1})
    log.write_text(f"{good}\n{{}}\n")
    done = run("data", "from-log", log, "-o", out)
    assert (done.returncode, out.exists()) == (2, False)
    assert f"error: {log}, row 2: a line of no known kind, with the fields: none; expected a decision" in done.stderr
    done = run("data", "from-log", log, "-o", out, "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert "1 bad rows, the row: expected a decision of routelearn" in done.stderr
    done = run("data", "from-log", "-", "-o", out, "--force", stdin=good)
    assert done.returncode == 0, done.stderr
    assert run("data", "from-log", log, "-o", tmp_path / "r.xlsx").returncode == 2
