"""Graphs after surgery (nodes, functions, attributes, tensors, varints): they load, or are a typed error.

No load opens a file outside the bundle: inotify watches the file that the surgeon's tensors name. ROUTELEARN_MUTATIONS
sets how many graphs are tried (500 unless set). `python tests/routers/test_hostile_surgery.py N` (PYTHONPATH=tests)
tries N and prints counts.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.opened import OpenWatch
from onnx import AttributeProto, TensorProto, helper

from routelearn import FallbackRouter
from routelearn.routers.bundle import MODEL, read_bundle, save_bundle
from routelearn.routers.errors import RoutelearnError

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "version-3"
GRAPH = (BUNDLE / MODEL).read_bytes()
SURGERIES = int(os.environ.get("ROUTELEARN_MUTATIONS", "500")) // 2

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is a part of Linux")


def external(secret: Path, chance: random.Random) -> TensorProto:
    """A tensor whose data lie in a file outside, named as onnxruntime would find it."""
    kind = chance.choice([TensorProto.UINT8, TensorProto.FLOAT])
    tensor = TensorProto(name="s", data_type=kind, dims=[8], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=chance.choice([str(secret), os.path.relpath(secret)]))
    if chance.random() < 0.3:
        tensor.raw_data = b"x" * 8
    return tensor


def plant(changed: onnx.ModelProto, tensor: TensorProto, chance: random.Random) -> None:
    """Put a tensor where a graph can hold one."""
    graph, place = changed.graph, chance.randrange(7)
    if place == 0:
        graph.initializer.append(tensor)
    elif place == 1:
        graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif place == 2:
        graph.node.append(helper.make_node("Constant", [], ["leak"], value=tensor))
    elif place == 3:
        attribute = chance.choice(graph.node).attribute.add(name="value", type=AttributeProto.TENSORS)
        attribute.tensors.append(tensor)
    elif place == 4:
        inner = helper.make_graph([helper.make_node("Identity", ["s"], ["y"])], "g", [], [], [tensor])
        graph.node.append(helper.make_node("If", ["c"], ["leak"], then_branch=inner, else_branch=inner))
    elif place == 5:
        changed.training_info.add().initialization.initializer.append(tensor)
    else:
        node = helper.make_node("Constant", [], ["y"])
        node.attribute.add(name="value", type=AttributeProto.TENSOR, ref_attr_name="v")
        function = helper.make_function("com.microsoft", "E", [], ["y"], [node], [helper.make_opsetid("", 20)])
        function.attribute_proto.add(name="v", type=AttributeProto.TENSOR).t.CopyFrom(tensor)
        changed.functions.append(function)
        graph.node.append(helper.make_node("E", [], ["leak"], domain="com.microsoft"))
    if chance.random() < 0.5:
        graph.output.append(helper.make_tensor_value_info("leak" if place != 0 else "s", tensor.data_type, [8]))


def operate(changed: onnx.ModelProto, chance: random.Random) -> None:
    """Change one thing of a graph as a surgeon would: by its parts, not by its bytes."""
    nodes, tensors = changed.graph.node, changed.graph.initializer
    if not nodes or not tensors:
        return
    one, tensor = chance.choice(nodes), chance.choice(tensors)
    names = [name for item in nodes for name in [*item.input, *item.output]]
    kind = chance.randrange(8)
    if kind == 0:
        one.op_type = chance.choice(["Identity", "Loop", "If", "Range", "Tile", "Cast", "NonZero", "Reshape", "Sum"])
    elif kind == 1 and one.input:
        one.input[chance.randrange(len(one.input))] = chance.choice([*names, ""])
    elif kind == 2:
        nodes.remove(one)
    elif kind == 3:
        one.attribute.add(name=chance.choice(["axis", "to", "axes", "x"]), type=2, i=chance.choice([-9, 0, 1, 1 << 62]))
    elif kind == 4:
        tensor.dims[:] = chance.choice([[], [0], [-1], [1 << 62], list(tensor.dims)[::-1], [*tensor.dims, 1]])
    elif kind == 5:
        tensor.data_type = chance.randrange(30)
    elif kind == 6:
        raw = np.frombuffer(tensor.raw_data, np.uint8).copy()
        raw[: 1 + chance.randrange(8)] = chance.choice([0, 127, 255])
        tensor.raw_data = raw.tobytes()
    else:
        output = chance.choice(changed.graph.output)
        output.name = chance.choice([*names, "quality", "novelty"])


def varint(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def cut_bytes(graph: bytes, secret: Path, chance: random.Random) -> bytes:
    """Change the bytes: tags beyond 32 bits, numbers that are too long, a second graph, bits that flip."""
    hidden = onnx.GraphProto(name="h")
    hidden.initializer.append(external(secret, chance))
    hidden.node.append(helper.make_node("Identity", ["s"], ["leak"]))
    hidden.output.append(helper.make_tensor_value_info("leak", TensorProto.UINT8, [8]))
    message = hidden.SerializeToString()
    kind = chance.randrange(4)
    if kind == 0:
        return graph + varint((7 << 3 | 2) + (chance.choice([1, 2, 7, 100]) << 32)) + varint(len(message)) + message
    if kind == 1:  # the length in more bytes than it needs
        return graph + varint(7 << 3 | 2) + varint(len(message) | 1 << 35)[:-1] + b"\0" + message
    if kind == 2:
        return graph + varint(7 << 3 | 2) + varint(len(message)) + message
    data = bytearray(graph)
    for _ in range(chance.choice([1, 2, 8])):
        data[chance.randrange(chance.choice([200, len(data)]))] ^= 1 << chance.randrange(8)
    return bytes(data)


def surgery(seed: int, secret: Path) -> bytes:
    chance = random.Random(seed)
    changed = onnx.load_from_string(GRAPH)
    for _ in range(chance.choice([0, 1, 1, 2, 3])):
        operate(changed, chance)
    if chance.random() < 0.4:
        plant(changed, external(secret, chance), chance)
    graph = changed.SerializeToString()
    return cut_bytes(graph, secret, chance) if chance.random() < 0.3 else graph


@dataclass
class Found:
    """What was found in all surgeries."""

    tried: int = 0
    loaded: int = 0
    untyped: int = 0
    reads_outside: int = 0
    slowest_s: float = 0.0


def try_surgeries(count: int, folder: Path) -> Found:
    secret = folder / "secret.bin"
    secret.write_bytes(b"a secret" * 8)
    place = Path(shutil.copytree(BUNDLE, folder / "bundle"))
    manifest, contents = read_bundle(BUNDLE)
    found = Found()
    with OpenWatch(secret) as watch:
        for seed in range(count):
            save_bundle(place, manifest, {**contents, MODEL: surgery(seed, secret)})
            begun = time.perf_counter()
            safe = FallbackRouter(place, strong="sim-max", weak="sim-small")
            assert len(safe.route_batch(["hi", "Prove it. " * 900, ""])) == 3, f"seed {seed}"
            found.slowest_s = max(found.slowest_s, time.perf_counter() - begun)
            found.tried += 1
            found.loaded += safe.load_error is None
            if watch.opened():
                found.reads_outside += 1
                sys.stderr.write(f"seed {seed} reads a file outside\n")
            if safe.load_error is not None and not isinstance(safe.load_error, RoutelearnError):
                found.untyped += 1
                sys.stderr.write(f"seed {seed}: {safe.load_error!r}\n")
    return found


@pytest.mark.slow
def test_a_graph_after_surgery_loads_or_is_a_typed_error_and_no_file_outside_is_opened(tmp_path: Path) -> None:
    found = try_surgeries(SURGERIES, tmp_path)
    assert (found.untyped, found.reads_outside) == (0, 0)
    assert 0 < found.loaded < found.tried == SURGERIES
    assert found.slowest_s < 60


def test_the_watch_sees_what_onnxruntime_opens(tmp_path: Path) -> None:
    """So that a test without reads outside means something."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"a secret")
    tensor = TensorProto(name="s", data_type=TensorProto.UINT8, dims=[8], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret.bin")
    output = helper.make_tensor_value_info("y", TensorProto.UINT8, [8])
    graph = helper.make_graph([helper.make_node("Identity", ["s"], ["y"])], "g", [], [output], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with OpenWatch(secret) as watch:
        assert not watch.opened()
        onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
        assert watch.opened()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(try_surgeries(int(sys.argv[1]), Path(name)))  # noqa: T201
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most")  # noqa: T201
