"""The general part of a router as a graph of its own: the router reads queries by another encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...routers.decision import Floats
from ...routers.query import Query
from ..encoders.general_part import GeneralPart
from ..encoders.static_network import EncodedQueries, add_pooling, encode_queries
from ..export.gate import NetworkQuality
from ..export.graph_builder import GraphBuilder
from ..export.publish import ExportedCompanion


@dataclass(frozen=True)
class GeneralCompanion:
    """The general part of a router, with the encoder that it reads queries by.

    Attributes:
        part: the general qualities, and how much they count.
        encoded: the queries of the training, with this encoder.
    """

    part: GeneralPart
    encoded: EncodedQueries

    def beside(self, by_network: NetworkQuality) -> NetworkQuality:
        """The blended quality of queries, from the quality by the network of the router."""

        def quality(queries: Sequence[Query]) -> Floats:
            known = self.encoded
            read = encode_queries(queries, known.encoder, known.truncation, known.epsilon)
            return self.part.blended(by_network(queries), read.features, read.unit)

        return quality

    def export(self) -> ExportedCompanion:
        """The graph, with the outputs ``quality`` (n, m) and ``share`` (n,), and what reads queries for it."""
        known, graph = self.encoded, GraphBuilder()
        pooled = add_pooling(graph, known.encoder.table, known.epsilon)
        self.part.add_quality(graph, pooled.features(graph), "quality")
        graph.node("Squeeze", self.part.add_share(graph, pooled.unit), graph.axes(1), output="share")
        model = graph.model({"quality": ("batch", len(self.part.bias)), "share": ("batch",)})
        return ExportedCompanion(model, known.encoder.tokenizer_json, known.truncation)
