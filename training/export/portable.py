"""Bundles for other runtimes: a graph that takes text, and a model folder for Triton Inference Server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from ...routers.base import win_rate
from ...routers.bundle import (
    COMPANION,
    COMPANION_TOKENIZER,
    GENERAL,
    MODEL,
    RECORDS,
    TOKENIZER,
    VERIFIER,
    Manifest,
    Truncation,
    read_bundle,
)
from ...routers.decision import Floats
from ...routers.errors import InputError, require
from ...routers.general import TIERS
from ...routers.golden import check_golden
from ...routers.loading import load
from ...routers.session import NEAREST
from ...routers.shipped import shipped_or_path
from .scripts import SENTENCES
from .tokenizer_nodes import OPERATORS, TokenizerNodes

Format = Literal["text", "triton"]

_TRITON_TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 6: "TYPE_INT32", 7: "TYPE_INT64"}
#: Most rows of a request to Triton.
_MAX_BATCH = 1024


def export_portable(bundle: str | Path, out: str | Path, form: Format) -> Path:
    """Write a router's graph for another runtime.

    Args:
        bundle: the bundle of a router.
        out: the folder to write; it must not exist yet.
        form: "text" writes a `model.onnx` that takes one query as a string, with the tokenizer in the graph
            (onnxruntime-extensions). "triton" writes a model folder, with the tokenizer beside the graph.

    Returns:
        The folder.

    Raises:
        InputError: a verifier, a general router that was calibrated for a pair, a tokenizer that has no operator, or a
            folder that is there already; or "triton" for a router with a companion.
        GoldenScoreError: the graph with the tokenizer gives other scores than the bundle.
        BundleError: the bundle cannot be trusted.
        MissingExtraError: onnxruntime-extensions is not installed.
    """
    final = Path(out)
    if final.exists():
        raise InputError(f"{final} already exists; expected the path of a new folder")
    manifest, contents = read_bundle(bundle)
    if manifest.kind == VERIFIER:
        raise InputError(f"{bundle} is a verifier; expected a router")
    if manifest.kind == GENERAL and (manifest.strong, manifest.weak) != TIERS:
        raise InputError(
            f"{bundle} is a general router for {manifest.strong} and {manifest.weak}, and its graph does not give the "
            "qualities of these; expected a router that was trained for them, or 'general'"
        )
    if manifest.companion is not None and form == "triton":
        raise InputError(
            f"{bundle} has a companion, {COMPANION}: a second graph, which a model folder for Triton cannot hold; "
            "expected the format text, or a router that was trained with general none"
        )
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{final.name}.", dir=final.parent) as name:
        staging = Path(name) / final.name
        staging.mkdir()
        if form == "text":
            graph = text_graph(contents[MODEL], contents[TOKENIZER], manifest.truncation)
            if manifest.companion is not None:
                truncation = manifest.companion.truncation
                general = text_graph(contents[COMPANION], contents[COMPANION_TOKENIZER], truncation)
                graph = blended_graph(graph, general)
            _check_scores(graph, manifest, bundle)
            (staging / "model.onnx").write_bytes(graph)
        else:
            _write_triton(contents, staging)
        shutil.copy(Path(shipped_or_path(bundle)) / "router.json", staging / "router.json")
        if RECORDS in contents:
            (staging / RECORDS).write_bytes(contents[RECORDS])
        staging.rename(final)
    return final


def text_graph(model: bytes, tokenizer: bytes, truncation: Truncation) -> bytes:
    """Put the tokenizer before a graph, as nodes.

    The new graph has the input `text`, a string tensor of shape (1,). It refuses a batch of texts, because its nodes
    would join the texts into one.

    Args:
        model: the ONNX graph of a bundle.
        tokenizer: its tokenizer.json.
        truncation: how much of a query it reads.

    Returns:
        The new ONNX model.

    Raises:
        InputError: the tokenizer is not WordPiece with BERT's normalisation.
    """
    onnx: Any = require("onnx", "train")
    helper, types = onnx.helper, onnx.TensorProto
    inner = onnx.load_from_string(model)
    kinds = {item.name: item.type.tensor_type.elem_type for item in inner.graph.input}
    nodes, constants, ids = _token_nodes(helper, tokenizer, truncation)
    nodes += _input_nodes(helper, ids, truncation, kinds)
    graph = helper.make_graph(
        [*nodes, *inner.graph.node],
        inner.graph.name,
        [helper.make_tensor_value_info("text", types.STRING, [1]), *_optional(inner.graph)],
        list(inner.graph.output),
        [*_constants(helper, types.INT64, truncation), *constants, *inner.graph.initializer],
        value_info=list(inner.graph.value_info),
    )
    domains = {item.domain: item for item in inner.opset_import}
    for domain, version in OPERATORS.items():
        domains.setdefault(domain, helper.make_opsetid(domain, version))
    whole = helper.make_model(
        graph, opset_imports=list(domains.values()), ir_version=inner.ir_version, functions=list(inner.functions)
    )
    data: bytes = whole.SerializeToString()
    return data


def blended_graph(own: bytes, general: bytes) -> bytes:
    """Blend the qualities of two text graphs, of a router and of its companion, in one graph.

    Args:
        own: the graph of the router.
        general: the graph of the companion, with the outputs ``quality`` and ``share``.

    Returns:
        The graph of the router with the blended quality.
    """
    onnx: Any = require("onnx", "train")
    helper = onnx.helper
    whole = onnx.load_from_string(own)
    companion = onnx.compose.add_prefix(onnx.load_from_string(general), "general_", rename_inputs=False).graph
    for node in whole.graph.node:
        for names in (node.input, node.output):
            names[:] = ["own_quality" if name == "quality" else name for name in names]
    whole.graph.node.extend(companion.node)
    whole.graph.initializer.extend(companion.initializer)
    whole.graph.initializer.append(helper.make_tensor("general_axis", onnx.TensorProto.INT64, [1], [1]))
    steps = [
        ("Unsqueeze", ["general_share", "general_axis"], "general_column"),
        ("Sub", ["general_quality", "own_quality"], "general_difference"),
        ("Mul", ["general_column", "general_difference"], "general_change"),
        ("Add", ["own_quality", "general_change"], "quality"),
    ]
    whole.graph.node.extend(helper.make_node(operator, inputs, [output]) for operator, inputs, output in steps)
    return bytes(whole.SerializeToString())


def _constants(helper: Any, kind: int, truncation: Truncation) -> list[Any]:
    """The constants that the nodes of the tokenizer read, each a vector of one integer."""
    values = {
        "t_0": 0,
        "t_1": 1,
        "t_first": truncation.max_tokens - truncation.last_tokens,
        "t_minus_last": -truncation.last_tokens,
        "t_end": 2**62,
    }
    return [helper.make_tensor(name, kind, [1], [value]) for name, value in values.items()]


def _token_nodes(helper: Any, tokenizer: bytes, truncation: Truncation) -> tuple[list[Any], list[Any], str]:
    """Nodes from the text to the token ids that the router reads, the constants of these nodes, the name of the ids."""
    made = TokenizerNodes(helper, tokenizer, "text")
    nodes, constants, ids = made.nodes, made.constants, made.ids
    if truncation.special_tokens:
        first, last = _around(tokenizer)
        constants += [
            helper.make_tensor("t_special_first", 7, [len(first)], first),
            helper.make_tensor("t_special_last", 7, [len(last)], last),
        ]
        nodes.append(helper.make_node("Concat", ["t_special_first", ids, "t_special_last"], ["t_with_special"], axis=0))
        ids = "t_with_special"
    nodes += [  # the first ids and the last ids; in a short text the last ids begin where the first ids end
        helper.make_node("Slice", [ids, "t_0", "t_first"], ["t_start"]),
        helper.make_node("Shape", [ids], ["t_whole"]),
        helper.make_node("Add", ["t_whole", "t_minus_last"], ["t_before_last"]),
        helper.make_node("Max", ["t_before_last", "t_first"], ["t_rest"]),
        helper.make_node("Slice", [ids, "t_rest", "t_end"], ["t_ending"]),
        helper.make_node("Concat", ["t_start", "t_ending"], ["t_cut"], axis=0),
    ]
    if not truncation.distinct:
        return nodes, constants, "t_cut"
    return [*nodes, helper.make_node("Unique", ["t_cut"], ["t_unique"], axis=0, sorted=1)], constants, "t_unique"


def _around(tokenizer: bytes) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before a text and after it."""
    made = Tokenizer.from_str(tokenizer.decode())
    made.no_truncation()
    made.no_padding()
    bare, whole = made.encode("a", add_special_tokens=False).ids, made.encode("a").ids
    start = next(place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


def _input_nodes(helper: Any, ids: str, truncation: Truncation, kinds: Mapping[str, int]) -> list[Any]:
    """Nodes from token ids to the inputs of the bundle's graph, in the integer types that it declares."""
    nodes = [
        helper.make_node("Shape", [ids], ["t_length"]),
        helper.make_node("Expand", ["t_1", "t_length"], ["t_ones"]),
    ]
    mask = "t_ones"
    if (
        not truncation.special_tokens
    ):  # every text gets one more token, which the mask leaves out: an empty text has no other
        nodes.append(helper.make_node("Concat", [ids, "t_0"], ["t_padded"], axis=0))
        nodes.append(helper.make_node("Concat", [mask, "t_0"], ["t_mask"], axis=0))
        ids, mask = "t_padded", "t_mask"
    for source, target in ((ids, "input_ids"), (mask, "attention_mask")):
        nodes.append(helper.make_node("Unsqueeze", [source, "t_0"], [f"t_row_{target}"]))
        nodes.append(helper.make_node("Cast", [f"t_row_{target}"], [target], to=kinds[target]))
    return nodes


def _check_scores(graph: bytes, manifest: Manifest, bundle: str | Path) -> None:
    """Refuse a graph that gives other scores than the bundle: of the golden queries, and in any script.

    Raises:
        GoldenScoreError: a score differs by more than the bundle's tolerance.
    """
    extensions: Any = require("onnxruntime_extensions", "portable")
    ort: Any = require("onnxruntime", "portable")
    options = ort.SessionOptions()
    options.register_custom_ops_library(extensions.get_library_path())
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    strong, weak = ([model.name for model in manifest.pool].index(name) for name in (manifest.strong, manifest.weak))
    link: Any = manifest.link

    def scores(quality: Sequence[Sequence[float]] | Floats) -> Floats:
        values = np.asarray(quality, np.float32).reshape(-1, len(manifest.pool))
        return win_rate(values[:, strong], values[:, weak], link)

    def qualities(texts: Sequence[str]) -> Floats:
        return np.concatenate([session.run(["quality"], {"text": np.array([text], object)})[0] for text in texts])

    def check(texts: Sequence[str], expected: Sequence[Sequence[float]] | Floats, name: str) -> None:
        check_golden(
            lambda: scores(qualities(texts)),
            scores(expected),
            tolerance=manifest.golden_tolerance,
            name=name,
            where=f"{bundle} is not exported",
        )

    texts = [manifest.truncation.read(item.query).text for item in manifest.golden]
    kept = [row for row, text in enumerate(texts) if "\0" not in text]  # a string of this runtime ends at NUL
    check([texts[row] for row in kept], [manifest.golden[row].quality for row in kept], "scores")
    router = load(bundle)
    for script, sentences in SENTENCES.items():
        check(sentences, router.quality(sentences), f"scores ({script})")


def _optional(graph: Any) -> list[Any]:
    """The inputs of a graph that have a default."""
    defaults = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name in defaults]


