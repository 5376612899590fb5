"""The networks of static routers: token table and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ...routers.bundle import Truncation
from ...routers.decision import Floats
from ...routers.query import Query
from ...routers.tokenizer import encode
from ..export.gate import TorchQuality
from ..export.to_onnx import embedding_sum
from .static import StaticEncoder, tokenize

#: Names of a router graph's outputs, in their order.
OUTPUTS = ("quality", "novelty", "vector")
#: The tensors of these outputs, as a forward pass returns them.
Outputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class StaticNetwork(nn.Module):
    """Token table and pooling, which every static router shares, in training, parity gate and export.

    Subclasses add the head. Their ``forward`` takes ``input_ids`` int32 (n, length) and ``attention_mask`` uint8
    (n, length). It returns the tensors that `OUTPUTS` names: ``quality`` (n, m), ``novelty`` (n,), ``vector`` (n, k).
    """

    table: torch.Tensor
    gain: torch.Tensor
    centroids: torch.Tensor
    one: torch.Tensor
    projection: torch.Tensor
    projection_offset: torch.Tensor

    def __init__(self, encoder: StaticEncoder, epsilon: float) -> None:
        """Make a network over an encoder.

        Args:
            encoder: the token table.
            epsilon: added to the variance of a query's vector over the dimensions. It bounds the inverse length of an
                empty query.
        """
        super().__init__()
        self.epsilon = epsilon
        self.register_buffer("table", torch.from_numpy(encoder.table))
        self.register_buffer("gain", torch.full((encoder.dimensions,), encoder.dimensions**-0.5))
        self.register_buffer("centroids", torch.zeros(1, encoder.dimensions))
        self.register_buffer("one", torch.ones(1))
        self.register_buffer("projection", torch.zeros(encoder.dimensions, 1))
        self.register_buffer("projection_offset", torch.zeros(1))

    def normalised(self, total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors (n, d) and inverse standard deviations (n, 1) of sums of token vectors (n, d)."""
        unit, _, inverse = torch.native_layer_norm(total, [total.shape[1]], self.gain, None, self.epsilon)
        return unit, inverse

    def features(self, total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors (n, d) and features [unit vector; -log norm] (n, d + 1) of sums of token vectors (n, d)."""
        unit, inverse = self.normalised(total)
        return unit, torch.cat([unit, inverse.log()], dim=1)

    def encoded(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors (n, d) and features (n, d + 1) of token ids (n, length) with their mask."""
        return self.features(embedding_sum(self.table, input_ids, attention_mask))

    def novelty(self, unit: torch.Tensor) -> torch.Tensor:
        """Distance of unit vectors (n, d) from the nearest centroid, 1 - cosine: (n,)."""
        # One product and one reduction, because each node of the graph costs a single query time.
        return torch.addmm(self.one, unit, self.centroids.T, alpha=-1).amin(dim=1)

    def sketch(self, vectors: torch.Tensor) -> torch.Tensor:
        """The few numbers (n, k) that drift is measured on, from the vectors (n, d) that the head reads."""
        return torch.addmm(self.projection_offset, vectors, self.projection)


def epsilon_of(total: torch.Tensor) -> float:
    """A tenth of the smallest variance among the queries' sums (n, d): too little to change any of them."""
    variance = total.var(dim=1, correction=0)
    return float(variance[variance > 0].min()) / 10 if (variance > 0).any() else 1.0


def token_sums(queries: Sequence[Query], encoder: StaticEncoder, truncation: Truncation) -> torch.Tensor:
    """Sum of the table's rows of every query, float32 (n, d), exactly as the graph computes it."""
    ids, lengths = tokenize(queries, encoder.backend(), truncation)
    starts = np.cumsum(lengths) - lengths
    table = torch.from_numpy(encoder.table).float()  # integers up to 2**24 are exact in float32
    tokens = torch.from_numpy(ids.astype(np.int64))
    return torch.nn.functional.embedding_bag(tokens, table, torch.from_numpy(starts), mode="sum")


@dataclass(frozen=True)
class EncodedQueries:
    """Queries as a static encoder reads them.

    Attributes:
        encoder: the token table.
        truncation: how much of a query is read.
        epsilon: added to the variance of a query's vector over the dimensions.
        unit: float32 (n, d), unit vectors of the n queries.
        features: float32 (n, d + 1), the unit vector and -log norm.
    """

    encoder: StaticEncoder
    truncation: Truncation
    epsilon: float
    unit: torch.Tensor
    features: torch.Tensor


def encode_queries(
    queries: Sequence[Query], encoder: StaticEncoder, truncation: Truncation, epsilon: float | None = None
) -> EncodedQueries:
    """Encode queries.

    Args:
        queries: n queries.
        encoder: the token table.
        truncation: how much of a query is read.
        epsilon: added to the variance of a query's vector over the dimensions. None takes a value that is too small to
            change any of these queries.
    """
    total = token_sums(queries, encoder, truncation)
    epsilon = epsilon_of(total) if epsilon is None else epsilon
    with torch.no_grad():
        unit, features = StaticNetwork(encoder, epsilon).features(total)
    return EncodedQueries(encoder=encoder, truncation=truncation, epsilon=epsilon, unit=unit, features=features)


def example_inputs() -> list[torch.Tensor]:
    """Examples of both inputs, with which the exporter traces the network."""
    return [torch.ones(2, 3, dtype=torch.int32), torch.ones(2, 3, dtype=torch.uint8)]


def static_quality(network: StaticNetwork, encoder: StaticEncoder, truncation: Truncation) -> TorchQuality:
    """Quality (n, m) of texts by torch, one text at a time: what the graph must reproduce, however it batches."""
    backend = encoder.backend()

    def quality(texts: list[str]) -> Floats:
        rows = []
        with torch.no_grad():
            for text in texts:
                ids = np.unique(truncation.kept(encode(backend, [text])[0]))
                mask = torch.full((1, max(1, len(ids))), int(len(ids) > 0), dtype=torch.uint8)
                padded = torch.from_numpy(ids if len(ids) else np.zeros(1, np.int32)).reshape(1, -1)
                rows.append(network(padded, mask)[0].numpy())
        return np.concatenate(rows)

    return quality
