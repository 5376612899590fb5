"""Text is read in blocks of lines: rows, row numbers and errors are those of a reader that goes line by line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from pathlib import Path

import pytest

from routelearn.data.rows import Item, open_table
from routelearn.routers.errors import DataError

N = 3000
HARD = ['a "b", c', "two\nlines", "CR\ronly", "both\r\n", "'=1+1", "it's", "ß", "日本", "", "", ";", "\u2028", "x\x0by"]


def items(path: Path) -> list[Item]:
    return list(open_table(path).rows)


def errors(path: Path) -> dict[int, str]:
    return {number: row.problem for number, row in items(path) if isinstance(row, DataError)}


def csv_text(rows: list[list[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("seed", range(5))
def test_csv_rows_are_those_of_the_csv_module(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    rows = [
        ["x", *(chance.choice(HARD) if chance.random() < seed / 5 else f"c{n}" for n in range(3))] for _ in range(N)
    ]
    text = csv_text([["prompt", "b", "c", "d"], *rows])
    (tmp_path / "t.csv").write_bytes(text.encode())
    expected = [
        (number, {name: cell.removeprefix("'" if cell.startswith("'=") else "") or None for name, cell in row.items()})
        for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), 1)
    ]
    assert items(tmp_path / "t.csv") == expected
    broken = text.replace("\r\n", '\r\n"a"b,,,\r\n', 1)  # its first row is not CSV
    (tmp_path / "broken.csv").write_bytes(broken.encode())
    (_, first), *others = items(tmp_path / "broken.csv")
    assert isinstance(first, DataError)
    assert [(number - 1, row) for number, row in others] == expected


def test_csv_errors_far_below_name_their_row(tmp_path: Path) -> None:
    lines = [f"q{number},1" for number in range(1, N + 1)]
    lines[1499], lines[1999], lines[2499] = 'too,"many\r\nlines",', "\xff,1", 'unclosed,"'
    (tmp_path / "t.csv").write_bytes("\r\n".join(["prompt,x", *lines]).encode("latin-1"))
    assert errors(tmp_path / "t.csv") == {
        1500: "3 cells over 2 lines",
        2000: "byte 0xff is not UTF-8",
        2500: "a quotation mark is never closed",
    }
    assert [number for number, _ in items(tmp_path / "t.csv")] == list(range(1, N + 1))


def test_empty_lines_of_a_spreadsheet_count_wherever_they_stand(tmp_path: Path) -> None:
    lines = ["q,1", ",", ""] * N
    (tmp_path / "t.csv").write_text("\n".join(["", "prompt,x", *lines, "last,1"]))
    assert [number for number, _ in items(tmp_path / "t.csv")] == list(range(1, 2 * N + 2, 2))


@pytest.mark.parametrize("name", ["t.csv.gz", "t.jsonl.gz", "t.txt.gz"])
def test_rows_before_the_broken_end_of_a_file_are_read(tmp_path: Path, name: str) -> None:
    chance = random.Random(0)
    lines = [f"{chance.random()}" for _ in range(5 * N)]
    if "jsonl" in name:
        lines = [json.dumps({"prompt": line}) for line in lines]
    whole = "\n".join((["prompt,x", *(f"{line},1" for line in lines)] if "csv" in name else lines) + [""])
    data = gzip.compress(whole.encode(), mtime=0)
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    read: list[Item] = []
    with pytest.raises(DataError, match=r"line \d+: Compressed file ended"):
        read.extend(open_table(tmp_path / name).rows)
    assert N < len(read) < 5 * N
    assert [number for number, _ in read] == list(range(1, len(read) + 1))


def test_json_lines_with_an_error_stand_among_good_ones(tmp_path: Path) -> None:
    good = [{"prompt": f"q{number}", "text": "😀 ß"} for number in range(N)]
    lines = [json.dumps(row) for row in good]
    bad = {
        10: ('{"prompt": "a", "x": "\\ud83d"}', "half a character"),
        1000: ('{"prompt": "a", "prompt": "b"}', "not JSON (keys named alike"),
        1001: ('{"prompt": "a"} x', "not JSON"),
        1002: ("[1]", "a list"),
        2000: ('{"a": {"b": 1, "b": 1}}', "not JSON (keys named alike"),
        2001: ('{"prompt": ["\\udc00"]}', "half a character"),
    }
    for number, (line, _) in bad.items():
        lines[number - 1] = line
    lines[20], lines[21] = "", "  " + lines[21] + " \r"
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    found = errors(tmp_path / "t.jsonl")
    assert found.keys() == bad.keys()
    assert all(found[number].startswith(problem) for number, (_, problem) in bad.items())
    rows = {number: row for number, row in items(tmp_path / "t.jsonl") if number not in bad}
    assert rows == {number: row for number, row in enumerate(good, 1) if number not in {21, *bad}}


def test_lines_of_text_lose_only_their_ends(tmp_path: Path) -> None:
    lines = [f"q{number}" + ("\r" if number % 3 else "") for number in range(N)]
    lines[700], lines[701], lines[702], lines[703] = "", "a\rb", "\xff", " \r\r"
    (tmp_path / "t.txt").write_bytes("\n".join(lines).encode("latin-1"))
    read = items(tmp_path / "t.txt")
    assert errors(tmp_path / "t.txt") == {703: "byte 0xff is not UTF-8"}
    expected = [(n, {"prompt": line.removesuffix("\r")}) for n, line in enumerate(lines, 1)]
    assert [*read[:702], *read[703:]] == [*expected[:702], *expected[703:]]
