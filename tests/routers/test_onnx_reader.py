"""The reader of ONNX models against the onnx library: whatever that library reads, this one has seen or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from routelearn.routers.errors import BundleCorruptError
from routelearn.routers.graph_check import GraphContent, check_graph
from routelearn.routers.onnx_reader import _ENUMS, _SCHEMA

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
MODELS = [(BUNDLES / name / "model.onnx").read_bytes() for name in ("version-2", "version-3-similarity")]


def varint(number: int, length: int = 0) -> bytes:
    """A number in protobuf's form; a length above the shortest pads it."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    while len(out) < length:
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def small_model() -> onnx.ModelProto:
    """A model of few bytes, in which a random change hits something."""
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=helper.make_tensor("v", TensorProto.FLOAT, [2], [1.0, 2.0]))],
        "branch",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)],
        "graph",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor("w", TensorProto.INT64, [3], [1, -1, 300])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


SMALL = small_model().SerializeToString()


def messages(message: Message) -> Iterator[Message]:
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if descriptor.is_repeated else [value]:
                yield from messages(inner)


def check_agreement(data: bytes) -> bool:
    """Compare both readers; return whether the bytes pass."""
    try:
        found = check_graph(data)
    except BundleCorruptError:
        return False
    model = onnx.ModelProto()
    model.ParseFromString(data)  # what passes here can be read there
    seen = list(messages(model))
    tensors = [one for one in seen if isinstance(one, TensorProto)]
    nodes = [one for one in seen if isinstance(one, onnx.NodeProto)]
    assert (found.nodes, found.tensors) == (len(nodes), len(tensors))
    assert not any(tensor.external_data or tensor.data_location for tensor in tensors)
    assert not model.functions
    assert not model.training_info
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.DiscardUnknownFields()  # type: ignore[attr-defined]
    assert copy.ByteSize() == model.ByteSize(), "the onnx library has kept fields that it does not know"
    return True


@pytest.mark.parametrize("model", [*MODELS, SMALL])
def test_both_readers_see_the_same_in_a_whole_model(model: bytes) -> None:
    assert check_agreement(model)


changes = st.lists(
    st.tuples(st.integers(0, len(SMALL)), st.integers(0, 3), st.binary(max_size=6)), min_size=1, max_size=4
)


#: Behind this place lies the type of an attribute.
TYPE_TAG = varint(20 << 3)
TYPE_AT = SMALL.index(TYPE_TAG) + len(TYPE_TAG)


@settings(max_examples=1000)
@given(changes)
@example([(TYPE_AT, 1, b"\x0f")])
def test_both_readers_see_the_same_after_any_change_of_bytes(edits: list[tuple[int, int, bytes]]) -> None:
    data = SMALL
    for place, cut, new in edits:
        data = data[:place] + new + data[place + cut :]
    check_agreement(data)


@settings(max_examples=500)
@given(st.sampled_from(sorted(_SCHEMA)), st.integers(0, 40), st.integers(0, 7), st.integers(0, 1 << 70), st.data())
def test_both_readers_see_the_same_when_a_field_is_added(
    name: str, number: int, wire: int, high: int, data: st.DataObject
) -> None:
    """Any tag, also of more than 32 bits or padded, in front of any bytes, at the end of the model or its graph."""
    del name
    tag = varint((high << 32 | number << 3 | wire) & ((1 << 70) - 1), data.draw(st.integers(0, 10)))
    body = data.draw(
        st.sampled_from([b"", b"\0", b"\x01", varint(len(SMALL)) + SMALL, field(13, b"x"), b"\x02\x70\x01"])
    )
    graph = small_model().graph.SerializeToString()
    check_agreement(SMALL + tag + body)
    check_agreement(field(7, graph + tag + body) + field(8, b""))


