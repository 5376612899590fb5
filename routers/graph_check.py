"""Checks a graph before onnxruntime loads it: it must not read files or claim more memory than it stores.

A model.onnx is a protobuf message (onnx.proto3 of the ONNX project). Only the fields that matter here are decoded:
nodes, tensors, attributes and subgraphs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from .errors import BundleCorruptError

#: The most nodes, those of subgraphs included. Our largest graph has some hundreds.
MAX_NODES = 100_000
#: The deepest nesting of graphs inside graphs (If, Loop, functions).
MAX_DEPTH = 8
#: The most elements that a constant shape may ask for (1 GiB of float32). No machine can allocate more than the
#: second number; onnxruntime fails on such a shape by itself.
MAX_ELEMENTS, UNALLOCATABLE = 1 << 28, 1 << 44
#: These numbers mean "to the end" in a slice; they are not sizes.
_NO_END = {(1 << 31) - 1, (1 << 63) - 1}
#: The domains whose operators are part of onnxruntime. Operators of other domains would need a library.
DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_INT64, _EXTERNAL = 7, 1

Field = tuple[int, int | memoryview]


def check_graph(model: bytes) -> None:
    """Refuse a graph that reads other files, needs operators of a library, or asks for far more memory than it stores.

    Args:
        model: the bytes of model.onnx.

    Raises:
        BundleCorruptError: the graph is refused, or is not an ONNX model.
    """
    try:
        graphs = 0
        nodes = _Count()
        for number, value in _fields(memoryview(model)):
            if number == 7:  # ModelProto.graph
                graphs += 1
                _check_graph(_message(value), nodes, 0)
            elif number == 25:  # ModelProto.functions
                for inner, node in _fields(_message(value)):
                    if inner == 7:  # FunctionProto.node
                        _check_node(_message(node), nodes, 0)
    except (ValueError, IndexError) as error:
        raise BundleCorruptError(f"model.onnx is not an ONNX model: {error}") from error
    if graphs != 1:
        raise BundleCorruptError(f"model.onnx is not an ONNX model: it holds {graphs} graphs; expected 1")


class _Count:
    """Counts the nodes."""

    def __init__(self) -> None:
        self.nodes = 0


def _check_graph(graph: memoryview, count: _Count, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise BundleCorruptError(
            f"model.onnx nests graphs deeper than {MAX_DEPTH}; expected at most {MAX_DEPTH} levels"
        )
    for number, value in _fields(graph):
        if number == 1:  # GraphProto.node
            _check_node(_message(value), count, depth)
        elif number == 5:  # GraphProto.initializer
            _check_tensor(_message(value))
        elif number == 15:  # GraphProto.sparse_initializer
            raise BundleCorruptError("model.onnx holds sparse tensors; expected dense tensors only")


def _check_node(node: memoryview, count: _Count, depth: int) -> None:
    count.nodes += 1
    if count.nodes > MAX_NODES:
        raise BundleCorruptError(f"model.onnx has too many nodes; expected at most {MAX_NODES:,}")
    for number, value in _fields(node):
        if number == 7 and bytes(_message(value)).decode() not in DOMAINS:  # NodeProto.domain
            raise BundleCorruptError(f"model.onnx needs operators of {bytes(_message(value)).decode()!r}")
        if number == 5:  # NodeProto.attribute
            for inner, content in _fields(_message(value)):
                if inner in {5, 10}:  # AttributeProto.t, tensors
                    _check_tensor(_message(content))
                elif inner in {6, 11}:  # AttributeProto.g, graphs
                    _check_graph(_message(content), count, depth + 1)
                elif inner in {22, 23}:  # AttributeProto.sparse_tensor(s)
                    raise BundleCorruptError("model.onnx holds sparse tensors; expected dense tensors only")


def _check_tensor(tensor: memoryview) -> None:
    """Refuse a tensor with data in another file, and a short int64 vector that asks for too much if it is a shape."""
    dims: list[int] = []
    kind = 0
    numbers: list[int] = []
    for number, value in _fields(tensor):
        if number == 1:  # TensorProto.dims
            dims += _integers(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 7 and (isinstance(value, int) or len(value) <= 80):  # TensorProto.int64_data
            numbers += _integers(value)
        elif number == 9 and kind == _INT64 and len(_message(value)) <= 64:  # TensorProto.raw_data
            numbers += list(_message(value).cast("q")) if len(_message(value)) % 8 == 0 else []
        elif number == 13 or (number == 14 and value == _EXTERNAL):  # external_data, data_location
            raise BundleCorruptError("model.onnx keeps data in another file; expected all data in model.onnx")
    size = math.prod(dims)
    if min(dims, default=0) < 0 or size > 8 * len(tensor):  # an element takes a bit at least
        raise BundleCorruptError(
            f"model.onnx has a tensor of shape {dims} in {len(tensor)} bytes; expected data for every element"
        )
    shape = [n for n in numbers if n not in _NO_END] if kind == _INT64 and len(numbers) <= 8 else []
    if min(shape, default=0) > 0 and MAX_ELEMENTS < math.prod(shape) < UNALLOCATABLE:
        raise BundleCorruptError(f"model.onnx holds the shape {numbers}, of more than {MAX_ELEMENTS:,} elements")


def _integers(value: int | memoryview) -> list[int]:
    """Read a repeated int64 field, packed or not."""
    if isinstance(value, int):
        return [_signed(value)]
    numbers, place = [], 0
    while place < len(value):
        number, place = _varint(value, place)
        numbers.append(_signed(number))
    return numbers


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it has a number where a message is expected")
    return value


def _fields(data: memoryview) -> Iterator[Field]:
    """Read the fields of a message in their order: field number, and integer or bytes (protobuf wire format)."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == _BYTES:
            length, place = _varint(data, place)
        elif wire in {_FIXED64, _FIXED32}:
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"it has a field of wire type {wire}")
        if place + length > len(data):
            raise ValueError("it ends in the middle of a field")
        yield number, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("it has a number of more than ten bytes")
