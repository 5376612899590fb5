"""Bundles that harm the process which loads them, and pass every check that reads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from routelearn.routers.bundle import MODEL, read_bundle, save_bundle

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "version-3"


def endless_graph() -> bytes:
    """A graph that multiplies large matrices for hours, when its constants are folded or when it runs."""
    model = onnx.load_from_string((BUNDLE / MODEL).read_bytes())
    nodes = model.graph.node
    for node in nodes:
        for place, name in enumerate(node.output):
            if name == "quality":
                node.output[place] = "quality0"
    model.graph.initializer.append(numpy_helper.from_array(np.array([4096, 4096], np.int64), "large"))
    nodes.append(helper.make_node("ConstantOfShape", ["large"], ["power0"]))
    for number in range(2000):
        power = f"power{number}"
        nodes.append(helper.make_node("MatMul", [power, power], [f"power{number + 1}"]))
    nodes.append(helper.make_node("ReduceSum", ["power2000"], ["nothing"], keepdims=0))
    nodes.append(helper.make_node("Add", ["quality0", "nothing"], ["quality"]))
    return model.SerializeToString()


def endless_bundle(folder: Path) -> Path:
    """Write a bundle whose load does not end, in the place of the one that is there."""
    if not folder.exists():
        shutil.copytree(BUNDLE, folder)
    manifest, contents = read_bundle(BUNDLE)
    return save_bundle(folder, manifest, {**contents, MODEL: endless_graph()})
