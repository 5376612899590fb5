"""The features of static routers, with the log norm brought to the size of the other features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .minimise import Array

#: One standard deviation of log |v| becomes this much, beside the entries of a unit vector.
LENGTH_SCALE = 0.3


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
