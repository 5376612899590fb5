"""Columns that only late rows of JSON have are in every part of a folder, also when a job is killed and goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from routelearn.data.scoring.engine import ROWS_PER_CHUNK, ScoringResult
from routelearn.data.scoring.folder import score_folder
from routelearn.data.scoring.selection import BatchOptions
from routelearn.routers.errors import DataError
from routelearn.routers.rules import RulesRouter

N = 2 * ROWS_PER_CHUNK + 10
ROWS: list[dict[str, Any]] = [{"id": number, "prompt": f"q{number}"} for number in range(N)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "late.jsonl", [*ROWS[:-1], {**ROWS[-1], "late": "here"}])


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(source: Path, folder: Path, **settings: Any) -> ScoringResult:
    options = BatchOptions(**{"threshold": 0.5, "rows_per_part": ROWS_PER_CHUNK, **settings})
    return score_folder(RulesRouter("big", "small"), [str(source)], folder, options, identity="rules")


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def test_every_part_has_a_column_that_only_the_last_part_fills(source: Path, tmp_path: Path) -> None:
    result = score(source, tmp_path / "out")
    assert (result.rows, result.parts, sum(result.sources.values())) == (N, 3, N)
    for path in (tmp_path / "out").glob("*.parquet"):
        assert pyarrow.parquet.read_schema(path).names == ["id", "prompt", "late", "score", "model", "source"]
    table = pyarrow.parquet.read_table(tmp_path / "out")
    assert table.column("id").to_pylist() == list(range(N))
    assert table.column("late").to_pylist() == [None] * (N - 1) + ["here"]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_part_is_written_again_with_the_same_bytes(source: Path, tmp_path: Path, lost: int) -> None:
    score(source, tmp_path / "out")
    whole = parts(tmp_path / "out")
    (tmp_path / "out" / sorted(whole)[lost]).unlink()
    result = score(source, tmp_path / "out")
    assert (result.rows, result.parts) == (N, 3)
    assert parts(tmp_path / "out") == whole


def test_parts_of_a_job_that_ended_before_the_column_came_are_written_again(source: Path, tmp_path: Path) -> None:
    score(source, tmp_path / "whole")
    done: list[int] = []

    def stop(rows: int) -> None:
        done.append(rows)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_folder(
            RulesRouter("big", "small"),
            [str(source)],
            tmp_path / "out",
            BatchOptions(threshold=0.5, rows_per_part=ROWS_PER_CHUNK),
            identity="rules",
            on_rows=stop,
        )
    (early,) = (tmp_path / "out").glob("*.parquet")
    assert "late" not in pyarrow.parquet.read_schema(early).names
    assert score(source, tmp_path / "out").rows == N
    assert parts(tmp_path / "out") == parts(tmp_path / "whole")


def test_bad_rows_are_counted_once(tmp_path: Path) -> None:
    rows = [*ROWS[:-1], {**ROWS[-1], "late": "here"}]
    rows[5] = {"id": 5, "prompt": None}
    path = write(tmp_path / "late.jsonl", rows)
    path.write_text(path.read_text() + "not JSON\n")
    result = score(path, tmp_path / "out", skip_bad=True)
    assert (result.rows, result.skipped, len(result.errors)) == (N - 1, 2, 2)


def test_a_late_column_can_be_kept_and_compared(source: Path, tmp_path: Path) -> None:
    score(source, tmp_path / "kept", keep=("late",))
    assert pyarrow.parquet.read_table(tmp_path / "kept").column("late").to_pylist()[-2:] == [None, "here"]
    assert score(source, tmp_path / "compared", where=("late == here",)).rows == 1


def test_late_queries_are_read(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "late"}]
    rows = [*ROWS[:-1], {"id": N - 1, "messages": json.dumps(chat)}]
    assert score(write(tmp_path / "a.jsonl", rows), tmp_path / "a").rows == N
    only_late = [{"id": number} for number in range(ROWS_PER_CHUNK)] + [ROWS[0]]
    result = score(write(tmp_path / "b.jsonl", only_late), tmp_path / "b", skip_bad=True)
    assert (result.rows, result.skipped) == (1, ROWS_PER_CHUNK)
    with pytest.raises(DataError, match="no such column"):
        score(write(tmp_path / "c.jsonl", [{"id": 1}]), tmp_path / "c")
