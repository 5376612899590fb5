"""The network of the general router: slope and intercept, linear in a query's vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...routers.decision import Floats
from ...routers.placement import quality_of
from ..encoders.static import StaticEncoder
from ..encoders.static_network import PooledNodes, StaticNetwork, features_of
from ..export.graph_builder import GraphBuilder
from ..fit.minimise import Array


class GeneralNetwork(StaticNetwork):
    """A static network whose head predicts an item: the slope and the intercept of the item response model.

    Attributes:
        weight: float32 (d + 1, 2).
        bias: float32 (2,).
        abilities: float32 (m,), of the models whose qualities the graph itself computes.
    """

    sketches_features = True
    further_outputs: Mapping[str, Sequence[int | str]] = {"item": ("batch", 2)}

    def __init__(self, encoder: StaticEncoder, epsilon: float, weight: Array, bias: Array, abilities: Array) -> None:
        """Make a network; the weights are kept in float32."""
        super().__init__(encoder, epsilon)
        self.weight, self.bias = weight.astype(np.float32), bias.astype(np.float32)
        self.abilities = abilities.astype(np.float32)

    def quality(self, total: Floats) -> Floats:
        """Quality (n, m) of queries, from the sums of their token vectors (n, d)."""
        items = features_of(total, self.epsilon)[1] @ self.weight + self.bias
        return np.asarray(quality_of(items, self.abilities), np.float32)

    def add_quality(self, graph: GraphBuilder, pooled: PooledNodes, output: str) -> int:
        """Add the nodes that compute ``item`` and the quality, under that name; return the number of models."""
        names = graph.constant("weight", self.weight), graph.constant("bias", self.bias)
        item = graph.node("Gemm", pooled.features(graph), *names, output="item")
        abilities = np.stack([self.abilities, np.ones_like(self.abilities)])
        graph.node("Sigmoid", graph.node("MatMul", item, graph.constant("abilities", abilities)), output=output)
        return len(self.abilities)
