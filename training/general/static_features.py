"""The general recipe on a static encoder: sums of token vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...routers.bundle import Truncation
from ...routers.decision import Floats
from ...routers.query import Query
from ..encoders.static import static_encoder
from ..encoders.static_network import encode_queries, static_quality
from ..export.gate import parity_gate
from ..fit.minimise import Array
from ..fit.standard import LENGTH_SCALE, Standard
from .config import GeneralConfig
from .features import Exported, LinearHead, OnQueries, nothing
from .network import GeneralNetwork


class StaticFeatures:
    """Features of a static encoder: unit vector and standardised -log norm of the sum of the tokens' vectors."""

    def __init__(self, config: GeneralConfig) -> None:
        """Read the encoder."""
        self.encoder = static_encoder(config.encoder)
        self.truncation = Truncation(max_tokens=config.max_tokens, distinct=True)
        self.tokenizer_json = self.encoder.tokenizer_json
        self.fingerprint = self.encoder.fingerprint
        self._epsilon: float | None = None
        self._standard = Standard(0.0, 1.0)

    def learn(self, queries: Sequence[Query], on_queries: OnQueries = nothing) -> tuple[Array, Floats]:
        encoded = encode_queries(queries, self.encoder, self.truncation)
        on_queries(len(queries))
        features = encoded.features.astype(np.float64)
        self._epsilon, self._standard = encoded.epsilon, Standard.of(features, LENGTH_SCALE)
        return self._standard.apply(features), encoded.unit

    def of(self, queries: Sequence[Query]) -> Array:
        encoded = encode_queries(queries, self.encoder, self.truncation, self._epsilon)
        return self._standard.apply(encoded.features.astype(np.float64))

    def export(
        self, head: LinearHead, queries: Sequence[Query], held_out: npt.NDArray[np.bool_], seed: int
    ) -> Exported:
        del held_out, seed  # for int8 transformers
        assert self._epsilon is not None
        network = GeneralNetwork(
            self.encoder, self._epsilon, *self._standard.fold(head.weight, head.bias), head.abilities
        )
        network.centroids = head.centroids
        project, offset = self._standard.fold(*head.projection)
        network.projection = project.astype(np.float32), offset.astype(np.float32)
        by_network = static_quality(network, self.encoder, self.truncation)
        return Exported(network.export(), parity_gate(by_network, queries))
