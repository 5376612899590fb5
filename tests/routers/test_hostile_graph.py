"""Graphs by somebody who means harm: what no file and no memory outside the bundle may pay for."""

from __future__ import annotations

import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from routelearn import FallbackRouter
from routelearn.routers.bundle import MODEL, read_bundle, save_bundle
from routelearn.routers.errors import BundleCorruptError, BundleError
from routelearn.routers.graph_check import MAX_NODES, check_graph
from routelearn.routers.loading import load

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "version-3"
GRAPH = (BUNDLE / MODEL).read_bytes()


def model() -> onnx.ModelProto:
    return onnx.load_from_string(GRAPH)


def sign(folder: Path, graph: bytes) -> Path:
    if not folder.exists():
        shutil.copytree(BUNDLE, folder)
    manifest, contents = read_bundle(BUNDLE)
    return save_bundle(folder, manifest, {**contents, MODEL: graph})


def renamed(changed: onnx.ModelProto, name: str) -> None:
    """Let another node make an output: the old one is called `<name>0`."""
    for node in changed.graph.node:
        for names in (node.input, node.output):
            for place, one in enumerate(names):
                if one == name:
                    names[place] = f"{name}0"


def external() -> TensorProto:
    tensor = TensorProto(name="s", data_type=TensorProto.UINT8, dims=[8], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="etc/passwd")
    return tensor


def function_with_an_external_default() -> onnx.ModelProto:
    changed = model()
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, ref_attr_name="v")
    function = helper.make_function("com.microsoft", "E", [], ["y"], [node], [helper.make_opsetid("", 20)])
    function.attribute_proto.add(name="v", type=onnx.AttributeProto.TENSOR).t.CopyFrom(external())
    changed.functions.append(function)
    return changed


def loop() -> onnx.ModelProto:
    changed = model()
    renamed(changed, "quality")
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["co"]), helper.make_node("Identity", ["v"], ["vo"])],
        "body",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, None)],
        [value("co", TensorProto.BOOL, []), value("vo", TensorProto.FLOAT, None)],
    )
    changed.graph.initializer.append(numpy_helper.from_array(np.array(1 << 62, np.int64), "m"))
    changed.graph.initializer.append(numpy_helper.from_array(np.array(True), "t"))
    changed.graph.node.append(helper.make_node("Loop", ["m", "t", "quality0"], ["quality"], body=body))
    return changed


def in_attribute(kind: str, number: int) -> onnx.ModelProto:
    """A tensor outside in a list of tensors, a sparse tensor, and other places that an attribute has."""
    changed = model()
    node = changed.graph.node.add(op_type="Constant", output=["leak"])
    attribute = node.attribute.add(name="value", type=number)
    if kind == "tensors":
        attribute.tensors.append(external())
    elif kind == "sparse_tensor":
        attribute.sparse_tensor.values.CopyFrom(external())
    elif kind == "graphs":
        attribute.graphs.add().initializer.append(external())
    return changed


def with_training() -> onnx.ModelProto:
    changed = model()
    changed.training_info.add().initialization.initializer.append(external())
    return changed


def with_metadata(**entries: str) -> onnx.ModelProto:
    changed = model()
    for key, value in entries.items():
        changed.metadata_props.add(key=key, value=value)
    return changed


def random_shape() -> onnx.ModelProto:
    changed = model()
    changed.graph.node.append(helper.make_node("RandomNormal", [], ["bomb"], shape=[1 << 15, 1 << 15]))
    return changed


def constant_shape(data_type: int) -> onnx.ModelProto:
    changed = model()
    numbers = np.array([1 << 15, 1 << 15], np.int64 if data_type == TensorProto.INT64 else np.int32)
    changed.graph.node.append(helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(numbers)))
    return changed


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (function_with_an_external_default(), "functions of its own"),
        (in_attribute("tensors", 9), "another file"),
        (in_attribute("sparse_tensor", 11), "sparse tensors"),
        (in_attribute("graphs", 10), "graph in the attribute"),
        (with_training(), "training graphs"),
        (loop(), "graph in the attribute 'body'"),
        (with_metadata(ort_config="{}"), "ort_config"),
        (with_metadata(**{f"k{number}": "" for number in range(1001)}), "entries of metadata"),
        (random_shape(), "holds the shape"),
        (constant_shape(TensorProto.INT64), "holds the shape"),
        (constant_shape(TensorProto.INT32), "holds the shape"),
    ],
)
def test_a_graph_that_reads_files_or_does_not_end_is_refused(changed: onnx.ModelProto, why: str) -> None:
    with pytest.raises(BundleCorruptError, match=why):
        check_graph(changed.SerializeToString())


