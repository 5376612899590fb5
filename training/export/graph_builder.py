"""Builds ONNX graphs node by node, for networks that are a few matrix products: no torch and no tracing is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...routers.errors import require

OPSET = 20
#: Version of the ONNX file format, which onnxruntime reads since 1.17.
IR_VERSION = 10
#: Numbers of data types in onnx.TensorProto.
FLOAT = 1
#: Ending of the name of an initializer that is kept as float16.
STORED = ".float16"


class GraphBuilder:
    """A graph over the inputs ``input_ids`` int32 and ``attention_mask`` uint8, (n, length) each."""

    def __init__(self) -> None:
        """Start with no node."""
        self._onnx: Any = require("onnx", "train")
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._switches: list[str] = []
        self._values = 0

    def constant(self, name: str, value: Any, *, half: bool = False) -> str:
        """Add an array under a name, once; `half` stores it as float16 in half the space, and a Cast restores it."""
        if name in self._initializers or name + STORED in self._initializers:
            return name
        array = np.ascontiguousarray(value)
        stored = name + STORED if half else name
        self._initializers[stored] = self._onnx.numpy_helper.from_array(
            array.astype(np.float16) if half else array, stored
        )
        if half:
            self.node("Cast", stored, output=name, to=FLOAT)
        return name

    def node(self, operator: str, *inputs: str, output: str | Sequence[str] | None = None, **attributes: Any) -> str:
        """Add a node, and return the name of its first output."""
        outputs = [output] if isinstance(output, str) else list(output or [f"value_{self._values}"])
        self._values += 1
        self._nodes.append(self._onnx.helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs[0]

    @contextmanager
    def only_if(self, switch: str, outputs: Sequence[str]) -> Iterator[None]:
        """Let the nodes that are added inside run only where somebody asks for them.

        An inference build of onnxruntime runs every node, whichever outputs it is asked for: its option
        ``only_execute_path_to_fetches`` has no effect (microsoft/onnxruntime#16013).

        Args:
            switch: an optional input of the graph, bool (1,), false where it is not given.
            outputs: what the nodes compute, float32; inside, "_found" stands behind these names. Where the switch is
                off, each is one zero, (1, 1).
        """
        helper, types = self._onnx.helper, self._onnx.TensorProto
        outer, self._nodes = self._nodes, []
        yield
        inner, self._nodes = self._nodes, outer
        self._switches.append(self.constant(switch, np.asarray([False])))
        zero = self._onnx.numpy_helper.from_array(np.zeros((1, 1), np.float32))
        none = [helper.make_node("Constant", [], [f"{name}_none"], value=zero) for name in outputs]
        branches = {
            f"{branch}_branch": helper.make_graph(
                nodes,
                f"{switch}_{branch}",
                [],
                [helper.make_tensor_value_info(name + end, types.FLOAT, None) for name in outputs],
            )
            for branch, nodes, end in (("then", inner, "_found"), ("else", none, "_none"))
        }
        self.node("If", switch, output=outputs, **branches)

    def scalar(self, name: str, value: float) -> str:
        """A constant float32 number."""
        return self.constant(name, np.asarray(value, np.float32))

    def axes(self, *axes: int) -> str:
        """A constant that lists axes."""
        return self.constant("axes_" + "_".join(map(str, axes)).replace("-", "last_"), np.asarray(axes, np.int64))

    def model(self, outputs: Mapping[str, Sequence[int | str]], metadata: Mapping[str, str] | None = None) -> bytes:
        """The ONNX model: one self-contained file, dynamic in n and length.

        Args:
            outputs: shape of each output, float32.
            metadata: hints for the session, for instance ``rows_per_run``.
        """
        helper, types = self._onnx.helper, self._onnx.TensorProto
        shape = ["batch", "length"]
        graph = helper.make_graph(
            self._nodes,
            "router",
            [
                helper.make_tensor_value_info("input_ids", types.INT32, shape),
                helper.make_tensor_value_info("attention_mask", types.UINT8, shape),
                *(helper.make_tensor_value_info(name, types.BOOL, [1]) for name in self._switches),
            ],
            [helper.make_tensor_value_info(name, types.FLOAT, list(axes)) for name, axes in outputs.items()],
            list(self._initializers.values()),
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="routelearn"
        )
        for key, value in (metadata or {}).items():
            model.metadata_props.add(key=key, value=value)
        return bytes(model.SerializeToString(deterministic=True))


def stored_arrays(model: bytes) -> dict[str, Any]:
    """The initializers of a graph as arrays, by the names of the network's arrays."""
    onnx: Any = require("onnx", "train")
    initializers = onnx.load_from_string(model).graph.initializer
    return {tensor.name.removesuffix(STORED): onnx.numpy_helper.to_array(tensor) for tensor in initializers}


def stored_epsilon(model: bytes) -> float:
    """What the graph's layer normalisation adds to the variance."""
    onnx: Any = require("onnx", "train")
    nodes = onnx.load_from_string(model).graph.node
    normalisation = next(node for node in nodes if node.op_type == "LayerNormalization")
    return float(next(attribute.f for attribute in normalisation.attribute if attribute.name == "epsilon"))
