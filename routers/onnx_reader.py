"""Reads the protobuf messages of an ONNX model as strictly as no other reader does.

onnxruntime's reader drops the upper bits of a number that is too large, merges a message that stands twice, and keeps
what it does not know. A reader that does one of these things otherwise can be shown another model than the one that
runs. So this one refuses every message that two readers could understand differently: fields that onnx.proto does not
have, fields of another wire type, a second value of a field that holds one, numbers that are not written in their
shortest form, and values that an enum does not have (protobuf keeps such a value as an unknown field).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

#: The most fields in all messages together (a name, a number, a message). This bounds the time of reading.
MAX_FIELDS = 500_000
#: A graph inside a graph lies this many messages below it: node, attribute, graph.
MESSAGES_PER_GRAPH = 3
#: The deepest nesting of messages: some graphs, and the type of a value in the innermost.
MAX_MESSAGES = 36
#: The longest name or text, and the most bytes of packed numbers of varying length. (Large tensors have raw_data.)
MAX_TEXT = MAX_PACKED = 4 << 20

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: The enums of onnx.proto, each with its values.
_ENUMS = {"AttributeType": range(15), "DataLocation": range(2)}
_LIMITS = {"int32": range(-(1 << 31), 1 << 31), **_ENUMS}
_VARINTS = dict.fromkeys(["int32", "int64", "uint64", *_ENUMS], _VARINT)
_NUMBERS = {**_VARINTS, "float": _FIXED32, "double": _FIXED64}

#: The messages of onnx.proto (ONNX 1.23): the number, the name and the type of each field. A star marks a repeated
#: field, and an exclamation mark a field that is refused, with what it would bring.
_PROTO = {
    "ModelProto": "1 ir_version int64, 2 producer_name string, 3 producer_version string, 4 domain string, "
    "5 model_version int64, 6 doc_string string, 7 graph GraphProto, 8 opset_import* OperatorSetIdProto, "
    "14 metadata_props* StringStringEntryProto, 20 training_info* !training graphs, "
    "25 functions* !functions of its own, 26 configuration* !device configurations",
    "OperatorSetIdProto": "1 domain string, 2 version int64",
    "StringStringEntryProto": "1 key string, 2 value string",
    "GraphProto": "1 node* NodeProto, 2 name string, 5 initializer* TensorProto, 10 doc_string string, "
    "11 input* ValueInfoProto, 12 output* ValueInfoProto, 13 value_info* ValueInfoProto, "
    "14 quantization_annotation* TensorAnnotation, 15 sparse_initializer* !sparse tensors, "
    "16 metadata_props* StringStringEntryProto",
    "TensorAnnotation": "1 tensor_name string, 2 quant_parameter_tensor_names* StringStringEntryProto",
    "ValueInfoProto": "1 name string, 2 type TypeProto, 3 doc_string string, 4 metadata_props* StringStringEntryProto",
    "NodeProto": "1 input* string, 2 output* string, 3 name string, 4 op_type string, 5 attribute* AttributeProto, "
    "6 doc_string string, 7 domain string, 8 overload string, 9 metadata_props* StringStringEntryProto, "
    "10 device_configurations* !device configurations",
    "AttributeProto": "1 name string, 2 f float, 3 i int64, 4 s bytes, 5 t TensorProto, 6 g GraphProto, "
    "7 floats* float, 8 ints* int64, 9 strings* bytes, 10 tensors* TensorProto, 11 graphs* GraphProto, "
    "13 doc_string string, 14 tp TypeProto, 15 type_protos* TypeProto, 20 type AttributeType, "
    "21 ref_attr_name !attributes of a function, 22 sparse_tensor !sparse tensors, 23 sparse_tensors* !sparse tensors",
    "TensorProto": "1 dims* int64, 2 data_type int32, 3 segment !parts of tensors, 4 float_data* float, "
    "5 int32_data* int32, 6 string_data* bytes, 7 int64_data* int64, 8 name string, 9 raw_data bytes, "
    "10 double_data* double, 11 uint64_data* uint64, 12 doc_string string, 13 external_data* !data in another file, "
    "14 data_location DataLocation, 16 metadata_props* StringStringEntryProto",
    "TypeProto": "1 tensor_type TypeProto.Tensor, 4 sequence_type TypeProto.Wrapper, 5 map_type TypeProto.Map, "
    "6 denotation string, 8 sparse_tensor_type !sparse tensors, 9 optional_type TypeProto.Wrapper",
    "TypeProto.Tensor": "1 elem_type int32, 2 shape TensorShapeProto",
    "TypeProto.Wrapper": "1 elem_type TypeProto",
    "TypeProto.Map": "1 key_type int32, 2 value_type TypeProto",
    "TensorShapeProto": "1 dim* TensorShapeProto.Dimension",
    "TensorShapeProto.Dimension": "1 dim_value int64, 2 dim_param string, 3 denotation string",
}

#: What is expected instead of what some refused fields bring.
_INSTEAD = {
    "data in another file": "all data in the graph itself",
    "sparse tensors": "dense tensors only",
    "functions of its own": "none; onnx.inliner.inline_local_functions inlines them",
}


class Field(NamedTuple):
    """One field of a message, as the tag in front of its value names it."""

    name: str
    type: str
    repeated: bool
    wire: int
    limits: range | None  # the numbers that it can hold; None: all of 64 bits


#: What one message holds: the values of each field by its name. A value is an integer, or the bytes of anything else.
Content = dict[str, "list[int | memoryview]"]
#: Called with the name of a message, its content and its depth.
Visit = Callable[[str, Content, int], None]


def _fields_of(text: str) -> Iterator[tuple[int, Field]]:
    for one in text.split(", "):
        number, name, kind = one.split(" ", 2)
        repeated = name.endswith("*")
        wires = {_NUMBERS.get(kind, _BYTES), _BYTES if repeated else _NUMBERS.get(kind, _BYTES)}
        for wire in wires:
            yield int(number) << 3 | wire, Field(name.rstrip("*"), kind, repeated, wire, _LIMITS.get(kind))


_SCHEMA: Mapping[str, Mapping[int, Field]] = {name: dict(_fields_of(text)) for name, text in _PROTO.items()}
_MESSAGE_FIELDS: Mapping[str, list[tuple[str, str]]] = {
    name: [(field.name, field.type) for field in fields.values() if field.type in _PROTO]
    for name, fields in _SCHEMA.items()
}


def walk(model: bytes, visit: Visit) -> None:
    """Read a model, and show every message in it.

    Args:
        model: the bytes of model.onnx.
        visit: is called with every message before the messages in it are read. What it raises ends the reading.

    Raises:
        ValueError: the bytes are not a model, or two readers could understand them differently.
    """
    _Reader(visit).walk("ModelProto", memoryview(model), 0)


class _Reader:
    """Reads messages, and counts their fields."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._left = MAX_FIELDS

    def walk(self, name: str, data: memoryview, depth: int) -> None:
        if depth > MAX_MESSAGES:
            raise ValueError(f"it nests messages deeper than {MAX_MESSAGES}")
        content = self._read(name, data)
        self._visit(name, content, depth)
        for field, message in _MESSAGE_FIELDS[name]:
            for value in content.get(field, ()):
                if isinstance(value, memoryview):
                    self.walk(message, value, depth + 1)

    def _read(self, name: str, data: memoryview) -> Content:
        schema = _SCHEMA[name]
        content: Content = {}
        place, end = 0, len(data)
        while place < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"it has more than {MAX_FIELDS:,} fields")
            tag = data[place]
            place += 1
            if tag >= 0x80:
                tag, place = _varint(data, place - 1)
            field = schema.get(tag)
            if field is None or field.type[0] == "!":
                raise ValueError(_why_refused(name, tag, field))
            value: int | memoryview
            if field.wire == _VARINT:
                value, place = _varint(data, place)
                if field.limits is not None:
                    value = signed(value)
                    if value not in field.limits:
                        raise ValueError(_why_outside(name, field, value))
            else:
                length = 8 if field.wire == _FIXED64 else 4
                if field.wire == _BYTES:
                    length, place = _varint(data, place)
                if place + length > end:
                    raise ValueError("it ends in the middle of a field")
                value = data[place : place + length]
                place += length
                if field.type == "string":
                    _check_text(value)
            values = content.setdefault(field.name, [])
            if values and not field.repeated:
                raise ValueError(f"a {name} has two values of {field.name}; expected one")
            values.append(value)
        return content


