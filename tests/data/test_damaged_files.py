"""Files that were damaged at random: every row is read or named, no error is untyped, and all readers agree."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from routelearn.data.parser import ReadOptions
from routelearn.data.queries import read_queries
from routelearn.data.readers import read_records
from routelearn.data.rows import open_table
from routelearn.data.scoring.file import score_file
from routelearn.routers.assessment import Assessment
from routelearn.routers.decision import Context
from routelearn.routers.errors import DataError, InputError
from routelearn.routers.query import Query
from routelearn.routers.rules import RulesRouter

CHAT = json.dumps([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}])
ROWS: list[dict[str, Any]] = [
    {"prompt": f'q{i} ß, "x"; y', "messages": None if i % 3 else CHAT, "model_a": "x", "model_b": "y", "winner": winner}
    for i, winner in enumerate(["A", "tie", "model_b"] * 4)
]
FRAGMENTS = [b'"', b"\n", b"\r", b"\0", b"\xff", b"\xed\xa0\x80", b"\\ud83d", b"[", b"}", b";", b",", b"\t", b"NaN",
             b"1e999", b"9" * 50, b'"""', b"\xef\xbb\xbf", b"[" * 3000, b"\\"]  # fmt: skip
FILES = 60


def whole(form: str) -> bytes:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    if form == "parquet":
        file = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
        return file.getvalue()
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
        return text.getvalue().encode()
    contents = {"jsonl": lines, "json": json.dumps(ROWS).encode(), "txt": b"a\nb\n\xc3\x9f\n"}
    return contents[form] if form in contents else gzip.compress(lines, mtime=0)


def damaged(data: bytes, chance: random.Random) -> bytes:
    content = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4])):
        content = content or bytearray(b"x")
        place = chance.randrange(len(content))
        kind = chance.choice(["byte", "insert", "cut", "replace"])
        if kind == "byte":
            content[place] = chance.randrange(256)
        elif kind == "cut":
            del content[place : place + chance.choice([1, 3, 50])]
        else:
            content[place : place + (5 if kind == "replace" else 0)] = chance.choice(FRAGMENTS)
    return bytes(content) or b"x"


class Listening(RulesRouter):
    """Notes the queries that it is asked."""

    def __init__(self) -> None:
        super().__init__("big", "small")
        self.heard: list[Query] = []

    def assess(self, queries: Sequence[Query], contexts: Sequence[Context] | None = None) -> Assessment:
        self.heard += queries
        return super().assess(queries, contexts)


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "txt", "parquet", "jsonl.gz"])
def test_a_damaged_file_loses_no_row_without_a_word(tmp_path: Path, form: str) -> None:
    chance = random.Random(form)
    path = tmp_path / f"t.{form}"
    read = 0
    for _ in range(FILES):
        path.write_bytes(damaged(whole(form), chance))
        router, bad = Listening(), list[DataError]()
        try:
            result = score_file(router, str(path), str(tmp_path / "out.jsonl"), skip_bad=True)
        except InputError:
            with pytest.raises(InputError):
                read_queries([str(path)], on_bad=bad.append)
            continue
        read += 1
        assert read_queries([str(path)], on_bad=bad.append) == router.heard
        rows = sum(1 for _ in open_table(path).rows)
        assert (result.rows, result.skipped) == (rows - len(bad), len(bad))
        try:
            records = read_records(path, ReadOptions(skip_bad=True))
        except InputError:
            continue
        assert len(records.records) + len(records.bad) == records.rows == rows
    assert read > 0 or form == "jsonl.gz"
