"""What a general router adds to a trained router: its expected qualities, which count more for unfamiliar queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...routers.base import sigmoid
from ...routers.decision import Floats
from ..export.graph_builder import GraphBuilder


@dataclass(frozen=True)
class GeneralPart:
    """The general quality ``sigmoid(features · weight + bias)`` of each model, and its share.

    The quality of the router is ``(1 - share) · own + share · general``. With the unit vector x of the query the share
    is ``x · direction + offset``, cut to the range from `least` to 1. It rises where the query is unlike the labelled
    ones.

    Attributes:
        weight: float32 (d + 1, m).
        bias: float32 (m,).
        least: from 0 to 1.
        direction: float32 (d,).
        offset: a number.
    """

    weight: Floats
    bias: Floats
    least: float
    direction: Floats
    offset: float

    def quality(self, features: npt.NDArray[np.floating]) -> Floats:
        """The general quality (n, m) of queries with features (n, d + 1)."""
        return np.asarray(sigmoid(features @ self.weight + self.bias), np.float32)

    def share(self, unit: Floats) -> Floats:
        """The share (n,) of the general quality, from unit vectors (n, d)."""
        return np.clip(unit @ self.direction + self.offset, self.least, 1.0).astype(np.float32)

    def blended(self, own: Floats, features: npt.NDArray[np.floating], unit: Floats) -> Floats:
        """The quality (n, m) of the router, from its own quality (n, m)."""
        share = self.share(unit)[:, None]
        return np.asarray(own + share * (self.quality(features) - own), np.float32)

    def add_blended(self, graph: GraphBuilder, own: str, features: str, unit: str) -> None:
        """Add the nodes that compute the output ``quality`` from the router's own quality."""
        general = self.add_quality(graph, features)
        share = self.add_share(graph, unit)
        difference = graph.node("Sub", general, own)
        graph.node("Add", own, graph.node("Mul", share, difference), output="quality")

    def add_quality(self, graph: GraphBuilder, features: str, output: str | None = None) -> str:
        """Add the nodes that compute the general quality (n, m); return the name of the result."""
        names = graph.constant("general_weight", self.weight), graph.constant("general_bias", self.bias)
        return graph.node("Sigmoid", graph.node("Gemm", features, *names), output=output)

    def add_share(self, graph: GraphBuilder, unit: str) -> str:
        """Add the nodes that compute the share (n, 1) of the general quality; return the name of the result."""
        direction = graph.constant("share_direction", self.direction[:, None])
        rising = graph.node(
            "Gemm", unit, direction, graph.constant("share_offset", np.full(1, self.offset, np.float32))
        )
        return graph.node("Clip", rising, graph.scalar("least_share", self.least), graph.scalar("full_share", 1.0))
