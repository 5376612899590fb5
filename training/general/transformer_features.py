"""The general recipe on a transformer that stays as it is: the mean of its hidden states, and the length of a query."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...routers.bundle import Truncation
from ...routers.decision import Floats
from ...routers.query import Query
from ..encoders.transformer import (
    Backbone,
    TokenIds,
    check_token_budget,
    chosen_precision,
    load_transformer,
    merged,
    predict,
)
from ..encoders.transformer_network import OUTPUTS, export_network, quantised_network, token_rows, torch_quality
from ..export.gate import decision_gate, parity_gate
from ..export.int8 import GATE_QUERIES, golden_tolerance
from ..fit.minimise import Array
from ..fit.standard import LENGTH_SCALE, Standard
from ..frozen.vector_cache import cached_vectors, fingerprint, read_vectors
from ..transformer_recipe import PARITY_TEXTS
from .config import GeneralConfig
from .features import Exported, LinearHead, OnQueries, nothing

#: Share of the token budget for the end of a query that is too long.
LAST_SHARE = 0.25


class TransformerFeatures:
    """Features of a transformer: the unit vector less the mean, as a unit vector, and the log number of tokens.

    What all queries share tells none apart, so that the mean is subtracted.
    """

    def __init__(self, config: GeneralConfig) -> None:
        """Load the transformer.

        Raises:
            InputError: it cannot be loaded, it has fewer layers or positions than the settings say, or the file of
                vectors holds something else.
            MissingExtraError: a library of the extra `transformers` is missing.
        """
        self._config = config
        transformer, pooling, self.tokenizer_json = load_transformer(config.encoder, layers=config.layers)
        check_token_budget(transformer, config.max_tokens, config.encoder)
        self._backbone = Backbone(merged(transformer), pooling, np.zeros(1), np.zeros((1, 1))).eval()
        self._file = None if config.vectors is None else Path(config.vectors)
        if self._file is not None:
            read_vectors(self._file, self._backbone.transformer)
        self.fingerprint = fingerprint(self._backbone.transformer)
        self.truncation = Truncation(
            max_tokens=config.max_tokens, last_tokens=round(config.max_tokens * LAST_SHARE), special_tokens=True
        )
        self._centre: Floats = np.zeros(0, np.float32)
        self._standard = Standard(0.0, 1.0)

    def learn(self, queries: Sequence[Query], on_queries: OnQueries = nothing) -> tuple[Array, Floats]:
        ids, vectors = self._encoded(queries, on_queries)
        self._centre = vectors.mean(axis=0)
        plain = self._plain(ids, vectors)
        self._standard = Standard.of(plain, LENGTH_SCALE)
        return self._standard.apply(plain), vectors

    def of(self, queries: Sequence[Query]) -> Array:
        return self._standard.apply(self._plain(*self._encoded(queries)))

    def export(
        self, head: LinearHead, queries: Sequence[Query], held_out: npt.NDArray[np.bool_], seed: int
    ) -> Exported:
        folded = self._standard.fold(head.weight, head.bias)
        projection = self._standard.fold(*head.projection)
        network: nn.Module = _Network(self._backbone, self._centre, folded, projection, head).eval()
        by_network = torch_quality(network, self.tokenizer_json, self.truncation)
        if self._config.quantise == "int8":
            order = np.random.default_rng(seed).permutation(len(queries))
            rows = np.concatenate([order[held_out[order]], order[~held_out[order]]])[:GATE_QUERIES]
            compared = [queries[row] for row in rows]
            unknown = np.full(len(compared), np.nan)
            gate = decision_gate(by_network, compared, (unknown, unknown))
            network = quantised_network(network, token_rows(compared, self.tokenizer_json, self.truncation))
        else:
            gate = parity_gate(by_network, queries, PARITY_TEXTS)
        graph = export_network(network, (*OUTPUTS, "item"))
        return Exported(graph, gate, golden_tolerance(self._config.quantise))

    def _encoded(self, queries: Sequence[Query], on_queries: OnQueries = nothing) -> tuple[list[TokenIds], Floats]:
        """Token ids and unit vectors (n, d) of n queries."""
        ids = token_rows(queries, self.tokenizer_json, self.truncation)
        precision = chosen_precision(self._config.precision)

        def compute(rows: Sequence[TokenIds]) -> torch.Tensor:
            return predict(self._backbone, rows, precision, on_queries)[1]

        vectors = cached_vectors(self._file, self._backbone.transformer, ids, compute)
        return ids, cast(Floats, vectors.numpy())

    def _plain(self, ids: Sequence[TokenIds], vectors: Floats) -> Array:
        """Features float64 (n, d + 1) before the length is standardised."""
        centred = (vectors - self._centre).astype(np.float64)
        centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
        lengths = np.log([max(1, len(row)) for row in ids])
        return np.concatenate([centred, lengths[:, None]], axis=1)


class _Network(nn.Module):
    """The exported network: token ids and mask, int64 (n, length), to quality, novelty, vector and item."""

    def __init__(
        self,
        backbone: Backbone,
        centre: Floats,
        folded: tuple[Array, Array],
        projection: tuple[Array, Array],
        head: LinearHead,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        arrays = {
            "centre": centre,
            "weight": folded[0],
            "bias": folded[1],
            "project": projection[0],
            "offset": projection[1],
            "abilities": np.stack([head.abilities, np.ones_like(head.abilities)]),
            "centroids": head.centroids.T,
        }
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array, np.float32)))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        buffers = dict(self.named_buffers(recurse=False))
        pooled = self.backbone.pooled(input_ids, attention_mask)
        lengths = attention_mask.sum(dim=1, keepdim=True).clamp_min(1).float().log()
        centred = nn.functional.normalize(pooled - buffers["centre"], dim=1)
        features = torch.cat([centred, lengths], dim=1)
        item = features @ buffers["weight"] + buffers["bias"]
        quality = torch.sigmoid(item @ buffers["abilities"])
        novelty = (1 - pooled @ buffers["centroids"]).amin(dim=1)
        return quality, novelty, features @ buffers["project"] + buffers["offset"], item