def test_the_format_of_onnxruntime_is_refused_even_inside_an_onnx_model() -> None:
    """onnxruntime takes bytes with its mark for its own format, whatever they are besides."""
    name = b"xxORTM" + b"x" * 20
    polyglot = bytes([2 << 3 | 2, len(name)]) + name + GRAPH
    onnx.ModelProto().ParseFromString(polyglot)
    with pytest.raises(BundleCorruptError, match="format of onnxruntime"):
        check_graph(polyglot)


def chain(nodes: int) -> bytes:
    graph = onnx.GraphProto(name="g")
    for number in range(nodes):
        graph.node.add(op_type="Identity", input=[f"x{number}"], output=[f"x{number + 1}"])
    changed = model()
    changed.graph.node.extend(graph.node)
    return changed.SerializeToString()


def many_strings() -> bytes:
    changed = model()
    changed.graph.node[0].input.extend(["x"] * 600_000)
    return changed.SerializeToString()


def swollen(numbers: int) -> bytes:
    """Numbers of one byte in the file, and of eight in memory."""
    changed = model()
    for place in range(numbers):
        changed.graph.initializer.append(TensorProto(name=f"w{place}", data_type=7, dims=[4 << 20]))
        changed.graph.initializer[-1].int64_data.extend([1] * (4 << 20))
    return changed.SerializeToString()


def long_attribute() -> bytes:
    changed = model()
    changed.graph.node[0].attribute.add(name="s", type=3, s=b"x" * (33 << 20))
    return changed.SerializeToString()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: chain(MAX_NODES + 1), "more than 20,000 nodes"),
        (many_strings, "fields"),
        (lambda: swollen(3), "claims tensors of"),
        (long_attribute, "beside the data"),
        (lambda: with_metadata(k="x" * (5 << 20)).SerializeToString(), "a text of"),
    ],
)
def test_what_exceeds_a_limit_is_refused(make: Callable[[], bytes], why: str) -> None:
    graph = make()
    with pytest.raises(BundleCorruptError, match=why):
        check_graph(graph)


def with_output(name: str, nodes: list[onnx.NodeProto], kind: int) -> onnx.ModelProto:
    changed = model()
    renamed(changed, name)
    changed.graph.node.extend(nodes)
    changed.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    for output in changed.graph.output:
        if output.name == name:
            output.type.tensor_type.elem_type = kind
            output.type.tensor_type.ClearField("shape")
    return changed


FLOAT, STRING = TensorProto.FLOAT, TensorProto.STRING
node = helper.make_node


@pytest.mark.parametrize(
    "changed",
    [
        with_output("quality", [node("Concat", ["quality0", "quality0"], ["quality"], axis=0)], FLOAT),
        with_output("quality", [node("Cast", ["quality0"], ["quality"], to=STRING)], STRING),
        with_output("quality", [node("Cast", ["quality0"], ["quality"], to=11)], TensorProto.DOUBLE),
        with_output("quality", [node("Unsqueeze", ["quality0", "one"], ["quality"])], FLOAT),
        with_output("quality", [node("SequenceConstruct", ["quality0"], ["quality"])], FLOAT),
        with_output("novelty", [node("Cast", ["novelty0"], ["novelty"], to=STRING)], STRING),
        with_output("novelty", [node("Unsqueeze", ["novelty0", "one"], ["novelty"])], FLOAT),
        with_output("novelty", [node("ReduceSum", ["novelty0"], ["novelty"], keepdims=0)], FLOAT),
        with_output("vector", [node("ReduceSum", ["vector0"], ["vector"], keepdims=0)], FLOAT),
        with_output("vector", [node("Concat", ["vector0", "vector0"], ["vector"], axis=0)], FLOAT),
        with_metadata(tokens_per_run="x"),
        with_metadata(tokens_per_run="-1"),
        with_metadata(rows_per_run="9" * 5000),
    ],
)
def test_outputs_and_settings_of_another_form_are_a_typed_error(changed: onnx.ModelProto, tmp_path: Path) -> None:
    folder = sign(tmp_path / "bundle", changed.SerializeToString())
    with pytest.raises(BundleError):
        load(folder)
    assert FallbackRouter(folder, strong="sim-max", weak="sim-small").route("hi").model in {"sim-max", "sim-small"}


def test_a_bundle_loads_in_one_gibibyte_of_addresses() -> None:
    """A buffer of the largest size that a file may have would not fit."""
    limit = 1 << 30
    code = f"import routelearn; print(routelearn.load({str(BUNDLE)!r}, tokenizer='tokenizers').strong)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "sim-max\n", done.stderr


def test_numbers_of_a_shape_are_read_as_onnxruntime_reads_them() -> None:
    changed = model()
    raw = struct.pack("<2q", 1 << 15, 1 << 15)
    changed.graph.initializer.append(TensorProto(name="s", dims=[2], data_type=TensorProto.INT64, raw_data=raw))
    with pytest.raises(BundleCorruptError, match="holds the shape"):
        check_graph(changed.SerializeToString())
