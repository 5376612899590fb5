"""Graphs for other runtimes: text in, scores out; and a model folder as Triton reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime_extensions
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from routelearn.cli.main import main
from routelearn.routers.errors import InputError
from routelearn.routers.loading import load
from routelearn.training.export.portable import export_portable
from routelearn.training.export.scripts import SENTENCES

#: A small bundle with a companion.
BLENDED = Path(__file__).resolve().parents[1] / "bundles" / "version-5"
TEXTS = [
    "What is 2 plus 2?",
    "Prove that the square root of 2 is irrational.",
    "",
    "Don't STOP here: a  b\tc\n\nd -- x1_y2, (z)",
    "Café naïve résumé",
    "prove it " * 400,  # beyond the token budget
    " ".join(f"{word} {number}" for number in range(150) for word in ("Prove", "a", "lemma")),
]


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    return onnxruntime.InferenceSession(str(path), options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bundle", "similarity_bundle", "bert_bundle", "int8_bundle"])
def test_text_in_gives_the_scores_of_the_bundle(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    bundle: Path = request.getfixturevalue(name)
    graph = session(export_portable(bundle, tmp_path / "text", "text") / "model.onnx")
    router = load(bundle)
    for whole in [*TEXTS, *(sentence for sentences in SENTENCES.values() for sentence in sentences)]:
        text = router.manifest.truncation.read(whole).text
        (quality,) = graph.run(["quality"], {"text": np.array([text], object)})
        assert quality[0] == pytest.approx(router.quality([text])[0], abs=1e-5), text


def test_text_in_gives_the_blended_scores_of_a_router_with_a_companion(tmp_path: Path) -> None:
    graph = session(export_portable(BLENDED, tmp_path / "text", "text") / "model.onnx")
    router = load(BLENDED)
    assert router.manifest.companion is not None
    for whole in TEXTS:
        text = router.manifest.companion.truncation.read(router.manifest.truncation.read(whole).text).text
        (quality,) = graph.run(["quality"], {"text": np.array([text], object)})
        assert quality[0] == pytest.approx(router.quality([text])[0], abs=1e-5), text


def test_a_router_with_a_companion_is_no_model_folder_for_triton(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the format text, or a router that was trained with general none"):
        export_portable(BLENDED, tmp_path / "router", "triton")


@pytest.mark.slow
def test_a_batch_of_texts_is_refused(bundle: Path, tmp_path: Path) -> None:
    """The operator of the tokenizer would take two texts for a pair."""
    graph = session(export_portable(bundle, tmp_path / "text", "text") / "model.onnx")
    with pytest.raises(Exception, match="Got invalid dimensions for input: text"):
        graph.run(["quality"], {"text": np.array(["a", "b"], object)})


def field(number: int, name: str, kind: int, *, repeated: bool = False, message: str = "") -> Any:
    label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED if repeated else 1
    found = descriptor_pb2.FieldDescriptorProto(name=name, number=number, type=kind, label=label)  # type: ignore[arg-type]
    if message:
        found.type_name = f".triton.{message}"
    return found


def model_config() -> Any:
    """The part of Triton's model_config.proto (names and numbers of its fields) that a folder like ours uses."""
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="triton", syntax="proto3")
    kinds = file.enum_type.add(name="DataType")
    for number, name in (
        (0, "TYPE_INVALID"),
        (2, "TYPE_UINT8"),
        (8, "TYPE_INT32"),
        (9, "TYPE_INT64"),
        (11, "TYPE_FP32"),
    ):
        kinds.value.add(name=name, number=number)
    file.message_type.add(name="ModelTensorReshape").field.append(field(1, "shape", types.TYPE_INT64, repeated=True))
    file.message_type.add(name="ModelDynamicBatching")
    for name, dims, reshape in (("ModelInput", 4, 5), ("ModelOutput", 3, 5)):
        tensor = file.message_type.add(name=name)
        tensor.field.append(field(1, "name", types.TYPE_STRING))
        tensor.field.append(field(2, "data_type", types.TYPE_ENUM, message="DataType"))
        tensor.field.append(field(dims, "dims", types.TYPE_INT64, repeated=True))
        tensor.field.append(field(reshape, "reshape", types.TYPE_MESSAGE, message="ModelTensorReshape"))
    config = file.message_type.add(name="ModelConfig")
    config.field.append(field(1, "name", types.TYPE_STRING))
    config.field.append(field(2, "platform", types.TYPE_STRING))
    config.field.append(field(4, "max_batch_size", types.TYPE_INT32))
    config.field.append(field(5, "input", types.TYPE_MESSAGE, repeated=True, message="ModelInput"))
    config.field.append(field(6, "output", types.TYPE_MESSAGE, repeated=True, message="ModelOutput"))
    config.field.append(field(11, "dynamic_batching", types.TYPE_MESSAGE, message="ModelDynamicBatching"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("triton.ModelConfig"))()


ONNX_TYPES = {"tensor(float)": 11, "tensor(uint8)": 2, "tensor(int32)": 8, "tensor(int64)": 9}


@pytest.mark.parametrize("name", ["bundle", "int8_bundle"])
def test_the_config_for_triton_is_that_of_the_graph(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    bundle: Path = request.getfixturevalue(name)
    folder = export_portable(bundle, tmp_path / "router", "triton")
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config())
    graph = onnxruntime.InferenceSession(str(folder / "1" / "model.onnx"))
    assert (config.name, config.platform, config.max_batch_size) == ("router", "onnxruntime_onnx", 1024)
    for described, there in ((config.input, graph.get_inputs()), (config.output, graph.get_outputs())):
        assert [(one.name, one.data_type) for one in described] == [(one.name, ONNX_TYPES[one.type]) for one in there]
        for one, real in zip(described, there, strict=True):
            shape = list(one.reshape.shape) if one.HasField("reshape") else list(one.dims)
            assert [dim if isinstance(dim, int) else -1 for dim in real.shape[1:]] == shape
    # A request as Triton would run it: a batch of two, padded to one length.
    feeds = {
        "input_ids": np.array([[5, 6, 7], [5, 0, 0]]),
        "attention_mask": np.array([[1, 1, 1], [1, 0, 0]]),
    }
    types = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64}
    cast = {one.name: feeds[one.name].astype(types[one.type]) for one in graph.get_inputs()}
    assert graph.run(["quality"], cast)[0].shape == (2, len(load(bundle).models))
    assert (folder / "tokenizer.json").read_bytes() == (bundle / "tokenizer.json").read_bytes()


def test_what_cannot_be_exported_is_refused(bundle: Path, verifier_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a verifier"):
        export_portable(verifier_bundle, tmp_path / "a", "text")
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="already exists"):
        export_portable(bundle, tmp_path / "there", "triton")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_the_command_writes_the_folder(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["routelearn", "export", str(bundle), "--format", "triton", "-o", str(tmp_path / "router")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "config.pbtxt" in capsys.readouterr().err