def _why_refused(name: str, tag: int, field: Field | None) -> str:
    if field is not None:
        return f"it holds {field.type[1:]}; expected {_INSTEAD.get(field.type[1:], 'none')}"
    return f"a {name} has the field {tag >> 3} of wire type {tag & 7}, which onnx.proto does not have"


def _why_outside(name: str, field: Field, value: int) -> str:
    expected = "a number of 32 bits"
    if field.type in _ENUMS:
        expected = f"0 to {_ENUMS[field.type][-1]}, the values of {field.type} in onnx.proto"
    return f"the field {field.name} of its {name} is {value}; expected {expected}"


def _check_text(value: memoryview) -> None:
    if len(value) > MAX_TEXT:
        raise ValueError(f"it has a text of {len(value):,} bytes; expected at most {MAX_TEXT:,}")
    str(value, "utf-8")  # onnxruntime hands names to Python, which needs UTF-8


def signed(value: int) -> int:
    """The signed number that 64 bits stand for."""
    return value - (1 << 64) if value >= 1 << 63 else value


def integers(values: list[int | memoryview]) -> list[int]:
    """The signed numbers of a repeated field, packed or not."""
    numbers: list[int] = []
    for value in values:
        if isinstance(value, int):
            numbers.append(signed(value))
            continue
        place = 0
        while place < len(value):
            number, place = _varint(value, place)
            numbers.append(signed(number))
    return numbers


