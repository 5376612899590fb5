"""Bundles by somebody who means harm: signed by themselves, refused before anything outside the folder is read."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from routelearn.routers.bundle import MANIFEST, MAX_BYTES, MODEL, TOKENIZER, read_bundle, save_bundle
from routelearn.routers.errors import BundleCorruptError, BundleError
from routelearn.routers.graph_check import check_graph
from routelearn.routers.loading import load

SECRET = "root:x:0:0"


@pytest.fixture
def hostile(bundle: Path, tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text(SECRET)
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def sign(folder: Path, **files: str) -> None:
    """Write a manifest that lists other files, with a digest that fits."""
    manifest, _ = read_bundle(folder)
    (folder / MANIFEST).write_bytes(replace(manifest, files={**manifest.files, **files}).to_json())


def replace_graph(folder: Path, model: bytes) -> None:
    manifest, contents = read_bundle(folder)
    save_bundle(folder, manifest, {**contents, MODEL: model})


def opened_files(action: Callable[[], object], folder: Path) -> list[Path]:
    """What an action that must fail opened outside a folder, of what stands beside it."""
    import sys

    seen: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], (str, os.PathLike)):
            seen.append(os.fspath(arguments[0]))  # type: ignore[arg-type]

    sys.addaudithook(hook)
    with pytest.raises(BundleError):
        action()
    watching = False
    paths = [Path(os.path.normpath(Path(name).absolute())) for name in seen]
    return [path for path in paths if folder.parent in path.parents and folder not in path.parents]


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "..", ".", "", "a/b", "model.onnx\0", "..\\secret", "payload.pkl", "router.json"],
)
def test_a_strange_file_name_is_refused_unread(hostile: Path, name: str) -> None:
    sign(hostile, **{name: "0" * 64})
    assert not opened_files(lambda: load(hostile), hostile)
    with pytest.raises(BundleCorruptError, match="flat folder"):
        load(hostile)


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, MANIFEST])
def test_a_symbolic_link_is_refused_unread(hostile: Path, name: str) -> None:
    (hostile / name).unlink()
    (hostile / name).symlink_to(hostile.parent / "secret")
    assert not opened_files(lambda: load(hostile), hostile)
    with pytest.raises(BundleCorruptError, match="symbolic link"):
        load(hostile)


def test_a_bundle_folder_may_itself_be_a_link(hostile: Path) -> None:
    """As deployments do: current -> router-17."""
    (hostile.parent / "current").symlink_to(hostile)
    assert load(hostile.parent / "current").models


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, MANIFEST])
def test_a_pipe_is_refused_and_not_waited_for(hostile: Path, name: str) -> None:
    (hostile / name).unlink()
    os.mkfifo(hostile / name)
    with pytest.raises(BundleCorruptError, match="is not a regular file"):
        load(hostile)


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, MANIFEST])
def test_a_file_of_absurd_size_is_refused_unread(hostile: Path, name: str) -> None:
    with (hostile / name).open("r+b") as file:
        file.truncate(MAX_BYTES[name] + 1)  # sparse: it takes no space
    with pytest.raises(BundleCorruptError, match="at most"):
        load(hostile)


def test_json_nested_too_deep_is_corrupt(hostile: Path) -> None:
    (hostile / MANIFEST).write_text('{"a":' * 200_000)
    with pytest.raises(BundleCorruptError):
        load(hostile)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch owned",)


def test_a_pickle_in_the_place_of_the_graph_is_not_unpickled(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hostile.parent)
    replace_graph(hostile, pickle.dumps(Payload()))
    with pytest.raises(BundleCorruptError, match="not an ONNX model"):
        load(hostile)
    assert not (hostile.parent / "owned").exists()


def graph_of(hostile: Path) -> onnx.ModelProto:
    return onnx.load_from_string((hostile / MODEL).read_bytes())


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "weights.bin"])
def test_external_data_is_refused_unread(hostile: Path, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hostile)
    model = graph_of(hostile)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    replace_graph(hostile, model.SerializeToString())
    assert not opened_files(lambda: load(hostile), hostile)
    with pytest.raises(BundleCorruptError, match="data in another file"):
        load(hostile)


def test_external_data_of_a_constant_inside_a_branch_is_refused(hostile: Path) -> None:
    model = graph_of(hostile)
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    constant = helper.make_node("Constant", [], ["y"], value=tensor)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    branch = helper.make_graph([constant], "branch", [], [output])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    replace_graph(hostile, model.SerializeToString())
    with pytest.raises(BundleCorruptError, match="data in another file"):
        load(hostile)


def test_a_tensor_that_claims_more_than_it_holds_is_refused(hostile: Path) -> None:
    model = graph_of(hostile)
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]
    replace_graph(hostile, model.SerializeToString())
    with pytest.raises(BundleCorruptError, match="claims a tensor of shape"):
        load(hostile)


@pytest.mark.parametrize("dims", [[1 << 15, 1 << 15], [3_000_000_000], [1 << 40, 1 << 20]])
def test_a_small_graph_that_asks_for_gigabytes_is_refused(hostile: Path, dims: list[int]) -> None:
    """ConstantOfShape would be folded, and so allocated, while the graph is loaded."""
    model = graph_of(hostile)
    model.graph.initializer.append(numpy_helper.from_array(np.array(dims, np.int64), "dims"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["dims"], ["bomb"]))
    model.graph.output.append(helper.make_tensor_value_info("bomb", TensorProto.FLOAT, None))
    replace_graph(hostile, model.SerializeToString())
    with pytest.raises(BundleError):
        load(hostile)


def test_operators_of_a_foreign_library_are_refused(hostile: Path) -> None:
    model = graph_of(hostile)
    model.graph.node.append(helper.make_node("Run", [], ["x"], domain="evil.ops"))
    replace_graph(hostile, model.SerializeToString())
    with pytest.raises(BundleCorruptError, match=r"evil\.ops"):
        load(hostile)


def test_graphs_nested_without_end_are_refused(hostile: Path) -> None:
    model = graph_of(hostile)
    graph = helper.make_graph([], "leaf", [], [])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["c"], [], then_branch=graph)], "outer", [], [])
    model.graph.node.extend(graph.node)
    replace_graph(hostile, model.SerializeToString())
    with pytest.raises(BundleCorruptError, match="nests graphs"):
        load(hostile)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_graph_are_a_typed_error(data: bytes) -> None:
    with pytest.raises(BundleCorruptError):
        check_graph(data)


def test_a_graph_cut_off_anywhere_is_a_typed_error(bundle: Path) -> None:
    model = (bundle / MODEL).read_bytes()
    for length in range(0, len(model), len(model) // 40):
        with pytest.raises(BundleCorruptError):
            check_graph(model[:length])


@pytest.mark.parametrize(
    "kind",
    ["bundle", "similarity_bundle", "named_bundle", "ranking_bundle", "bert_bundle", "int8_bundle", "verifier_bundle"],
)
def test_every_graph_of_ours_passes(kind: str, request: pytest.FixtureRequest) -> None:
    check_graph((request.getfixturevalue(kind) / MODEL).read_bytes())
