"""The journal: nothing that was added is lost, whatever a killed run left at the end."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routelearn.labelling import Journal
from routelearn.routers.errors import InputError

TEXTS = st.text(st.characters(codec=None), max_size=30)


@given(st.lists(st.tuples(st.sampled_from("abcd"), TEXTS), max_size=8), st.integers(0, 10_000))
def test_a_journal_that_is_cut_anywhere_keeps_every_whole_line(lines: list[tuple[str, str]], cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.journal"
        sizes = []
        with Journal(path, "job") as journal:
            for key, text in lines:
                journal.add(key, {"text": text})
                sizes.append(path.stat().st_size)
        content = path.read_bytes()
        end = cut % (len(content) + 1)
        path.write_bytes(content[:end])
        kept = [line for line, size in zip(lines, sizes, strict=True) if size <= end]
        with Journal(path, "job") as journal:
            assert {key: entry["text"] for key, entry in journal.entries.items()} == dict(kept)
            journal.add("z", {"text": "after"})
        with Journal(path, "job") as journal:
            assert {key: entry["text"] for key, entry in journal.entries.items()} == {**dict(kept), "z": "after"}


def test_one_process_at_a_time_writes(tmp_path: Path) -> None:
    with Journal(tmp_path / "x.journal", "job"), pytest.raises(InputError, match="another process writes to"):
        Journal(tmp_path / "x.journal", "job")
    Journal(tmp_path / "x.journal", "job").close()


@pytest.mark.parametrize(
    "content",
    ["no json\n", "[]\n", '{"journal": "other", "version": 1}\n', '{"journal": "job", "version": 2}\n', "1\n"],
)
def test_what_is_no_journal_of_this_job_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.journal"
    path.write_text(content)
    with pytest.raises(InputError, match="expected"):
        Journal(path, "job")
    assert path.read_text() == content


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    with Journal(path, "job") as journal:
        journal.add("a", {})
    path.write_text(path.read_text() + "broken\n" + json.dumps({"key": "b"}) + "\n")
    with pytest.raises(InputError, match="line 3 is no line of a journal"):
        Journal(path, "job")


def test_the_folder_of_a_journal_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        Journal(tmp_path / "none" / "x.journal", "job")
