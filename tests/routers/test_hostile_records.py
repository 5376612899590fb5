"""The names of training records by somebody who means harm, or damaged: refused when they are first needed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from routelearn.routers import NearestRecord, explain
from routelearn.routers.bundle import MAX_BYTES, MODEL, RECORDS, read_bundle, save_bundle
from routelearn.routers.errors import BundleCorruptError, BundleMissingError
from routelearn.routers.explanation import MOST_SHOWN, _said
from routelearn.routers.loading import load
from routelearn.routers.nearest import NamedRecords

QUERY = "Prove it step by step."


@pytest.fixture
def named(named_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(named_bundle, tmp_path / "named"))


def rewritten(folder: Path, **files: bytes) -> Path:
    """The bundle with other files, signed by its writer."""
    manifest, contents = read_bundle(folder)
    names = {"records": RECORDS, "model": MODEL}
    return save_bundle(folder, manifest, {**contents, **{names[name]: data for name, data in files.items()}})


def one_entry(**changes: Any) -> bytes:
    entry = {"name": "a", "outcomes": {"big": [0.5, 2.0]}, **changes}
    return json.dumps({"by": "hash", "records": [entry]}).encode()


def test_what_an_export_writes_is_read_as_it_was() -> None:
    read = NamedRecords.from_json(one_entry(), 1)
    assert (read.by, read.records[0].outcomes) == ("hash", {"big": (0.5, 2.0)})
    assert NamedRecords.from_json(read.to_json(), 1) == read


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"by": "hash", "records": {}}',
        b'{"by": "hash", "records": [], "more": 1}',
        b'{"by": ["hash"], "records": [{"name": "a", "outcomes": {}}]}',
        b'{"by": "none", "records": [{"name": "a", "outcomes": {}}]}',
        b'{"by": "hash", "records": [1]}',
        b"[" * 100_000,
        one_entry(more=1),
        one_entry(name=1),
        one_entry(outcomes=[]),
        one_entry(outcomes={"big": 0.5}),
        one_entry(outcomes={"big": [0.5]}),
        one_entry(outcomes={"big": [1.5, 1.0]}),
        one_entry(outcomes={"big": [True, 1.0]}),
        one_entry(outcomes={"big": [0.5, 0]}),
        one_entry(outcomes={"big": [float("nan"), 1.0]}),
        one_entry(outcomes={"big": [0.5, float("inf")]}),
        one_entry(outcomes={"big": [0.5, 10**400]}),
    ],
)
def test_what_no_export_writes_is_a_typed_error(data: bytes) -> None:
    with pytest.raises(BundleCorruptError, match=RECORDS.replace(".", r"\.")):
        NamedRecords.from_json(data, 1)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_typed_error(data: bytes) -> None:
    with pytest.raises(BundleCorruptError):
        NamedRecords.from_json(data, 1)


@pytest.mark.parametrize("rows", [0, 2, None, True, "1"])
def test_another_number_of_entries_than_the_index_has_rows_is_refused(rows: object) -> None:
    with pytest.raises(BundleCorruptError, match="has 1 records; expected"):
        NamedRecords.from_json(one_entry(), rows)


def test_more_objects_than_an_index_needs_are_refused_unread() -> None:
    with pytest.raises(BundleCorruptError, match="not JSON that may be read"):
        NamedRecords.from_json(b'{"by":"hash","records":[' + b"[]," * 2_000_001 + b"[]]}", 1)


def test_a_load_verifies_the_hash_and_an_explanation_reads_the_file(named: Path) -> None:
    damaged = rewritten(named, records=b"no JSON")
    router = load(damaged)
    assert router.route(QUERY).source == "learned"
    with pytest.raises(BundleCorruptError, match=r"records\.json is not JSON"):
        explain(router, QUERY)
    (named / RECORDS).write_bytes(one_entry())
    with pytest.raises(BundleCorruptError, match="changed after the export"):
        load(named)
    (named / RECORDS).unlink()
    with pytest.raises(BundleMissingError, match=r"records\.json is missing"):
        load(named)


def test_a_link_a_pipe_and_a_file_of_absurd_size_are_refused_unread(named: Path) -> None:
    path = named / RECORDS
    with path.open("r+b") as file:
        file.truncate(MAX_BYTES[RECORDS] + 1)  # sparse: it takes no space
    with pytest.raises(BundleCorruptError, match="at most"):
        load(named)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(BundleCorruptError, match="symbolic link"):
        load(named)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BundleCorruptError, match="not a regular file"):
        load(named)


@pytest.mark.parametrize("row", [-1.0, 1e9, float("nan")])
def test_a_graph_that_gives_rows_that_are_not_there_is_refused(named: Path, row: float) -> None:
    model = onnx.load_from_string((named / MODEL).read_bytes())
    for node in model.graph.node:
        node.output[:] = ["honest" if name == "nearest" else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.full(5, row, np.float32), "harm"))
    zero = numpy_helper.from_array(np.float32(0), "nothing")
    model.graph.initializer.append(zero)
    model.graph.node.append(helper.make_node("Mul", ["honest", "nothing"], ["none"]))
    model.graph.node.append(helper.make_node("Add", ["none", "harm"], ["nearest"]))
    router = load(rewritten(named, model=model.SerializeToString()))
    with pytest.raises(BundleCorruptError, match="gives row"):
        router.nearest(QUERY)


def test_a_file_of_names_beside_a_graph_without_an_index_is_not_read(bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "router"))
    router = load(rewritten(folder, records=b"no JSON"))
    assert router.nearest(QUERY) == ()
    assert explain(router, QUERY).nearest == ()


def test_a_text_with_control_characters_is_escaped_and_shortened_in_words() -> None:
    said = _said(NearestRecord("\x1b[2J\x07" + "x" * 500, 0.5, {}))
    assert "\x1b" not in said
    assert "\x07" not in said
    assert len(said) < MOST_SHOWN + 40
