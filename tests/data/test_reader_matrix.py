"""Files as people have them: formats, encodings, dialects and spellings give the right records, or say what to do."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from routelearn.data.parser import ReadOptions
from routelearn.data.queries import read_queries
from routelearn.data.readers import read_records
from routelearn.data.records import PerformanceRecord, PreferenceRecord
from routelearn.data.rows import SourceOptions, open_table
from routelearn.routers.errors import DataError, InputError

PROMPTS = ["Was heißt DSGVO?", 'Say "hi"; then, stop', "two\nlines", "tab\there | café"]
WINNERS = ["model_a", "B", "tie", "x"]
PREFERENCES = [1.0, 0.0, 0.5, 1.0]
HEADERS = [
    ("prompt", "model_a", "model_b", "winner"),
    ("Prompt ", "Model A", "Model B", "Winner"),
    ("QUESTION", "MODEL_A", "model-b", "WINNER"),
]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]
#: What no file says of itself.
NAMED = {"utf-16-le", "cp1252"}


def content(form: str, header: tuple[str, ...], delimiter: str, end: str) -> str:
    rows = [(prompt, "x", "y", winner) for prompt, winner in zip(PROMPTS, WINNERS, strict=True)]
    if form == "csv":
        file = io.StringIO()
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
        writer.writerows([header, *rows[:2], [""] * 4, *rows[2:]])
        return file.getvalue()
    objects = [dict(zip(header, row, strict=True)) for row in rows]
    if form == "json":
        return json.dumps(objects, ensure_ascii=False, indent=1).replace("\n", end)
    return end + "".join(json.dumps(row, ensure_ascii=False) + end for row in objects)


TEXTS = [
    *itertools.product(["csv"], HEADERS, [",", ";", "\t", "|"], ["\n", "\r\n"], ENCODINGS, ["", ".gz"]),
    *itertools.product(["jsonl", "json"], HEADERS, [""], ["\n", "\r\n"], ENCODINGS, ["", ".gz", ".zst"]),
]


def packed(data: bytes, compression: str) -> bytes:
    if compression == ".gz":
        return gzip.compress(data, mtime=0)
    return pyarrow.compress(data, codec="zstd", asbytes=True) if compression else data


def test_texts_of_every_kind_give_the_right_records_or_name_the_encoding(tmp_path: Path) -> None:
    assert len(TEXTS) >= 300
    for number, (form, header, delimiter, end, encoding, compression) in enumerate(TEXTS):
        path = tmp_path / f"{number}.{form}{compression}"
        path.write_bytes(packed(content(form, header, delimiter, end).encode(encoding), compression))
        case = (form, header, delimiter, end, encoding, compression)
        if encoding in NAMED:
            with pytest.raises(DataError, match="--encoding") as caught:
                read_records(path)
            assert caught.value.file == str(path), case
            assert encoding == "utf-16-le" or form == "json" or caught.value.row == 1 + (form == "jsonl"), case
        found = read_records(path, ReadOptions(encoding=encoding if encoding in NAMED else None)).records
        assert [record.query for record in found] == PROMPTS, case
        assert [r.preference for r in found if isinstance(r, PreferenceRecord)] == PREFERENCES, case


A, B, TIE = 1.0, 0.0, 0.5
SPELLINGS = {
    **dict.fromkeys(
        ("model_a", "Model A", "A", "a ", "Response A", "answer_a", "assistant-a", "left", "1", "first"), A
    ),
    **dict.fromkeys(("A>B", "A >> B", "A wins", "a is better", "GPT-4o", "gpt-4o", " gpt 4o"), A),
    **dict.fromkeys(("model_b", "Response B", "answer_b", "right", "2", "B<<A".swapcase(), "Mini", "mini"), B),
    **dict.fromkeys(
        ("tie", "Tie (both good)", "tie (bothbad)", "equal", "Equally good", "same", "neither", "A=B"), TIE
    ),
}
SPELLINGS["b<<a"] = A


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_labels_are_read_as_people_spell_them(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"prompt": f"q{i}", "model_a": "gpt-4o", "model_b": "mini", "winner": label}
        for i, label in enumerate(SPELLINGS)
    ]
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    found = [record.preference for record in read_records(path).records if isinstance(record, PreferenceRecord)]
    assert dict(zip(SPELLINGS, found, strict=True)) == SPELLINGS
    rows[1]["winner"] = "links"
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(
        DataError, match=r"row 1, column 'winner': 'links' does not name a winner.*--alias links=model_a"
    ):
        read_records(path)
    assert len(read_records(path, ReadOptions(aliases={"links": "model_a"})).records) == 1


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text", "row", "said"),
    [
        ("t.csv", 'prompt,model,score\nq,m,1\n"open,m,1\nq,m,0\n', 2, "never closed"),
        ("t.csv", "prompt,model,score\nq,m,1,2\n", 1, "4 cells; expected 3"),
        ("t.csv", "prompt,model,score,score\nq,m,1,1\n", None, "named alike"),
        ("t.csv", "prompt,Prompt,model,score\nq,q,m,1\n", 1, ""),
        ("t.csv", "Prompt,PROMPT,model,score\nq,q,m,1\n", None, "--map prompt="),
        ("t.jsonl", '{"prompt": "q", "model": "m", "score": 1, "score": 0}\n', 1, "named alike"),
        ("t.jsonl", '{"prompt": "\\ud83d", "model": "m", "score": 1}\n', 1, "half a character"),
        ("t.jsonl", '{"prompt": "q", "model": "m", "score": 1, "x": [{"y": "\\udc00"}]}\n', 1, "half a character"),
        ("t.jsonl", '{"prompt": "q", "model": "m", "score": 1' + "0" * 400 + "}\n", 1, "is not from 0 to 1"),
        ("t.jsonl", '{"prompt": "q", "model": "m", "score": 1' + "0" * 5000 + "}\n", 1, "not JSON"),
        ("t.jsonl", '{"prompt": "q", "model": "m", "score": ' + "[" * 100_000 + "\n", 1, "not JSON"),
        ("t.jsonl", '{"messages": "' + "[" * 100_000 + '", "model": "m", "score": 1}\n', 1, "not JSON"),
        ("t.jsonl", "[\n" + '{"prompt": "q", "model": "m", "score": 1}\n]\n', 1, ".json file"),
        ("t.json", '{"prompt": ', None, "not JSON"),
        ("t.csv.gz", gzip.compress(b"prompt,model,score\nq,m,1\n" * 99, mtime=0)[:-12], None, "whole"),
        ("t.csv", "prompt,a,b\nq,35,81\n", 1, "divide the scores by 100, or give --score-scale 100"),
        ("t.jsonl", '{"prompt": "q", "model": "m", "score": 81}\n', 1, "--score-scale 100"),
        ("t.parquet", b"PAR1", None, "a parquet file"),
    ],
)
def test_what_cannot_be_read_names_file_row_and_remedy(
    tmp_path: Path, name: str, text: str | bytes, row: int | None, said: str
) -> None:
    path = write(tmp_path / name, text)
    if not said:
        assert read_records(path).records
        return
    with pytest.raises(DataError, match=said) as caught:
        read_records(path)
    assert (caught.value.file, caught.value.row) == (str(path), row)


def test_no_row_is_lost_behind_a_quotation_mark_that_is_never_closed(tmp_path: Path) -> None:
    for place in (0, 3, 99):
        lines = [f"q{i},m,1" for i in range(100)]
        lines[place] = f'"q{place},m,1'
        path = write(tmp_path / f"{place}.csv", "prompt,model,score\n" + "\n".join(lines) + "\n")
        read = read_records(path, ReadOptions(skip_bad=True))
        assert (len(read.records), len(read.bad), read.bad[0].row) == (99, 1, place + 1)


def test_wide_tables_leave_out_what_is_no_score(tmp_path: Path) -> None:
    header = "id,question,category,difficulty,gpt-4o,mini,latency_s,cost_usd,output_tokens,user id"
    read = read_records(write(tmp_path / "t.csv", f"{header}\n7,q,math,3,1,0,0.7,0.1,300,12\n"))
    assert read.score_columns == ["gpt-4o", "mini"]
    assert read.left_out == ["difficulty", "latency_s", "output_tokens", "user id"]
    path = write(tmp_path / "p.csv", "prompt,a,b\nq,35,81\nr,,100\n")
    found = read_records(path, ReadOptions(score_scale=100)).records
    assert [r.score for r in found if isinstance(r, PerformanceRecord)] == [0.35, 0.81, 1.0]


CHAT = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "THE ANSWER"}]
ASKED = ({"role": "user", "content": "Q"},)
CELLS: list[tuple[str, Any, Any]] = [
    ("messages", CHAT, ASKED),
    ("messages", json.dumps(CHAT), ASKED),
    ("messages", str(CHAT), ASKED),
    ("conversation_a", CHAT, ASKED),
    ("conversations", [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], None),
    ("contents", [{"role": "user", "parts": [{"text": "Q"}]}, {"role": "model", "parts": [{"text": "A"}]}], None),
    ("request", {"model": "x", "messages": CHAT}, ASKED),
    ("input", CHAT, ASKED),
    ("prompt", '["Q", "again"]', ({"role": "user", "content": "Q"}, {"role": "user", "content": "again"})),
    ("prompt", ["Q"], "Q"),
    ("prompt", CHAT, ASKED),
    ("Question", "Q", "Q"),
]


@pytest.mark.parametrize(("column", "cell", "query"), CELLS)
def test_every_command_reads_one_query_from_a_cell_and_no_answer(
    tmp_path: Path, column: str, cell: Any, query: Any
) -> None:
    path = write(tmp_path / "t.jsonl", json.dumps({column: cell, "model": "m", "score": 1}) + "\n")
    record = read_records(path).records[0]
    assert isinstance(record, PerformanceRecord)
    assert [record.query] == read_queries([str(path)])
    assert query is None or record.query == query
    assert "ANSWER" not in str(record.query)
    assert record.response == ("THE ANSWER" if "ANSWER" in str(cell) else "A" if "'A'" in str(cell) else None)


def test_columns_that_come_late_are_kept(tmp_path: Path) -> None:
    rows = [{"prompt": "q"}] * 2000 + [{"prompt": "q", "late": 1}]
    path = write(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert open_table(path).all_columns() == ("prompt", "late")


@pytest.mark.parametrize(
    ("data", "options", "rows"),
    [
        (b'\xef\xbb\xbf\n{"prompt": "a"}\n', {}, ["a"]),
        (b'[{"prompt": "a"},\n{"prompt": "b"}]', {}, ["a", "b"]),
        (b"[INST] a\nb\n", {}, ["[INST] a", "b"]),
        (b"id;prompt\n1;a\n", {"format": "csv"}, ["a"]),
        (gzip.compress(b'{"prompt": "a"}\n', mtime=0), {}, ["a"]),
        ("ß\n".encode("cp1252"), {"encoding": "cp1252"}, ["ß"]),
        (b"id,prompt\n1,a\n", {}, None),
    ],
)
def test_standard_input_has_any_format(
    monkeypatch: pytest.MonkeyPatch, data: bytes, options: dict[str, str], rows: list[str] | None
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    if rows is None:
        with pytest.raises(DataError, match="--format csv"):
            open_table("-")
    else:
        table = open_table("-", SourceOptions(**options))
        assert [row["prompt"] for _, row in table.rows if not isinstance(row, DataError)] == rows


@pytest.mark.parametrize("name", ["q[2].parquet", "q*.parquet", "q?.parquet", "q{1}%.parquet", "a=b/part-0.parquet"])
def test_a_path_is_the_path_of_one_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    for other in ("q2.parquet", "qx.parquet"):
        pyarrow.parquet.write_table(pyarrow.table({"prompt": ["OTHER"]}), tmp_path / other)
    with (tmp_path / name).open("wb") as file:
        pyarrow.parquet.write_table(pyarrow.table({"prompt": ["mine"]}), file)
    assert read_queries([str(tmp_path / name)]) == ["mine"]


def test_a_folder_of_parquet_files_is_read_without_other_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        table = pyarrow.table({"prompt": [split]})
        pyarrow.parquet.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    assert read_queries([str(tmp_path) + os.sep]) == ["train"]


def test_formats_and_encodings_that_are_unknown_are_refused() -> None:
    with pytest.raises(InputError, match="--encoding 'latin-99'"):
        SourceOptions(encoding="latin-99")
    with pytest.raises(InputError, match="--format 'xml'"):
        SourceOptions(format="xml")
    with pytest.raises(InputError, match="--score-scale"):
        ReadOptions(score_scale=0)
