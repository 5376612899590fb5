from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routelearn.cli.options import parse_pairs
from routelearn.data.parser import ReadOptions, RecordParser
from routelearn.data.readers import parse_source, read_all, read_many, read_records
from routelearn.data.records import PerformanceRecord, PreferenceRecord, Record
from routelearn.data.writers import write_records
from routelearn.routers.errors import DataError, InputError

BATTLE = {"prompt": "Why?", "model_a": "x", "model_b": "y"}
ANSWER = {"prompt": "Why?", "model": "x", "score": 1}


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format of the suffix."""
    frame = pd.DataFrame(rows)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix in {".csv", ".tsv"}:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    else:
        jsonl(path, *rows)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv", ".tsv"])
def test_every_format_gives_the_same_records(tmp_path: Path, suffix: str) -> None:
    rows = [
        {**BATTLE, "preference": 0.5, "split_hint": "test"},
        {**BATTLE, "prompt": "a\nb", "preference": 1.0, "split_hint": "train"},
    ]
    result = read_records(table(tmp_path / f"t{suffix}", rows))
    assert result.kind == "preference"
    assert result.records == [
        PreferenceRecord("Why?", "x", "y", 0.5, split="test"),
        PreferenceRecord("a\nb", "x", "y", 1.0, split="train"),
    ]


@pytest.mark.parametrize(
    ("label", "preference"),
    [
        ({"preference": 1}, 1.0),
        ({"preference": "0.25"}, 0.25),
        ({"preference": True}, 1.0),
        ({"winner": "model_a"}, 1.0),
        ({"winner": "model_b"}, 0.0),
        ({"winner": "B"}, 0.0),
        ({"winner": "y"}, 0.0),
        ({"winner": "tie"}, 0.5),
        ({"winner": "tie (bothbad)"}, 0.5),
        ({"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}, 0.0),
        ({"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1}, 0.5),
        ({"strong": "x", "strong_win": 1}, 1.0),
        ({"strong": "y", "strong_win": 1}, 0.0),
    ],
)
def test_every_style_of_label_is_read(tmp_path: Path, label: dict[str, Any], preference: float) -> None:
    record = read_records(jsonl(tmp_path / "t.jsonl", {**BATTLE, **label})).records[0]
    assert isinstance(record, PreferenceRecord)
    assert record.preference == preference


def test_lmsys_arena_files_are_read(tmp_path: Path) -> None:
    row = {
        "id": 1,
        "model_a": "x",
        "model_b": "y",
        "prompt": '["first", "second"]',
        "response_a": '["1a", "2a"]',
        "response_b": '["1b", null]',
        "winner_model_a": 1,
        "winner_model_b": 0,
        "winner_tie": 0,
    }
    record = read_records(table(tmp_path / "train.csv", [row])).records[0]
    assert isinstance(record, PreferenceRecord)
    assert record.query == ({"role": "user", "content": "first"}, {"role": "user", "content": "second"})
    assert (record.preference, record.response_a, record.response_b) == (1.0, "2a", "")


def test_conversations_end_at_the_last_user_turn(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    row = {"model_a": "x", "model_b": "y", "winner": "model_a", "conversation_a": turns, "conversation_b": turns}
    record = read_records(jsonl(tmp_path / "t.jsonl", row)).records[0]
    assert isinstance(record, PreferenceRecord)
    assert list(record.query) == turns[:1]
    assert record.response_a == "Hello"


def test_messages_win_over_the_prompt(tmp_path: Path) -> None:
    messages = json.dumps([{"role": "user", "content": "Hi"}])
    record = read_records(jsonl(tmp_path / "t.jsonl", {**ANSWER, "messages": messages})).records[0]
    assert record.query == ({"role": "user", "content": "Hi"},)


def test_wide_tables_hold_a_score_column_a_model(tmp_path: Path) -> None:
    rows = [{"query_id": "7", "prompt": "q", "x": 1.0, "y": None}, {"query_id": "8", "prompt": "r", "x": 0.0, "y": 0.5}]
    result = read_records(jsonl(tmp_path / "t.jsonl", *rows))
    assert result.kind == "wide"
    assert [(r.query, *r.models, r.score) for r in result.records if isinstance(r, PerformanceRecord)] == [
        ("q", "x", 1.0),
        ("r", "x", 0.0),
        ("r", "y", 0.5),
    ]


def test_a_wide_column_that_is_no_score_says_to_name_the_models(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {"prompt": "q", "x": 1.0, "rating": 312})
    with pytest.raises(DataError, match="--models"):
        read_records(path)
    assert len(read_records(path, ReadOptions(models=("x",))).records) == 1


def test_models_select_the_records_of_a_long_table(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "model": name, "score": 1} for name in ("x", "y", "Z")]
    path = jsonl(tmp_path / "t.jsonl", *rows)
    result = read_records(path, ReadOptions(models=("x", "z"), aliases={"Z": "z"})).records
    assert [record.models for record in result] == [("x",), ("z",)]
    battles = [{"prompt": "q", "model_a": a, "model_b": b, "preference": 1} for a, b in ("xy", "yz", "xz")]
    result = read_records(jsonl(tmp_path / "b.jsonl", *battles), ReadOptions(models=("x", "y"))).records
    assert [record.models for record in result] == [("x", "y")]
    with pytest.raises(DataError, match=r"\['w'\].*some of \['Z', 'x', 'y'\]"):
        read_records(path, ReadOptions(models=("w",)))


def test_columns_models_and_splits_can_be_mapped(tmp_path: Path) -> None:
    rows = [
        {"question": "q", "llm": "gpt4", "grade": 1, "split": "train"},
        {"question": "r", "llm": "gpt4", "grade": 0, "split": "validation"},
    ]
    options = ReadOptions(
        columns={"prompt": "question", "model": "llm", "score": "grade"}, aliases={"gpt4": "gpt-4"}, split="val"
    )
    assert read_records(jsonl(tmp_path / "t.jsonl", *rows), options).records == [
        PerformanceRecord("r", "gpt-4", 0.0, split="val")
    ]


BAD = [
    ({**BATTLE, "preference": 1.5}, "preference", "1.5 is not from 0 to 1"),
    ({**BATTLE, "preference": "maybe"}, "preference", "is not a number"),
    ({**BATTLE, "preference": None}, "preference", "missing"),
    ({**BATTLE, "winner": "z"}, "winner", "does not name a winner"),
    ({**BATTLE, "preference": 1, "model_b": "x"}, "model_b", "model_a too"),
    ({**BATTLE, "preference": 1, "model_a": ""}, "model_a", "name of a model"),
    ({**BATTLE, "preference": 1, "prompt": None}, "prompt", "missing"),
    ({**BATTLE, "preference": 1, "prompt": 5}, "prompt", "of type int"),
    ({**BATTLE, "preference": 1, "weight": 0}, "weight", "above 0"),
    ({**BATTLE, "winner_model_a": 1, "winner_model_b": 1, "winner_tie": 0}, "winner_model_a", "do not sum to 1"),
    ({**BATTLE, "strong": "z", "strong_win": 0}, "strong", "'z'"),
    ({**ANSWER, "score": 2}, "score", "2 is not from 0 to 1"),
    ({**ANSWER, "score": float("nan")}, "score", "None is not a number"),
    ({**ANSWER, "cost_usd": -1}, "cost_usd", "not from 0"),
    ({**ANSWER, "messages": "[{"}, "messages", "not JSON"),
    ({**ANSWER, "messages": [{"role": "user"}]}, "messages", "content"),
]


@pytest.mark.parametrize(("row", "column", "problem"), BAD)
def test_a_bad_row_is_named_with_file_row_and_column(
    tmp_path: Path, row: dict[str, Any], column: str, problem: str
) -> None:
    good = {**ANSWER, "cost_usd": 0} if "score" in row else {**row, **BATTLE, "preference": 1, "weight": 1}
    for name in ("winner_model_a", "winner_model_b", "winner_tie", "winner", "strong"):
        good.pop(name, None)
    first = {**dict.fromkeys(row), **good}
    path = jsonl(tmp_path / "bad.jsonl", first, row)
    with pytest.raises(DataError, match=problem) as caught:
        read_records(path)
    assert (caught.value.row, caught.value.column) == (2, column)
    assert "bad.jsonl, row 2" in str(caught.value)
    skipped = read_records(path, ReadOptions(skip_bad=True))
    assert (len(skipped.records), len(skipped.bad), skipped.rows) == (1, 1, 2)


@pytest.mark.parametrize("line", ["{", "[1]", "nonsense", '{"prompt": "\\ud8"}'])
def test_a_broken_line_of_jsonl_is_named(tmp_path: Path, line: str) -> None:
    path = jsonl(tmp_path / "t.jsonl", ANSWER, line, ANSWER)
    with pytest.raises(DataError, match="row 2"):
        read_records(path)
    assert len(read_records(path, ReadOptions(skip_bad=True)).records) == 2


def test_a_csv_row_with_missing_cells_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("prompt,model,score\nq,x,1\nq,x\n")
    with pytest.raises(DataError, match="row 2: 2 cells; expected 3 cells"):
        read_records(path)


def test_a_csv_cell_of_a_million_characters_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "model", "score"], ["x" * 1_000_000, "m", "1"]])
    assert len(str(read_records(path).records[0].query)) == 1_000_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.parquet", "no parquet", "a parquet file"),
        ("t.csv", "", "a header line"),
        ("t.csv", "prompt,model\nq,x\n", "see --map score="),
        ("t.csv", "frage,model,score\nq,x,1\n", "see --map prompt="),
        ("t.csv", "a,b\n1,2\n", "--map prompt="),
        ("t.xls", "x", "unknown format.*--format"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_records(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
        read_records(tmp_path / "none.jsonl")


def test_a_folder_in_the_layout_of_a_hub_data_set_is_read(tmp_path: Path) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    table(tmp_path / "set" / "data" / "train-00000.parquet", [{**ANSWER, "prompt": f"q{i}"} for i in range(5)])
    assert len(read_records(tmp_path / "set").records) == 5


def censored(n_known: int) -> list[dict[str, Any]]:
    """Half of the known outcomes that strong did not win are ties."""
    known = [{**BATTLE, "strong": "x", "strong_win": 0, "preference": 0.5 * (i % 2)} for i in range(n_known)]
    won = [{**BATTLE, "strong": "x", "strong_win": 1, "preference": 1}] * 10
    return [*known, *won, {**BATTLE, "strong": "x", "strong_win": 0, "preference": None},
            {**BATTLE, "strong": "y", "strong_win": 0, "preference": None}]  # fmt: skip


def test_rows_that_say_only_who_did_not_win_get_a_soft_label(tmp_path: Path) -> None:
    result = read_records(jsonl(tmp_path / "t.jsonl", *censored(40)))
    assert (result.censored, result.tie_share) == (2, 0.5)
    assert [r.preference for r in result.records[-2:] if isinstance(r, PreferenceRecord)] == [0.25, 0.75]


def test_too_few_known_outcomes_ask_for_the_share_of_ties(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", *censored(10))
    with pytest.raises(DataError, match="--tie-share"):
        read_records(path)
    record = read_records(path, ReadOptions(tie_share=1.0)).records[-2]
    assert isinstance(record, PreferenceRecord)
    assert record.preference == 0.5


def test_sources_carry_weights(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", {**ANSWER, "weight": 2})
    record = read_many([f"{path}@0.25"])[0].records[0]
    assert record.weight == 0.5
    assert record.source == str(path)
    assert parse_source("org/name@0.5") == ("org/name", 0.5)
    assert parse_source("org/name") == ("org/name", 1.0)
    with pytest.raises(InputError):
        parse_source("x@0")
    with pytest.raises(InputError, match="--map"):
        parse_pairs(["prompt"], "--map")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=4), c, max_size=3),
    max_leaves=5,
)
COLUMNS = (
    "prompt",
    "messages",
    "model_a",
    "model_b",
    "preference",
    "winner",
    "strong",
    "strong_win",
    "weight",
    "split",
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, JUNK)))
@settings(max_examples=300)
def test_any_cells_give_records_or_a_data_error_preferences(row: dict[str, Any]) -> None:
    try:
        records = RecordParser("t", COLUMNS, ReadOptions()).records(1, row)
    except DataError as error:
        assert error.row == 1
        return
    assert all(isinstance(r, PreferenceRecord) and 0 <= r.preference <= 1 for r in records)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("prompt", "model", "score", "cost_usd", "response"), JUNK)))
@settings(max_examples=300)
def test_any_cells_give_records_or_a_data_error_performances(row: dict[str, Any]) -> None:
    try:
        records = RecordParser("t", ("prompt", "model", "score", "cost_usd", "response"), ReadOptions()).records(1, row)
    except DataError as error:
        assert error.row == 1
        return
    assert all(isinstance(r, PerformanceRecord) and 0 <= r.score <= 1 for r in records)


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\x00"), min_size=1, max_size=20)
QUERY = TEXT | st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": TEXT}), min_size=1, max_size=3).map(
    tuple
)
PERFORMANCE = st.builds(
    PerformanceRecord,
    QUERY,
    TEXT.map(str.strip).filter(bool),
    st.floats(0, 1),
    cost_usd=st.none() | st.floats(0, 9),
    response=st.none() | TEXT,
    task=st.none() | TEXT,
    split=st.sampled_from([None, "train", "val", "test"]),
)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
@given(records=st.lists(PERFORMANCE, min_size=1, max_size=4))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str, records: list[Record]) -> None:
    path = write_records(records, tmp_path / f"t{suffix}")
    assert read_records(path).records == records


def test_writing_refuses_a_mixture_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one kind"):
        write_records([PerformanceRecord("q", "x", 1), PreferenceRecord("q", "x", "y", 1)], tmp_path / "t.jsonl")
    with pytest.raises(InputError, match="unknown format"):
        write_records([PerformanceRecord("q", "x", 1)], tmp_path / "t.xml")
    assert not list(tmp_path.iterdir())


def test_the_real_arena_file_keeps_its_censored_rows(real_data: Path) -> None:
    result = read_records(real_data / "arena_human" / "arena_pairs.parquet")
    assert (result.rows, len(result.records), result.censored) == (7432, 7432, 2851)
    assert result.tie_share == pytest.approx(0.57, abs=0.01)
    assert len({name for record in result.records for name in record.models}) == 60
    assert Counter(record.split for record in result.records)["test"] == 914


def test_the_real_wide_file_is_read(real_data: Path) -> None:
    result = read_records(real_data / "mmlu_pro" / "performance_wide.parquet")
    assert (result.kind, result.rows, len({r.models for r in result.records})) == ("wide", 9410, 14)


def test_several_sources_are_read_into_one_list_without_their_weights(tmp_path: Path) -> None:
    records = [PerformanceRecord("hi", "a", 0.5), PerformanceRecord("ho", "b", 1.0)]
    for name in ("one.jsonl", "two.csv"):
        write_records(records, tmp_path / name)
    read = read_all([f"{tmp_path}/one.jsonl@0.5", tmp_path / "two.csv"])
    assert [(record.query, record.models, record.weight) for record in read] == [
        ("hi", ("a",), 1.0),
        ("ho", ("b",), 1.0),
    ] * 2
