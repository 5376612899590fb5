"""Wide tables: which columns are models, and no column is left out without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from routelearn.data.parser import ReadOptions
from routelearn.data.readers import read_records
from routelearn.data.records import PerformanceRecord
from routelearn.routers.errors import DataError


def table(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "wide.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def scores(path: Path, options: ReadOptions | None = None) -> list[tuple[str, float]]:
    return [(r.model, r.score) for r in read_records(path, options).records if isinstance(r, PerformanceRecord)]


@pytest.mark.parametrize("value", ["35", "1.5", "-0.2", "-inf", "1e9", "101"])
@pytest.mark.parametrize("row", [1, 2, 3])
def test_a_score_out_of_range_is_an_error_in_any_row(tmp_path: Path, value: str, row: int) -> None:
    lines = ["q,1,0.5", "q,0,1", "q,1,1"]
    lines[row - 1] = f"q,1,{value}"
    path = table(tmp_path, "prompt,big,small", *lines)
    with pytest.raises(DataError, match="is not from 0 to 1") as caught:
        read_records(path)
    assert (caught.value.file, caught.value.row, caught.value.column) == (str(path), row, "small")
    assert len(read_records(path, ReadOptions(skip_bad=True)).bad) == 1


@pytest.mark.parametrize("word", ["", "NA", "n/a", "NaN", "null", "None", "-", "?", " "])
def test_words_for_no_score_are_no_scores(tmp_path: Path, word: str) -> None:
    path = table(tmp_path, "prompt,big,small", f"q,1,{word}", "r,0,0.5")
    assert scores(path) == [("big", 1), ("big", 0), ("small", 0.5)]


def test_text_before_the_scores_of_a_column_is_an_error(tmp_path: Path) -> None:
    path = table(tmp_path, "prompt,big,small", "q,1,0", "q,1,pending", "r,0,1")
    with pytest.raises(DataError, match=r"row 2, column 'small': 'pending' is not a number"):
        read_records(path)
    path = table(tmp_path, "prompt,big,small", "q,1,pending", "r,0,0.5", "r,0,1")
    with pytest.raises(DataError, match=r"row 1, column 'small': text, in a column with 2 scores.*--models"):
        read_records(path)
    assert scores(path, ReadOptions(models=("big",))) == [("big", 1), ("big", 0), ("big", 0)]


def test_columns_of_text_are_listed(tmp_path: Path) -> None:
    path = table(tmp_path, "prompt,big,small,comment", "q,1,0,fine", "r,0,1,bad", "s,0,1,1")
    read = read_records(path)
    assert (read.score_columns, read.text_columns) == (["big", "small"], ["comment"])


@pytest.mark.parametrize(
    "name",
    ["latency", "latency_s", "Latency (ms)", "latencyMs", "cost", "total_cost", "costEUR", "price", "tokens",
     "n_tokens", "output tokens", "user_id", "userId", "ID", "difficulty", "Unnamed: 0", "timestamp", "created",
     "prompt_length"],
)  # fmt: skip
def test_columns_that_look_like_a_measure_are_left_out_with_a_word(tmp_path: Path, name: str) -> None:
    read = read_records(table(tmp_path, f"prompt,gpt-4o,gpt-4o-mini,{name}", "q,1,0,0.5"))
    assert read.score_columns == ["gpt-4o", "gpt-4o-mini"]
    assert read.left_out == ([] if name == "ID" else [name])
    assert scores(table(tmp_path, f"prompt,gpt-4o,{name}", "q,1,0.5"), ReadOptions(models=(name,))) == [(name, 0.5)]


def test_a_table_without_a_column_for_scores_says_what_labels_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no labels in the columns \['prompt', 'id', 'latency'\].*model_a, model_b"):
        read_records(table(tmp_path, "prompt,id,latency", "q,1,0.5"))


def test_percent_says_what_to_do(tmp_path: Path) -> None:
    path = table(tmp_path, "prompt,big,small", "q,81,35", "r,100,NA")
    with pytest.raises(DataError, match="divide the scores by 100, or give --score-scale 100"):
        read_records(path)
    assert scores(path, ReadOptions(score_scale=100)) == [("big", 0.81), ("small", 0.35), ("big", 1.0)]
