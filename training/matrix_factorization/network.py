"""The network of the matrix factorization: utilities linear in a query's vector, and an expert on tasks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...routers.decision import Floats
from ..encoders.static import StaticEncoder
from ..encoders.static_network import PooledNodes, StaticNetwork, features_of
from ..export.graph_builder import GraphBuilder
from ..fit.factorization import Array, sigmoid
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

    def add_quality(self, graph: GraphBuilder, pooled: PooledNodes) -> int:
        """Add the nodes that compute the output ``quality``; return the number of models."""
        features = pooled.features(graph)
        names = graph.constant("weight", self.weight), graph.constant("bias", self.bias)
        utilities = graph.node("Gemm", features, *names)
        if self.expert is not None:
            utilities = graph.node("Add", utilities, self.expert.add_utilities(graph, features))
        graph.node("Sigmoid", utilities, output="quality")
        return len(self.bias)


@dataclass(frozen=True)
class Standard:
    """Mean and scale that bring the log norm to the size of a vector's entries.

    Attributes:
        mean: mean of the last feature, the log norm.
        factor: the last feature is multiplied by it.
    """

    mean: float
    factor: float

    @classmethod
    def of(cls, features: Array, scale: float) -> Standard:
        """The standard of features float64 (n, d + 1), where one standard deviation of the log norm becomes `scale`."""
        spread = float(features[:, -1].std())
        return cls(mean=float(features[:, -1].mean()), factor=scale / spread if spread > 1e-6 else 0.0)

    def apply(self, features: Array) -> Array:
        """Features (n, d + 1) with the log norm standardised."""
        length = (features[:, -1:] - self.mean) * self.factor
        return np.concatenate([features[:, :-1], length], axis=1)

    def fold(self, weight: npt.NDArray[np.floating], bias: npt.NDArray[np.floating]) -> tuple[Array, Array]:
        """Weight and bias on plain features that do what the given ones do on standardised features."""
        length = weight[-1:] * self.factor
        folded = np.concatenate([weight[:-1], length]).astype(np.float64)
        return folded, np.asarray(bias - length[0] * self.mean, np.float64)
