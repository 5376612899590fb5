"""The network of a router with a transformer: what the recipes bert and frozen export."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...routers.bundle import Truncation
from ...routers.decision import Floats
from ...routers.query import Query
from ...routers.tokenizer import HuggingFaceBackend, encode
from ..export.gate import NetworkQuality
from ..export.int8 import CALIBRATION_QUERIES, quantised
from ..export.to_onnx import export_onnx
from ..fit.drift_reference import Projection
from .static import tokenize
from .transformer import TOKENS_PER_RUN, Backbone, TokenIds, padded

#: Names of a router graph's outputs, in their order.
OUTPUTS = ("quality", "novelty", "vector")
#: The tensors of these outputs, as a forward pass returns them.
Outputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class TransformerNetwork(nn.Module):
    """The exported network: token ids and mask, int64 (n, length), to the tensors that `OUTPUTS` names."""

    centroids: torch.Tensor
    projection: torch.Tensor
    projection_offset: torch.Tensor

    def __init__(
        self, backbone: Backbone, head: nn.Module, centroids: npt.NDArray[np.float32], projection: Projection
    ) -> None:
        """Put a head for the exported models in the place of the backbone's head.

        Args:
            backbone: the transformer with its pooling.
            head: unit vectors (n, d) to calibrated utilities (n, m).
            centroids: unit vectors (c, d) of clusters of training queries, for the novelty.
            projection: from unit vectors to the few numbers that drift is measured on.
        """
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("centroids", torch.from_numpy(centroids))
        self.register_buffer("projection", torch.from_numpy(projection[0]))
        self.register_buffer("projection_offset", torch.from_numpy(projection[1]))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Outputs:
        """Quality (n, m), novelty (n,) and vector (n, k)."""
        pooled = self.backbone.pooled(input_ids, attention_mask)
        quality, novelty = torch.sigmoid(self.head(pooled)), (1 - pooled @ self.centroids.T).amin(dim=1)
        return quality, novelty, pooled @ self.projection + self.projection_offset


def token_rows(queries: Sequence[Query], tokenizer_json: bytes, truncation: Truncation) -> list[TokenIds]:
    """Token ids of each of n queries, with special tokens, truncated."""
    flat, lengths = tokenize(queries, HuggingFaceBackend(tokenizer_json, True), truncation)
    return np.split(flat, np.cumsum(lengths)[:-1])


def torch_quality(network: nn.Module, tokenizer_json: bytes, truncation: Truncation) -> NetworkQuality:
    """Quality (n, m) of queries by torch, one at a time: what the graph must reproduce, however it batches."""
    backend = HuggingFaceBackend(tokenizer_json, True)

    def quality(queries: Sequence[Query]) -> Floats:
        rows = []
        with torch.no_grad():
            for query in queries:
                ids = truncation.kept(encode(backend, [truncation.read(query).text])[0])
                rows.append(network(*padded([ids]))[0].numpy())
        return np.concatenate(rows)

    return quality


def quantised_network(network: nn.Module, ids: Sequence[TokenIds]) -> nn.Module:
    """The network in int8, calibrated on the first of the training queries, whose token ids are given."""
    # One query at a time, because padding is not an input of the calibration queries.
    calibration = [padded([row]) for row in ids[:CALIBRATION_QUERIES]]
    return quantised(network, lambda module: [module(*one) for one in calibration])


def export_network(network: nn.Module, outputs: Sequence[str] = OUTPUTS) -> bytes:
    """The network, float32 or int8, as an ONNX graph with these outputs."""
    # Two separate tensors: if one tensor is passed twice, the exporter makes one input of it.
    inputs = [torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64)]
    return export_onnx(network, inputs, outputs, {"tokens_per_run": str(TOKENS_PER_RUN)})
