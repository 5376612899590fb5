"""The network of the matrix factorization: utilities linear in a query's vector, and an expert on tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..encoders.static import StaticEncoder
from ..encoders.static_network import Outputs, StaticNetwork
from .tasks import TaskExpert


class MatrixFactorization(StaticNetwork):
    """A static network whose head is linear in the features.

    Attributes:
        weight: float32 (d + 1, m), calibrated.
        bias: float32 (m,), calibrated.
        expert: adds utilities by task; None where tasks do not help.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    expert: TaskExpert | None

    def __init__(self, encoder: StaticEncoder, epsilon: float) -> None:
        """Make a network whose head is still empty.

        Args:
            encoder: the token table.
            epsilon: added to the variance of a query's vector over the dimensions.
        """
        super().__init__(encoder, epsilon)
        self.expert = None
        self.register_buffer("weight", torch.zeros(encoder.dimensions + 1, 1))
        self.register_buffer("bias", torch.zeros(1))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Outputs:
        """Quality (n, m), novelty (n,) and vector (n, k) of token ids and their mask, (n, length) each."""
        unit, features = self.encoded(input_ids, attention_mask)
        utilities = torch.addmm(self.bias, features, self.weight)
        if self.expert is not None:
            utilities = utilities + self.expert(features)
        return torch.sigmoid(utilities), self.novelty(unit), self.sketch(features)


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
    def of(cls, features: torch.Tensor, scale: float) -> Standard:
        """The standard of features float64 (n, d + 1), where one standard deviation of the log norm becomes `scale`."""
        spread = float(features[:, -1].std(correction=0))
        return cls(mean=float(features[:, -1].mean()), factor=scale / spread if spread > 1e-6 else 0.0)

    def apply(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, d + 1) with the log norm standardised."""
        length = (features[:, -1:] - self.mean) * self.factor
        return torch.cat([features[:, :-1], length], dim=1)

    def fold(self, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias on plain features that do what the given ones do on standardised features."""
        length = weight[-1:] * self.factor
        return torch.cat([weight[:-1], length]), bias - length[0] * self.mean
