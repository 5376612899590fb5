"""Excel files, compressed files and files with the wrong name: the right rows, or an error that says what to do."""

from __future__ import annotations

import gzip
import io
import json
import logging
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from routelearn.data.parser import ReadOptions
from routelearn.data.readers import read_records
from routelearn.data.rows import SourceOptions, open_table
from routelearn.data.scoring.file import score_file
from routelearn.data.scoring.folder import score_folder
from routelearn.data.scoring.selection import BatchOptions
from routelearn.routers.errors import DataError, InputError
from routelearn.routers.rules import RulesRouter

HEADER = ["Prompt", "Model A", "Model B", "Winner"]
ROWS = [["q ß", "x", "y", "A"], [None] * 4, ["r", "x", "y", "tie"]]


def workbook(path: Path, **sheets: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def prompts(path: Path, options: ReadOptions | None = None) -> list[Any]:
    return [record.query for record in read_records(path, options).records]


@pytest.mark.parametrize("before", [[], [[None]], [[None, "", None]]])
def test_a_sheet_is_read_from_its_first_filled_row(tmp_path: Path, before: list[list[Any]]) -> None:
    path = workbook(tmp_path / "t.xlsx", one=[*before, HEADER, *ROWS])
    read = read_records(path)
    assert ([record.query for record in read.records], read.rows) == (["q ß", "r"], 2)


def test_sheets_that_are_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = workbook(tmp_path / "t.xlsx", empty=[], battles=[HEADER, *ROWS], notes=[["a note"]])
    with caplog.at_level(logging.WARNING):
        assert prompts(path) == ["q ß", "r"]
    assert "only the sheet battles is read, not notes" in caplog.text


@pytest.mark.parametrize(
    ("rows", "row", "said"),
    [
        ([], None, "an empty sheet; expected a header row"),
        ([[*HEADER, "Winner"], *ROWS], None, "columns named alike"),
        ([HEADER, *ROWS, ["s", "x", "y", "A", "a comment"]], 4, "behind the last column 'Winner'; expected 4 cells"),
        ([HEADER, *ROWS, [42, "x", "y", "A"]], 4, "of type int; expected a text"),
    ],
)
def test_what_is_wrong_in_a_sheet_is_named(tmp_path: Path, rows: list[list[Any]], row: int | None, said: str) -> None:
    path = workbook(tmp_path / "t.xlsx", one=rows)
    with pytest.raises(DataError, match=said) as caught:
        read_records(path)
    assert (caught.value.file, caught.value.row) == (str(path), row)


def test_a_damaged_sheet_is_an_error_with_its_row(tmp_path: Path) -> None:
    whole = data_of("xlsx", tmp_path)
    path = tmp_path / "t.xlsx"
    place = whole.index(b"xl/worksheets/sheet1.xml") + len(whole) // 2
    path.write_bytes(whole[:place] + b"\xff" * 40 + whole[place + 40 :])
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_records(path)
    assert caught.value.file == str(path)


def data_of(form: str, tmp_path: Path) -> bytes:
    rows = [{"prompt": f"q{i} ß", "model": "m", "score": i % 2} for i in range(2000)]
    if form == "xlsx":
        return workbook(tmp_path / "w.xlsx", one=[list(rows[0]), *(list(r.values()) for r in rows)]).read_bytes()
    if form == "parquet":
        file = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        return file.getvalue()
    if form == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if form == "json":
        return json.dumps(rows).encode()
    return ("prompt,model,score\n" + "".join(",".join(map(str, r.values())) + "\n" for r in rows)).encode()


def zstd(data: bytes) -> bytes:
    return bytes(pyarrow.compress(data, codec="zstd", asbytes=True))


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet", "xlsx"])
@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_every_format_is_read_compressed_and_a_cut_file_is_an_error(tmp_path: Path, form: str, pack: Any) -> None:
    packed = pack(data_of(form, tmp_path))
    path = tmp_path / f"t.{form}.{'gz' if pack is gzip.compress else 'zst'}"
    path.write_bytes(packed)
    assert prompts(path) == [f"q{i} ß" for i in range(2000)]
    bare = tmp_path / f"bare.{form}"  # compressed, and the name does not say so
    bare.write_bytes(packed)
    assert form == "parquet" or len(prompts(bare)) == 2000
    half = len(packed) // 2
    damaged = [packed[:half] + b"\xff" * 40 + packed[half + 40 :]] if pack is gzip.compress else []  # with a checksum
    for broken in (packed[:-1], packed[:-5], packed[:half], *damaged):
        path.write_bytes(broken)
        with pytest.raises(DataError) as caught:
            read_records(path)
        assert caught.value.file == str(path)


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_files_that_were_packed_one_behind_the_other_are_read_whole(tmp_path: Path, pack: Any) -> None:
    one = pack(data_of("jsonl", tmp_path))
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(one + one)
    assert len(prompts(path)) == 4000


@pytest.mark.parametrize(("form", "name"), [("parquet", "t.csv"), ("xlsx", "t.jsonl"), ("xlsx", "t.txt")])
def test_a_wrong_suffix_is_an_error_that_names_the_format(tmp_path: Path, form: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(data_of(form, tmp_path))
    with pytest.raises(DataError, match=f"its content is {form}, not text; expected text, or --format {form}"):
        list(open_table(path).rows)
    assert len(prompts(path, ReadOptions(format=form))) == 2000


@pytest.mark.parametrize("name", ["base64", "zlib", "rot13", "hex", "undefined", "latin-99"])
def test_encodings_that_do_not_give_text_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"--encoding '{name}' is not known"):
        SourceOptions(encoding=name)


def test_a_header_in_another_encoding_says_to_name_it(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("prompt,model,score,Größe\nq,m,1,3\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"t\.csv: in the header: byte 0xf6 is not UTF-8; .*--encoding cp1252"):
        open_table(path)
    assert open_table(path, SourceOptions(encoding="cp1252")).columns[-1] == "Größe"


def test_parquet_text_that_is_not_utf8_is_a_bad_row_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    binary = pyarrow.array([b"a", b"\xf6", b"c"])
    column = pyarrow.StringArray.from_buffers(3, binary.buffers()[1], binary.buffers()[2])
    pyarrow.parquet.write_table(pyarrow.table({"prompt": column}), path)
    router = RulesRouter("big", "small")
    with pytest.raises(DataError, match="row 2: not UTF-8"):
        score_file(router, str(path), str(tmp_path / "out.jsonl"))
    assert score_file(router, str(path), str(tmp_path / "out.jsonl"), skip_bad=True).causes == {
        "the row: expected text in UTF-8": 1
    }
    options = BatchOptions(threshold=0.5, skip_bad=True)
    result = score_folder(router, [str(path)], tmp_path / "parts", options, identity="rules")
    assert (result.rows, result.skipped, result.errors[0].row) == (2, 1, 2)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_an_open_quotation_mark_is_named_in_every_dialect(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text('prompt,model,score\n"q,m,1\nr,m,0\n'.replace(",", delimiter))
    with pytest.raises(DataError, match="row 1: a quotation mark is never closed"):
        read_records(path)
    read = read_records(path, ReadOptions(skip_bad=True))
    assert (len(read.records), len(read.bad)) == (1, 1)


def test_columns_that_come_late_are_in_every_output(tmp_path: Path) -> None:
    source = tmp_path / "late.jsonl"
    rows: list[dict[str, Any]] = [{"prompt": f"q{i}"} for i in range(9000)]
    rows[-1]["late"] = "here"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    router = RulesRouter("big", "small")
    for name in ("out.csv", "out.jsonl", "out.parquet"):
        assert score_file(router, str(source), str(tmp_path / name)).rows == 9000
        found = [row.get("late") for _, row in open_table(tmp_path / name).rows if not isinstance(row, DataError)]
        assert (len(found), found[-1], set(found[:-1])) == (9000, "here", {None}), name
    score_folder(router, [str(source)], tmp_path / "parts", BatchOptions(threshold=0.5), identity="rules")
    parts = pyarrow.parquet.read_table(tmp_path / "parts")
    assert parts.column("late").to_pylist()[-1] == "here"