def _write_triton(contents: Mapping[str, bytes], folder: Path) -> None:
    """Write config.pbtxt, 1/model.onnx, and the tokenizer, with which a client makes the inputs."""
    onnx: Any = require("onnx", "train")
    graph = onnx.load_from_string(contents[MODEL]).graph
    blocks = []
    optional = _optional(graph)  # Triton gives none of them, and asks for none of the outputs that need one
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            if value in optional or value.name in NEAREST:
                continue
            tensor = value.type.tensor_type
            # The first dimension is the batch; Triton adds it.
            dims = [item.dim_value or -1 for item in tensor.shape.dim][1:] or [1]
            reshape = "" if len(tensor.shape.dim) > 1 else "\n  reshape { shape: [ ] }"
            blocks.append(
                f'{kind} {{\n  name: "{value.name}"\n  data_type: {_TRITON_TYPES[tensor.elem_type]}\n'
                f"  dims: [ {', '.join(map(str, dims))} ]{reshape}\n}}"
            )
    header = f'name: "{folder.name}"\nplatform: "onnxruntime_onnx"\nmax_batch_size: {_MAX_BATCH}\n'
    (folder / "config.pbtxt").write_text(header + "\n".join(blocks) + "\ndynamic_batching { }\n")
    (folder / "1").mkdir()
    (folder / "1" / "model.onnx").write_bytes(contents[MODEL])
    (folder / "tokenizer.json").write_bytes(contents[TOKENIZER])
