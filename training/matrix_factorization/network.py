"""The network of the matrix factorization: utilities linear in a query's vector, and an expert on tasks."""

from __future__ import annotations

import numpy as np

from ...routers.base import sigmoid
from ...routers.decision import Floats
from ..encoders.static import StaticEncoder
from ..encoders.static_network import PooledNodes, StaticNetwork, features_of
from ..export.graph_builder import GraphBuilder
from ..fit.factorization import Array
from .tasks import TaskExpert


class MatrixFactorization(StaticNetwork):
    """A static network whose head is linear in the features.

    Attributes:
        weight: float32 (d + 1, m), calibrated.
        bias: float32 (m,), calibrated.
        expert: adds utilities by task; None where tasks do not help.
    """

    sketches_features = True

    def __init__(
        self, encoder: StaticEncoder, epsilon: float, weight: Array, bias: Array, expert: TaskExpert | None = None
    ) -> None:
        """Make a network; the weights are kept in float32."""
        super().__init__(encoder, epsilon)
        self.weight, self.bias = weight.astype(np.float32), bias.astype(np.float32)
        self.expert = expert

    def quality(self, total: Floats) -> Floats:
        """Quality (n, m) of queries, from the sums of their token vectors (n, d)."""
        features = features_of(total, self.epsilon)[1]
        utilities = features @ self.weight + self.bias
        if self.expert is not None:
            utilities = utilities + self.expert.utilities(features)
        return sigmoid(utilities).astype(np.float32)

    def add_quality(self, graph: GraphBuilder, pooled: PooledNodes, output: str) -> int:
        """Add the nodes that compute the quality, under that name; return the number of models."""
        features = pooled.features(graph)
        names = graph.constant("weight", self.weight), graph.constant("bias", self.bias)
        utilities = graph.node("Gemm", features, *names)
        if self.expert is not None:
            utilities = graph.node("Add", utilities, self.expert.add_utilities(graph, features))
        graph.node("Sigmoid", utilities, output=output)
        return len(self.bias)
