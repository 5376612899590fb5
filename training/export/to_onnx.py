"""From torch to ONNX: one exporter for every network, and integer operations that torch cannot express."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from onnxscript import opset20 as op
from torch import nn

from ...routers.errors import ExportError
from .graph_builder import FLOAT, OPSET
from .int8_steps import LARGEST_INPUT, SMALLEST, ZERO

#: Number of a data type in onnx.TensorProto.
UINT8 = 2
#: The operators of the opset. They are typed as Any, because their annotations do not fit symbolic values.
symbols: Any = op


@torch.library.custom_op("routelearn::int8_linear", mutates_args=())
def int8_linear(values: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Multiply by an int8 weight matrix; each row of the input is rounded to 8 bits with its own scale.

    `onnxruntime.quantization.quantize_dynamic` takes one scale for the whole batch. With one scale for each row, the
    answer to a query depends neither on the other queries of the batch nor on padding.

    Args:
        values: float32 (..., k).
        weight: int8 (k, m). Where its elements lie within -64..63, a sum of two products fits 16 bits, and the product
            is exact without VNNI as well.
        scale: float32 (m,); the matrix stands for ``weight * scale``.

    Returns:
        The products, float32 (..., m).
    """
    step = values.abs().amax(-1, keepdim=True).clamp_min(SMALLEST) / LARGEST_INPUT
    rounded = torch.round(values / step)
    return (rounded @ weight.float()) * step * scale  # float32 is exact up to 2**24


@int8_linear.register_fake
def _(values: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    del scale
    return values.new_empty((*values.shape[:-1], weight.shape[1]))


def _int8_linear_onnx(values: Any, weight: Any, scale: Any) -> Any:
    # The values as a matrix of tokens: QuantizeLinear divides, rounds and shifts its rows in one pass. This is a tenth
    # to a fifth faster than the three steps one after the other (measured).
    last: Any = symbols.Constant(value_ints=[-1])
    rows = symbols.Reshape(values, symbols.Concat(last, symbols.Shape(weight, start=0, end=1), axis=0))
    largest = symbols.ReduceMax(symbols.Abs(rows), last, keepdims=0)
    step = symbols.Div(
        symbols.Max(largest, symbols.Constant(value_float=SMALLEST)), symbols.Constant(value_float=float(LARGEST_INPUT))
    )
    zero = symbols.Cast(symbols.Constant(value_int=ZERO), to=UINT8)
    rounded = symbols.QuantizeLinear(rows, step, symbols.Expand(zero, symbols.Shape(step)), axis=0)
    total = symbols.Cast(symbols.MatMulInteger(rounded, weight, zero), to=FLOAT)
    result = symbols.Mul(symbols.Mul(total, scale), symbols.Unsqueeze(step, last))
    shape = symbols.Concat(symbols.Shape(values, start=0, end=-1), symbols.Shape(weight, start=1, end=2), axis=0)
    return symbols.Reshape(result, shape)


_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.routelearn.int8_linear.default: _int8_linear_onnx,
}


def export_onnx(
    network: nn.Module,
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[str],
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Export a network whose inputs are ``input_ids`` and ``attention_mask``, both (n, length).

    Args:
        network: the network in evaluation mode.
        inputs: an example of both inputs, with n >= 2 and length >= 2. A third input, where there is one, is
            ``features`` (n, k).
        outputs: names of the outputs.
        metadata: hints for the session, for instance ``rows_per_run`` and ``tokens_per_run``, the most that one run of
            the graph should get.

    Returns:
        The ONNX model. It is one self-contained file, dynamic in n and length.

    Raises:
        ExportError: torch returned no graph.
    """
    names = ("input_ids", "attention_mask", "features")[: len(inputs)]
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    with _quiet():
        program = torch.onnx.export(
            network,
            tuple(inputs),
            dynamo=True,
            input_names=list(names),
            output_names=list(outputs),
            dynamic_shapes={name: {0: batch} if name == "features" else {0: batch, 1: length} for name in names},
            external_data=False,
            opset_version=OPSET,
            custom_translation_table=_TRANSLATIONS,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned no program")
    model = program.model_proto
    _strip(model)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    return bytes(model.SerializeToString(deterministic=True))


def _strip(model: Any) -> None:
    """Remove what is not part of the computation: stack traces with paths of this machine, and unused constants."""
    model.doc_string = ""
    del model.metadata_props[:]
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]
    for item in [*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output]:
        item.doc_string = ""
        del item.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and its warnings about absent torchvision off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
