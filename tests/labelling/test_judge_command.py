"""`routelearn judge`."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.cli import COMMAND, run
from helpers.judges import answers_of, judge_by, judges_toml, longer
from helpers.openai_server import OpenAIServer

from routelearn.data import read_records, write_records
from routelearn.data.records import PreferenceRecord
from routelearn.labelling import write_answers

ANSWERS = {"big": ["it is 144", "it is 12", "so 7"], "small": ["144", "it is 13!", ""]}


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(answer=judge_by(longer)) as started:
        yield started


def answers_file(folder: Path, **of_prompt: object) -> Path:
    return write_answers(answers_of(ANSWERS, **of_prompt), folder / "answers.parquet")


def test_answer_keys_are_compared(tmp_path: Path) -> None:
    path, out = answers_file(tmp_path, reference="144"), tmp_path / "records.csv"
    done = run("judge", path, "--grader", "number", "-o", out)
    assert done.returncode == 0, done.stderr
    assert "wrote 6 records" in done.stderr
    assert "big: mean score 0.3333" in done.stderr
    assert "small: 1 answers are 'empty', worth 0" in done.stderr
    assert [record.score for record in read_records(out).records] == [1, 1, 0, 0, 0, 0]


def test_the_column_names_the_grader(tmp_path: Path) -> None:
    path, out = answers_file(tmp_path, grader="regex:^it is"), tmp_path / "records.jsonl"
    done = run("judge", path, "-o", out)
    assert done.returncode == 0, done.stderr
    assert [record.score for record in read_records(out).records] == [1, 0, 1, 1, 0, 0]


def test_a_schema_in_a_table_may_be_an_object(tmp_path: Path) -> None:
    row = {"prompt": "q", "model": "m", "response": '{"a": 1}', "reference": {"required": ["a"]}}
    (tmp_path / "answers.jsonl").write_text(json.dumps(row) + "\n")
    done = run("judge", tmp_path / "answers.jsonl", "--grader", "json-schema", "-o", tmp_path / "records.jsonl")
    assert done.returncode == 0, done.stderr
    assert read_records(tmp_path / "records.jsonl").records[0].score == 1  # type: ignore[union-attr]


def test_a_function_of_the_current_folder_grades(tmp_path: Path) -> None:
    (tmp_path / "my_graders_of_a_test.py").write_text("def is_short(answer):\n    return len(answer.response) < 4\n")
    answers_file(tmp_path)
    done = run("judge", "answers.parquet", "--grader", "my_graders_of_a_test:is_short", "-o", "r.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [record.score for record in read_records(tmp_path / "r.jsonl").records] == [0, 1, 0, 0, 0, 0]


def test_the_default_rubrics_are_printed() -> None:
    assert run("judge", "--print-rubric").stdout.startswith("You compare two answers")
    assert run("judge", "--print-rubric", "--scale").stdout.startswith("You rate an answer")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nothing says how to label the answers"),
        (["--grader", "levenshtein"], "grader 'levenshtein'; expected one of exact,"),
        (["--grader", "no_such_module:f"], "cannot be imported"),
        (["--grader", "number", "--judges", "J"], "--grader was given with judges"),
        (["--judges", "J", "--judge", "x"], "--judges was given with --models or --judge"),
        (["--models", "J"], "expected --models FILE with --judge NAME"),
        (["--models", "J", "--judge", "y"], "no models ['y']"),
        (["--judges", "J", "--scale", "--strong", "big"], "--strong was given with --scale"),
        (["--judges", "J", "--strong", "big"], "expected two models"),
        (["--judges", "J", "--least-agreement", "0.5"], "--least-agreement was given without --human"),
        (["--grader", "number", "--scale"], "--scale was given without judges"),
        (["--judges", "J", "--rubric", "no-such-file.txt"], "no-such-file.txt cannot be read"),
        (["--judges", "J", "-o", "records.txt"], "expected a file that ends in"),
    ],
)
def test_a_slip_in_the_flags_ends_with_2(tmp_path: Path, flags: list[str], message: str) -> None:
    path = answers_file(tmp_path, reference="144")
    given = [str(judges_toml(tmp_path, "http://127.0.0.1:9/v1")) if flag == "J" else flag for flag in flags]
    out = [] if "-o" in flags else ["-o", tmp_path / "records.jsonl"]
    done = run("judge", path, *given, *out)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_without_answers_or_an_output() -> None:
    done = run("judge")
    assert (done.returncode, done.stderr) == (2, "error: expected a table of answers, and --out for the records\n")


@pytest.mark.slow
def test_judges_compare_pairs_and_the_command_says_how_they_did(server: OpenAIServer, tmp_path: Path) -> None:
    path, out = answers_file(tmp_path), tmp_path / "records.parquet"
    judges = judges_toml(tmp_path, server.url, "judge-x", "judge-y")
    done = run("judge", path, "--judges", judges, "--strong", "big", "--weak", "small", "-o", out)
    assert done.returncode == 0, done.stderr
    for line in (
        "wrote 3 records to",
        "judge-x: both orders agree in 100.0% of 2 pairs; position bias +0.000 (95 % interval -0.658 to +0.658;",
        "judge-y: 4 verdicts",
        "1 pairs needed no judge",
    ):
        assert line in done.stderr
    assert [record.preference for record in read_records(out).records] == [1, 0, 1]
    assert server.counts.calls == 8
    again = run("judge", path, "--judges", judges, "--strong", "big", "--weak", "small", "-o", out)
    assert (again.returncode, server.counts.calls) == (0, 8)
    other = run("judge", path, "--models", judges, "--judge", "judge-y", "-o", out)
    assert (other.returncode, server.counts.calls) == (0, 8)  # the journal knows the verdicts of judge-y


@pytest.mark.slow
def test_a_dry_run_asks_nothing_and_another_rubric_asks_anew(server: OpenAIServer, tmp_path: Path) -> None:
    path, out = answers_file(tmp_path), tmp_path / "records.parquet"
    flags = ["--judges", judges_toml(tmp_path, server.url), "--scale", "-o", out]
    done = run("judge", path, *flags, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "judge-x" in done.stdout
    assert "300 tokens an answer" in done.stdout
    assert (server.counts.calls, out.exists()) == (0, False)
    server.answer = lambda _: "[[4]]"
    assert run("judge", path, *flags).returncode == 0
    assert server.counts.calls == 5
    (tmp_path / "rubric.txt").write_text("Only rhymes count.")
    assert run("judge", path, *flags, "--rubric", tmp_path / "rubric.txt").returncode == 0
    assert server.counts.calls == 10
    assert server.counts.prompts[-1].startswith("Only rhymes count.")


@pytest.mark.slow
def test_a_budget_ends_the_run_and_says_so(server: OpenAIServer, tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    flags = ["--judges", judges_toml(tmp_path, server.url), "-o", out]
    done = run("judge", answers_file(tmp_path), *flags, "--budget-usd", "0.0001")
    assert done.returncode == 0, done.stderr
    assert "stopped: the budget of 0.0001 USD has" in done.stderr
    assert "4 questions are left" in done.stderr


@pytest.mark.slow
def test_the_agreement_with_people_is_said_and_can_stop_the_command(server: OpenAIServer, tmp_path: Path) -> None:
    path, out, human = answers_file(tmp_path), tmp_path / "records.jsonl", tmp_path / "labels.jsonl"
    write_records([PreferenceRecord(f"Question {row}?", "small", "big", 0.0) for row in range(2)], human)
    flags = ["--judges", judges_toml(tmp_path, server.url), "--human", human, "-o", out]
    done = run("judge", path, *flags, "--least-agreement", "0.9")
    assert done.returncode == 3
    assert "judges and people on 2 pairs, with 95 % intervals: agreement 0.500 (" in done.stderr
    assert "AUROC not defined" in done.stderr
    assert "stopped: the judges agree with people in less than 0.9 of the pairs; nothing was written" in done.stderr
    assert not out.exists()
    done = run("judge", path, *flags, "--least-agreement", "0.5")
    assert done.returncode == 0, done.stderr
    assert len(read_records(out).records) == 3


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_writes_the_same_bytes(server: OpenAIServer, tmp_path: Path) -> None:
    texts = {
        "a": [f"the answer {row % 7}" for row in range(60)],
        "b": [f"it is {'no ' * (row % 9)}" for row in range(60)],
    }
    path = write_answers(answers_of(texts), tmp_path / "answers.parquet")
    judges = judges_toml(tmp_path, server.url)
    whole, out = tmp_path / "whole.parquet", tmp_path / "records.parquet"
    assert run("judge", path, "--judges", judges, "-o", whole).returncode == 0
    needed = server.counts.calls
    server.counts.calls = server.counts.dropped = 0
    server.delay_s = 0.05
    for kill_at in (needed // 4, needed // 2):
        process = subprocess.Popen(
            [*COMMAND, "judge", path, "--judges", judges, "-o", out],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while server.counts.calls < kill_at:
            time.sleep(0.005)
            assert process.poll() is None
        process.kill()
        process.wait(60)
        assert not out.exists()
    assert run("judge", path, "--judges", judges, "-o", out).returncode == 0
    # At each kill eight calls may be in flight, which are asked again.
    assert needed <= server.counts.calls <= needed + 2 * 8
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_pilot_measures_what_the_rest_will_cost(server: OpenAIServer, tmp_path: Path) -> None:
    texts = {"a": ["an answer " * (1 + row % 20) for row in range(200)], "b": [f"no {row}" for row in range(200)]}
    path = write_answers(answers_of(texts), tmp_path / "answers.parquet")
    flags = ["--judges", judges_toml(tmp_path, server.url), "-o", tmp_path / "records.jsonl"]
    done = run("judge", path, *flags, "--pilot", "20")
    assert done.returncode == 0, done.stderr
    assert server.counts.calls == 40
    assert "40 answers" in done.stdout
    words = server.counts.input_tokens, server.counts.output_tokens
    said = float(re.findall(r"([0-9.]+) USD, beside", done.stdout)[0])
    assert run("judge", path, *flags).returncode == 0
    read, written = server.counts.input_tokens - words[0], server.counts.output_tokens - words[1]
    assert said == pytest.approx((read * 1.0 + written * 2.0) / 1e6, rel=0.15)
    assert server.counts.calls == 400
    assert run("judge", path, *flags, "--pilot", "20", "--human", path).returncode == 2


@pytest.mark.slow
def test_a_judge_of_its_own_answers_is_warned_of(server: OpenAIServer, tmp_path: Path) -> None:
    done = run(
        "judge", answers_file(tmp_path), "--judges", judges_toml(tmp_path, server.url, "big"), "-o", tmp_path / "r.csv"
    )
    assert done.returncode == 0, done.stderr
    assert "warning: big judges its own answers" in done.stderr
