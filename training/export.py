"""torch to ONNX, behind a parity gate: the graph reproduces the network, or there is no bundle."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from onnxscript import opset18 as op
from torch import nn

from ..routers.base import Floats, Link, win_rate
from ..routers.errors import ExportError
from ..routers.session import Session

#: Largest |difference of scores| between torch and the exported graph, float32.
PARITY_TOLERANCE = 1e-4
OPSET = 18
FLOAT = 1  # onnx.TensorProto.FLOAT
symbols: Any = op  # its annotations do not fit symbolic values


@torch.library.custom_op("routelearn::embedding_sum", mutates_args=())
def embedding_sum(table: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Sum of the rows of an int8 table that a masked batch of ids names.

    Args:
        table: int8 (vocabulary, d).
        ids: int32 (n, length).
        mask: uint8 (n, length), 1 where a token counts.

    Returns:
        float32 (n, d). The sum is taken over integers, so that it does not depend on order, batch or padding.
    """
    rows = table[ids.long()].to(torch.int32)
    return (rows * mask.to(torch.int32).unsqueeze(-1)).sum(1).to(torch.float32)


@embedding_sum.register_fake
def _(table: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    del mask
    return table.new_empty((ids.shape[0], table.shape[1]), dtype=torch.float32)


def _embedding_sum_onnx(table: Any, ids: Any, mask: Any) -> Any:
    # MatMulInteger sums with the processor's int8 instructions: measured 2 to 8 times faster
    # than casting the gathered rows and summing them.
    axis: Any = symbols.Constant(value_ints=[1])
    total = symbols.MatMulInteger(symbols.Unsqueeze(mask, axis), symbols.Gather(table, ids))
    return symbols.Cast(symbols.Squeeze(total, axis), to=FLOAT)


_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.routelearn.embedding_sum.default: _embedding_sum_onnx,
}


def export_onnx(network: nn.Module, inputs: Sequence[torch.Tensor], outputs: Sequence[str]) -> bytes:
    """Export a network whose inputs are ``input_ids`` and ``attention_mask``, both (n, length).

    Args:
        network: in evaluation mode.
        inputs: an example of both inputs, n >= 2 and length >= 2.
        outputs: names of the outputs.

    Returns:
        The ONNX model, self-contained, dynamic in n and length.
    """
    names = ("input_ids", "attention_mask")
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    with _quiet():
        program = torch.onnx.export(
            network,
            tuple(inputs),
            dynamo=True,
            input_names=list(names),
            output_names=list(outputs),
            dynamic_shapes={name: {0: batch, 1: length} for name in names},
            external_data=False,
            opset_version=OPSET,
            custom_translation_table=_TRANSLATIONS,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned no program")
    model = program.model_proto
    _strip(model)
    return bytes(model.SerializeToString(deterministic=True))


def _strip(model: Any) -> None:
    """Drop what is not the computation: stack traces with paths of this machine, unused constants."""
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


def check_parity(
    reference: Callable[[list[str]], Floats],
    session: Session,
    texts: list[str],
    link: Link,
    columns: tuple[int, int],
) -> Mapping[str, float]:
    """Refuse a graph that does not reproduce the network, batched and single alike.

    Args:
        reference: texts to quality (n, m), by torch.
        session: the exported graph with its tokenizer.
        texts: n texts to compare on; a hundred of them also one at a time.
        link: how a score follows from two qualities.
        columns: of strong and weak.

    Returns:
        ``parity_batched`` and ``parity_single``: the largest |difference| of a quality or a score.

    Raises:
        ExportError: a difference exceeds `PARITY_TOLERANCE`.
    """
    expected = reference(texts)
    singles = texts[:: max(1, len(texts) // 100)]
    measured = {
        "parity_batched": _difference(expected, session.run(texts)[0]["quality"], link, columns),
        "parity_single": _difference(
            reference(singles),
            np.concatenate([session.run([text])[0]["quality"] for text in singles]),
            link,
            columns,
        ),
    }
    worst = max(measured.values())
    if not worst <= PARITY_TOLERANCE:  # written so that NaN is refused as well
        raise ExportError(f"the exported graph differs from the network by {worst:.2g}, over {PARITY_TOLERANCE:.0e}")
    return measured


def _difference(expected: Floats, actual: Floats, link: Link, columns: tuple[int, int]) -> float:
    strong, weak = columns
    scores = [win_rate(quality[:, strong], quality[:, weak], link) for quality in (expected, actual)]
    return float(max(np.abs(expected - actual).max(), np.abs(scores[0] - scores[1]).max()))