def count_numbers(values: list[int | memoryview], bytes_each: int | None = None, int32: bool = False) -> int:
    """How many numbers a repeated field holds, packed or not.

    Args:
        values: the values of the field.
        bytes_each: the bytes of a number; None: the numbers are of varying length.
        int32: refuse packed numbers of varying length that do not fit into 32 bits.

    Raises:
        ValueError: the packed numbers are not whole, not in their shortest form, or too large.
    """
    count = 0
    for value in values:
        if isinstance(value, int):
            count += 1
        elif bytes_each is None:
            count += _count_varints(value, int32)
        else:
            if len(value) % bytes_each:
                raise ValueError("it ends in the middle of a number")
            count += len(value) // bytes_each
    return count


def _count_varints(data: memoryview, int32: bool) -> int:
    """Count packed varints, without a loop in Python: a tensor may hold millions."""
    if len(data) > MAX_PACKED:
        raise ValueError(f"it has {len(data):,} bytes of packed numbers; expected raw_data above {MAX_PACKED:,}")
    if not len(data):
        return 0
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if not len(ends) or ends[-1] != len(raw) - 1:
        raise ValueError("it ends in the middle of a number")
    lengths = np.diff(ends, prepend=-1)
    last = raw[ends]
    if ((lengths > 1) & (last == 0)).any() or (lengths > 10).any() or ((lengths == 10) & (last > 1)).any():
        raise ValueError("it has a number that is not written in its shortest form")
    if int32 and not _fit_32_bits(raw, ends, lengths):
        raise ValueError("it has a packed number that does not fit into the 32 bits of its field")
    return len(ends)


def _fit_32_bits(raw: npt.NDArray[np.uint8], ends: npt.NDArray[np.intp], lengths: npt.NDArray[np.intp]) -> bool:
    """Whether varints in their shortest form are signed numbers of 32 bits; a negative one takes ten bytes."""
    positive, negative = ends[lengths == 5], ends[lengths == 10]
    return bool(
        not ((lengths > 5) & (lengths < 10)).any()
        and (raw[positive] <= 0b111).all()  # bits 28 to 30
        and (raw[negative - 5] >= 0b1111_1000).all()  # bits 31 to 34 are set, as all above
        and all((raw[negative - back] == 0xFF).all() for back in range(1, 5))
    )


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data):
            raise ValueError("it ends in the middle of a number")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or value >= 1 << 64:
                raise ValueError("it has a number that is not written in its shortest form")
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("it has a number of more than ten bytes")
