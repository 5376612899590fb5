"""What the recipes bert and frozen share: the exported network of a router with a transformer, and its bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...routers.base import Floats
from ...routers.bundle import Truncation
from ...routers.query import Query
from ...routers.tokenizer import HuggingFaceBackend, encode
from ..examples import Examples
from ..export.gate import Gate, TorchQuality, decision_gate, parity_gate
from ..export.int8 import CALIBRATION_QUERIES, GATE_QUERIES, golden_tolerance, quantised
from ..export.to_onnx import export_onnx
from ..fit.drift_reference import Projection, projection_of
from ..fit.metrics import Array
from ..fit.novelty import centroids_of, held_out_novelty
from ..pipeline import Job, Settled, finish
from .config import TransformerRouterConfig
from .static import tokenize
from .static_network import OUTPUTS, Outputs
from .transformer import TOKENS_PER_RUN, Backbone, TokenIds, padded

#: Training queries that the parity gate compares; a transformer takes some ten milliseconds for each.
PARITY_TEXTS = 300


class TransformerNetwork(nn.Module):
    """The exported network: token ids and mask, int64 (n, length), to the tensors that `OUTPUTS` names."""

    centroids: torch.Tensor
    projection: torch.Tensor
    projection_offset: torch.Tensor

    def __init__(
        self, backbone: Backbone, head: nn.Module, centroids: npt.NDArray[np.float32], projection: Projection
    ) -> None:
        """Put a head for the exported models in the place of the backbone's own head.

        Args:
            backbone: the transformer with its pooling.
            head: unit vectors (n, d) to calibrated utilities (n, m).
            centroids: unit vectors (c, d) of the training queries' clusters, for the novelty.
            projection: from unit vectors to the few numbers that drift is measured on.
        """
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("centroids", torch.from_numpy(centroids))
        self.register_buffer("projection", projection[0])
        self.register_buffer("projection_offset", projection[1])

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Outputs:
        """Quality (n, m), novelty (n,) and vector (n, k)."""
        pooled = self.backbone.pooled(input_ids, attention_mask)
        quality, novelty = torch.sigmoid(self.head(pooled)), (1 - pooled @ self.centroids.T).amin(dim=1)
        return quality, novelty, pooled @ self.projection + self.projection_offset


@dataclass(frozen=True)
class HeadFit:
    """The fitted head of a router, and what its held-out queries say.

    Attributes:
        head: unit vectors (n, d) to calibrated utilities of the exported models.
        settled: calibration, thresholds and metrics from held-out queries.
        rows: int64 (k,), rows of the queries whose vectors are known; those of the first fold are among them.
        vectors: float32 (k, d), the vectors of these queries.
        scores: scores of held-out queries by heads that were fitted without them. None where the exported head itself
            was fitted without them.
    """

    head: nn.Module
    settled: Settled
    rows: npt.NDArray[np.int64]
    vectors: torch.Tensor
    scores: Floats | None


def truncation_of(config: TransformerRouterConfig) -> Truncation:
    """How much of a query a router with these settings reads."""
    return Truncation(
        max_tokens=config.max_tokens,
        last_tokens=round(config.max_tokens * config.last_share),
        special_tokens=True,
    )


def token_rows(queries: Sequence[Query], tokenizer_json: bytes, truncation: Truncation) -> list[TokenIds]:
    """Token ids of each of n queries, with special tokens, truncated."""
    flat, lengths = tokenize(queries, HuggingFaceBackend(tokenizer_json, True), truncation)
    return np.split(flat, np.cumsum(lengths)[:-1])


def publish_network(
    job: Job,
    config: TransformerRouterConfig,
    backbone: Backbone,
    fit: HeadFit,
    *,
    kind: str,
    ids: Sequence[TokenIds],
    tokenizer_json: bytes,
    truncation: Truncation,
    fold: npt.NDArray[np.bool_],
) -> Path:
    """Export a fitted router, in float32 or int8, and write its bundle.

    Args:
        job: the training run.
        config: its settings.
        backbone: the transformer with its pooling.
        fit: the fitted head.
        kind: kind of the router, as the manifest names it.
        ids: token ids of the training queries.
        tokenizer_json: bytes of the tokenizer.
        truncation: how much of a query is read.
        fold: bool (n,), held-out queries; novelty is measured on them.

    Returns:
        The bundle's folder.

    Raises:
        ExportError: the exported graph does not reproduce the network, or int8 decides otherwise.
    """
    examples = job.examples
    vectors = fit.vectors.numpy()
    held_out = (fold & examples.own_queries())[fit.rows]
    projection = projection_of(fit.vectors[torch.from_numpy(held_out)])
    network: nn.Module = TransformerNetwork(backbone, fit.head, centroids_of(vectors, config.seed), projection).eval()
    by_torch = torch_quality(network, HuggingFaceBackend(tokenizer_json, True), truncation)
    if config.quantise == "int8":
        gate = _int8_gate(by_torch, examples, fold, truncation, fit.settled)
        network = quantised_network(network, ids)
    else:
        gate = parity_gate(by_torch, examples.queries, truncation, PARITY_TEXTS)
    # Two separate tensors: if one tensor is passed twice, the exporter makes one input of it.
    inputs = [torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64)]
    return finish(
        job,
        config,
        fit.settled,
        kind=kind,
        model=export_onnx(network, inputs, OUTPUTS, {"tokens_per_run": str(TOKENS_PER_RUN)}),
        tokenizer_json=tokenizer_json,
        truncation=truncation,
        gate=gate,
        fold=fold,
        novelties=held_out_novelty(vectors, fold[fit.rows], config.seed),
        unfitted=fold,
        scores=fit.scores,
        golden_tolerance=golden_tolerance(config.quantise),
    )


def torch_quality(network: nn.Module, backend: HuggingFaceBackend, truncation: Truncation) -> TorchQuality:
    """Quality (n, m) of texts by torch, one text at a time: what the graph must reproduce, however it batches."""

    def quality(texts: list[str]) -> Floats:
        rows = []
        with torch.no_grad():
            for text in texts:
                ids = truncation.kept(encode(backend, [text])[0])
                rows.append(network(*padded([ids]))[0].numpy())
        return np.concatenate(rows)

    return quality


def quantised_network(network: nn.Module, ids: Sequence[TokenIds]) -> nn.Module:
    """The network in int8, calibrated on the first of the training queries, whose token ids are given."""
    # One query at a time, because padding is no input of the calibration queries.
    calibration = [padded([row]) for row in ids[:CALIBRATION_QUERIES]]
    return quantised(network, lambda module: [module(*one) for one in calibration])


def _int8_gate(
    by_torch: TorchQuality,
    examples: Examples,
    held_out: npt.NDArray[np.bool_],
    truncation: Truncation,
    settled: Settled,
) -> Gate:
    """The gate of the int8 graph, on `GATE_QUERIES` training queries, held-out ones first."""
    rows = np.concatenate([np.flatnonzero(held_out), np.flatnonzero(~held_out)])[:GATE_QUERIES]
    columns = [settled.columns[settled.names.index(name)] for name in (settled.strong, settled.weak)]
    strong, weak = (_scores_of(examples, column)[rows] for column in columns)
    return decision_gate(by_torch, [examples.queries[row] for row in rows], truncation, (strong, weak))


def _scores_of(examples: Examples, column: int) -> Array:
    """Scores of one model's answers, float64 (n,), NaN where unknown."""
    part = examples.performances
    scores = np.full(len(examples.queries), np.nan)
    answered = part.model[:, 0] == column
    scores[part.query[answered]] = part.target[answered]
    return scores