def test_the_reader_knows_every_field_of_the_onnx_library() -> None:
    """A field that a newer ONNX adds is refused until somebody has looked at it; one that we have is as ONNX has it."""
    seen: set[str] = set()

    def compare(descriptor: Descriptor) -> None:
        name = descriptor.full_name.removeprefix("onnx.").replace("TypeProto.Sequence", "TypeProto.Wrapper")
        name = name.replace("TypeProto.Optional", "TypeProto.Wrapper")
        if name in seen:
            return
        seen.add(name)
        ours = {tag >> 3: one for tag, one in _SCHEMA[name].items()}
        for theirs in descriptor.fields:
            one = ours.get(theirs.number)
            if one is None:
                assert theirs.name == "opaque_type", f"{name}.{theirs.name}"
                continue
            assert (one.name, one.repeated) == (theirs.name, theirs.is_repeated), f"{name}.{theirs.name}"
            assert (one.type in _ENUMS) == (theirs.type == FieldDescriptor.TYPE_ENUM), f"{name}.{theirs.name}"
            if one.type in _ENUMS:
                assert one.type == theirs.enum_type.name
                assert list(_ENUMS[one.type]) == sorted(theirs.enum_type.values_by_number)
            if theirs.type == FieldDescriptor.TYPE_MESSAGE and not one.type.startswith("!"):
                compare(theirs.message_type)

    compare(onnx.ModelProto.DESCRIPTOR)
    assert seen == set(_SCHEMA)


def external(location: str = "/etc/passwd") -> TensorProto:
    tensor = TensorProto(name="s", data_type=TensorProto.UINT8, dims=[8], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def attribute_with(tail: bytes) -> bytes:
    """A model whose node has an attribute that ends with these bytes."""
    node = field(4, b"Relu") + field(5, field(1, b"a") + tail)
    return field(8, b"") + field(7, field(1, node))


def tensor_with(tail: bytes) -> bytes:
    """A model whose initializer ends with these bytes."""
    tensor = TensorProto(name="s", data_type=TensorProto.UINT8, dims=[1], raw_data=b"x").SerializeToString() + tail
    return field(8, b"") + field(7, field(5, tensor))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (SMALL + varint((1 << 32) | 7 << 3 | 2) + field(7, b"")[1:], "field 536870919"),
        (SMALL + varint(7 << 3 | 2, 3) + b"\0", "shortest form"),
        (SMALL + field(7, b""), "two values of graph"),
        (SMALL + field(25, b""), "functions"),
        (SMALL + field(20, b""), "training graphs"),
        (SMALL + field(99, b""), "field 99"),
        (SMALL + b"\x3b\x3c", "wire type 3"),
        (SMALL + b"\x08" + b"\xff" * 9 + b"\x7f", "shortest form"),
        (tensor_with(varint(5 << 3) + varint((1 << 32) + 1)), "int32_data of its TensorProto is 4294967297.*32 bits"),
        (
            tensor_with(varint(14 << 3) + varint((1 << 32) + 1)),
            "data_location of its TensorProto is 4294967297.*0 to 1",
        ),
        (tensor_with(varint(14 << 3) + b"\x02"), "data_location of its TensorProto is 2; expected 0 to 1"),
        (attribute_with(TYPE_TAG + b"\x0f"), "type of its AttributeProto is 15; expected 0 to 14"),
        (attribute_with(TYPE_TAG + varint((1 << 64) - 1)), "type of its AttributeProto is -1; expected 0 to 14"),
        (tensor_with(varint(14 << 3) + b"\x01"), "another file"),
        (tensor_with(field(13, b"")), "another file"),
        (tensor_with(field(3, b"")), "parts of tensors"),
        (tensor_with(varint(2 << 3) + b"\x01"), "two values of data_type"),
        (tensor_with(field(8, b"\xff")), "utf-8|two values of name"),
    ],
)
def test_what_two_readers_could_understand_differently_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BundleCorruptError, match=why):
        check_graph(data)


def test_raw_data_may_stand_before_the_type() -> None:
    """A shape of gigabytes was not seen in a tensor whose fields stand in another order."""
    raw = (1 << 30).to_bytes(8, "little")
    tensor = field(9, raw) + varint(1 << 3) + b"\x01" + varint(2 << 3) + b"\x07"
    with pytest.raises(BundleCorruptError, match="holds the shape"):
        check_graph(field(7, field(5, tensor)))


