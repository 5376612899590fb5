"""Checks a graph before onnxruntime loads it: it must not read files, and its size bounds what it takes to load.

`onnx_reader` reads the messages; what they may say is decided here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

from .errors import BundleCorruptError
from .onnx_reader import MESSAGES_PER_GRAPH, Content, count_numbers, integers, walk

#: The most nodes, those of subgraphs included, and the most tensors. onnxruntime loads 20,000 nodes in 2.5 s. Our
#: largest graph has some hundreds.
MAX_NODES = MAX_TENSORS = 20_000
#: The deepest nesting of graphs inside graphs (If).
MAX_DEPTH = 8
#: The most bytes that are not data of tensors: names, attributes, types, metadata.
MAX_BYTES_AROUND = 32 << 20
#: The most entries in the metadata of the model.
MAX_METADATA = 1_000
#: Tensors may take this many bytes beyond twice the size of the file. (Numbers below 128 are stored in one byte.)
SPARE_BYTES = 64 << 20
#: The most elements that a constant shape may ask for (1 GiB of float32). No machine can allocate more than the
#: second number; onnxruntime fails on such a shape by itself.
MAX_ELEMENTS, UNALLOCATABLE = 1 << 28, 1 << 44
#: A vector of more numbers than this is no shape.
_MOST_DIMENSIONS = 8
#: These numbers mean "to the end" in a slice; they are not sizes.
_NO_END = {(1 << 31) - 1, (1 << 63) - 1}
#: The domains whose operators are part of onnxruntime. Operators of other domains would need a library.
DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
#: The attributes that may hold a graph: the two of If. The other operators with graphs (Loop, Scan, SequenceMap,
#: BeamSearch) repeat one, so that the size of the file would not bound the time.
BRANCHES = {"then_branch", "else_branch"}
#: The attributes that ask for a shape, or give it to another node.
_SHAPES = {"shape", "value_ints", "value_int"}

_INT32, _INT64, _STRING = 6, 7, 8
#: Of each data type of onnx.proto: the bits of an element in memory, and the field that holds the elements when
#: raw_data does not. (Complex numbers are left out: onnxruntime has none. A string takes 32 bytes beside its text.)
TYPES: dict[int, tuple[int, str]] = {
    1: (32, "float_data"),
    11: (64, "double_data"),
    _INT64: (64, "int64_data"),
    _STRING: (256, "string_data"),
    12: (32, "uint64_data"),
    13: (64, "uint64_data"),
    _INT32: (32, "int32_data"),
    **dict.fromkeys([4, 5, 10, 16], (16, "int32_data")),
    **dict.fromkeys([2, 3, 9, 17, 18, 19, 20, 24], (8, "int32_data")),
    **dict.fromkeys([21, 22, 23], (4, "int32_data")),
    **dict.fromkeys([25, 26], (2, "int32_data")),
}
_DATA = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_BYTES_EACH = {"float_data": 4, "double_data": 8}


@dataclass
class GraphContent:
    """What was found in a model, all its graphs together.

    Attributes:
        nodes: number of nodes.
        tensors: number of tensors.
        allocated: bytes that the tensors take in memory.
        stored: bytes of the file that hold data of tensors.
    """

    nodes: int = 0
    tensors: int = 0
    allocated: int = 0
    stored: int = 0


def check_graph(model: bytes, file: str = "model.onnx") -> GraphContent:
    """Refuse a graph that reads other files, needs operators of a library, or asks for far more memory than it stores.

    Args:
        model: the bytes of the graph.
        file: its name, for the messages.

    Raises:
        BundleCorruptError: the graph is refused, or is not an ONNX model.
    """
    if model[4:8] == b"ORTM":  # the mark of onnxruntime's own format, which may stand in an ONNX model as well
        raise BundleCorruptError(f"{file} is in the format of onnxruntime; expected an ONNX model")
    check = _Check()
    try:
        walk(model, check.visit)
    except ValueError as error:  # UnicodeDecodeError is a ValueError
        raise BundleCorruptError(f"{file} is not an ONNX model that may be loaded: {error}") from error
    found = check.found
    if len(model) - found.stored > MAX_BYTES_AROUND:
        raise BundleCorruptError(
            f"{file} has {len(model) - found.stored:,} bytes beside the data of its tensors; expected at most "
            f"{MAX_BYTES_AROUND:,}"
        )
    if found.allocated > 2 * len(model) + SPARE_BYTES:
        raise BundleCorruptError(
            f"{file} claims tensors of {found.allocated:,} bytes in {len(model):,}; expected at most "
            f"{2 * len(model) + SPARE_BYTES:,}"
        )
    return found


class _Check:
    """Checks each message by its kind."""

    def __init__(self) -> None:
        self.found = GraphContent()
        self._checks: dict[str, Callable[[Content, int], None]] = {
            "ModelProto": self._model,
            "GraphProto": self._graph,
            "StringStringEntryProto": self._entry,
            "NodeProto": self._node,
            "AttributeProto": self._attribute,
            "TensorProto": self._tensor,
        }

    def visit(self, name: str, content: Content, depth: int) -> None:
        check = self._checks.get(name)
        if check is not None:
            check(content, depth)

    def _model(self, content: Content, depth: int) -> None:
        del depth
        graphs, entries = len(content.get("graph", ())), len(content.get("metadata_props", ()))
        if graphs != 1:
            raise ValueError(f"it holds {graphs} graphs; expected 1")
        if entries > MAX_METADATA:
            raise ValueError(f"it has {entries:,} entries of metadata; expected at most {MAX_METADATA:,}")

    def _graph(self, content: Content, depth: int) -> None:
        del content
        if depth > 1 + MESSAGES_PER_GRAPH * MAX_DEPTH:
            raise ValueError(f"it nests graphs deeper than {MAX_DEPTH}; expected at most {MAX_DEPTH} levels")

    def _entry(self, content: Content, depth: int) -> None:
        del depth
        if _text(content, "key") == "ort_config":
            raise ValueError("its metadata holds settings of onnxruntime (ort_config); expected none")

    def _node(self, content: Content, depth: int) -> None:
        del depth
        self.found.nodes += 1
        if self.found.nodes > MAX_NODES:
            raise ValueError(f"it has more than {MAX_NODES:,} nodes")
        domain = _text(content, "domain")
        if domain not in DOMAINS:
            raise ValueError(f"it needs operators of {domain!r}; expected those of {sorted(DOMAINS)}")

    def _attribute(self, content: Content, depth: int) -> None:
        del depth
        name = _text(content, "name")
        if name not in BRANCHES and ("g" in content or "graphs" in content):
            raise ValueError(f"it has a graph in the attribute {name!r}; expected graphs only in {sorted(BRANCHES)}")
        if "floats" in content:
            count_numbers(content["floats"], 4)
        if "ints" in content:
            count_numbers(content["ints"])
        if name in _SHAPES:
            _check_shape([*content.get("i", ()), *content.get("ints", ())])

    def _tensor(self, content: Content, depth: int) -> None:
        """Refuse a tensor whose data are not what its shape and type say, and a shape that asks for too much."""
        del depth
        self.found.tensors += 1
        if self.found.tensors > MAX_TENSORS:
            raise ValueError(f"it has more than {MAX_TENSORS:,} tensors")
        kind, place = (_number(content, name) for name in ("data_type", "data_location"))
        if place:
            raise ValueError("it keeps data in another file; expected all data in the graph itself")
        if kind not in TYPES:
            raise ValueError(f"it has a tensor of type {kind}; expected one of {sorted(TYPES)}")
        bits, typed = TYPES[kind]
        dims = integers(content.get("dims", []))
        size = math.prod(dims)
        held = [name for name in _DATA if name in content]
        stored = sum(len(value) if isinstance(value, memoryview) else 1 for name in held for value in content[name])
        field = "raw_data" if "raw_data" in content and kind != _STRING else typed
        # A byte holds at most four elements. Checked first, so that no number is counted in vain.
        fits = (
            min(dims, default=0) >= 0 and size <= 4 * max(stored, len(content.get(typed, ()))) and held in ([field], [])
        )
        if not fits or _count(content, field) != (size if field == typed and bits >= 8 else -(-size * bits // 8)):
            raise ValueError(f"it claims a tensor of shape {dims} and type {kind} with {stored} bytes in {held}")
        self.found.stored += stored
        self.found.allocated += -(-size * bits // 8)
        if kind in {_INT32, _INT64}:
            self._check_numbers(content, field, size, bits)

    def _check_numbers(self, content: Content, field: str, size: int, bits: int) -> None:
        """Check a short vector of integers: it may be the shape of another tensor."""
        if size > _MOST_DIMENSIONS:
            return
        if field != "raw_data":
            _check_shape(content.get(field, []))
            return
        raw = content[field][0]
        if isinstance(raw, memoryview):
            _check_shape([number for (number,) in struct.iter_unpack("<q" if bits == 64 else "<i", raw)])


def _check_shape(values: list[int | memoryview]) -> None:
    """Refuse numbers that ask for far too much memory if they are a shape."""
    if any(isinstance(value, memoryview) and len(value) > 10 * _MOST_DIMENSIONS for value in values):
        return
    numbers = integers(values)
    shape = [number for number in numbers if number not in _NO_END]
    if len(numbers) > _MOST_DIMENSIONS or min(shape, default=0) <= 0:
        return
    if MAX_ELEMENTS < math.prod(shape) < UNALLOCATABLE:
        raise ValueError(f"it holds the shape {numbers}, of more than {MAX_ELEMENTS:,} elements")


def _count(content: Content, field: str) -> int:
    """The elements in a field of a tensor; of raw_data the bytes."""
    values = content.get(field, [])
    if field == "raw_data":
        return sum(len(value) for value in values if isinstance(value, memoryview))
    return (
        len(values)
        if field == "string_data"
        else count_numbers(values, _BYTES_EACH.get(field), int32=field == "int32_data")
    )


def _text(content: Content, field: str) -> str:
    values = content.get(field)
    return "" if not values or isinstance(values[0], int) else str(values[0], "utf-8")


def _number(content: Content, field: str) -> int:
    values = content.get(field)
    return values[0] if values and isinstance(values[0], int) else 0