@pytest.mark.parametrize("kind", sorted({*range(1, 27)} - {14, 15}))
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5])
def test_a_tensor_of_every_type_passes_with_the_bytes_it_needs_and_no_others(kind: int, count: int) -> None:
    values = ["x"] * count if kind == TensorProto.STRING else [1] * count
    tensor = helper.make_tensor("w", kind, [count], values)
    model = onnx.ModelProto()
    model.graph.initializer.append(tensor)
    assert check_graph(model.SerializeToString()) == GraphContent(
        tensors=1, stored=check_graph(model.SerializeToString()).stored, allocated=allocated(kind, count)
    )
    if count:
        model.graph.initializer[0].dims[:] = [count + 4]
        with pytest.raises(BundleCorruptError, match="claims a tensor"):
            check_graph(model.SerializeToString())


def allocated(kind: int, count: int) -> int:
    if kind == TensorProto.STRING:
        return 32 * count
    bits = {**dict.fromkeys([21, 22, 23], 4), **dict.fromkeys([25, 26], 2)}.get(kind)
    return -(-count * (bits or helper.tensor_dtype_to_np_dtype(kind).itemsize * 8) // 8)


INT32_MOST = (1 << 31) - 1


def int32_tensor(*numbers: int) -> bytes:
    """A model with a vector of packed int32 numbers."""
    data = b"".join(varint(number % (1 << 64)) for number in numbers)
    tensor = varint(1 << 3) + varint(len(numbers)) + varint(2 << 3) + varint(TensorProto.INT32) + field(5, data)
    return field(8, b"") + field(7, field(5, tensor))


@settings(max_examples=500)
@given(st.lists(st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 33), 1 << 33)), max_size=9))
@example([INT32_MOST, -INT32_MOST - 1])
@example([INT32_MOST + 1])
@example([-INT32_MOST - 2])
@example([(1 << 45) + (1 << 29)])  # too much for any machine here, but a shape where it is cut to 32 bits
def test_packed_numbers_of_32_bits_pass_only_where_nothing_is_cut_off(numbers: list[int]) -> None:
    data = int32_tensor(*numbers)
    if all(-INT32_MOST - 1 <= number <= INT32_MOST for number in numbers):
        check_small_vector(data, numbers)
    else:
        with pytest.raises(BundleCorruptError, match="32 bits"):
            check_graph(data)


def check_small_vector(data: bytes, numbers: list[int]) -> None:
    """Numbers that are no shape of gigabytes pass, and the onnx library reads the same ones."""
    try:
        check_graph(data)
    except BundleCorruptError as error:
        assert "it holds the shape" in str(error)
    assert list(onnx.ModelProto.FromString(data).graph.initializer[0].int32_data) == numbers


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        (field(7, b"abc"), "middle of a number"),
        (field(8, b"\x80"), "middle of a number"),
        (field(8, b"\x80\0"), "shortest form"),
        (field(8, b"\xff" * 9 + b"\x7f"), "shortest form"),
        (varint(8 << 3) + b"\x01" + field(8, b"\x80"), "middle of a number"),
    ],
)
def test_packed_numbers_of_an_attribute_are_checked(tail: bytes, why: str) -> None:
    with pytest.raises(BundleCorruptError, match=why):
        check_graph(attribute_with(tail))


def test_whole_packed_numbers_of_an_attribute_pass() -> None:
    assert check_agreement(attribute_with(field(7, b"abcd" * 2) + field(8, b"\x01\x80\x01")))


@pytest.mark.parametrize("kind", sorted(onnx.AttributeProto.AttributeType.values()))
def test_an_attribute_of_every_type_that_onnx_has_passes(kind: int) -> None:
    assert check_agreement(attribute_with(TYPE_TAG + varint(kind)))


def test_the_onnx_library_reads_what_is_refused_here() -> None:
    """So the tests above do not pass only because the bytes are no protobuf."""
    for data in (SMALL + varint(7 << 3 | 2, 3) + b"\0", SMALL + field(7, b""), SMALL + field(99, b"")):
        onnx.ModelProto().ParseFromString(data)
    with pytest.raises(DecodeError):
        onnx.ModelProto().ParseFromString(SMALL[:-1])
