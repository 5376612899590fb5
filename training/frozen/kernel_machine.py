"""A kernel machine on the vectors of a frozen transformer: utilities from a query's similarity to training queries.

A utility is ``sum over landmarks of weight · exp(scale · (cos(query, landmark) - 1))``, with a Gaussian kernel on unit
vectors. This machine is linear in the kernel's Nyström features (Williams and Seeger 2001), so that it shares losses,
path of penalties and calibration with the matrix factorization. On MMLU it routes better than the same encoder
fine-tuned.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..fit.factorization import Array

#: Directions of the landmarks' kernel matrix with a smaller eigenvalue are left out (the mean eigenvalue is 1). Any
#: penalty that generalises shrinks their weights to nothing.
_LEAST_EIGENVALUE = 0.1


class LandmarkKernel(nn.Module):
    """Maps unit vectors (n, d) to their kernel values with l landmarks, (n, l).

    Attributes:
        centre: (d,), mean of the training vectors. It is subtracted, because what all queries share tells none apart.
        landmarks: (d, l), unit vectors of training queries, less the centre.
        scale: factor of the exponent, 1 / (2 variance) of the Gaussian.
    """

    centre: torch.Tensor
    landmarks: torch.Tensor

    def __init__(self, vectors: torch.Tensor, count: int, scale: float, seed: int) -> None:
        """Draw at most `count` landmarks from the training vectors, float32 (n, d)."""
        super().__init__()
        self.scale = scale
        self.register_buffer("centre", vectors.mean(dim=0))
        rows = np.random.default_rng(seed).permutation(len(vectors))[:count]
        self.register_buffer("landmarks", self._centred(vectors[torch.from_numpy(rows)]).T.contiguous())

    def _centred(self, vectors: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(vectors - self.centre, dim=1)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Kernel values (n, l) of queries and landmarks."""
        return torch.exp(self.scale * (self._centred(vectors) @ self.landmarks - 1))

    def whitening(self) -> torch.Tensor:
        """The matrix W, float64 (l, r), for which dot products of rows of K W are the kernel; K are kernel values."""
        values, directions = torch.linalg.eigh(torch.exp(self.scale * (self.landmarks.T @ self.landmarks - 1)).double())
        kept = values > _LEAST_EIGENVALUE
        return directions[:, kept] / values[kept].sqrt()


class KernelHead(nn.Module):
    """Maps unit vectors (n, d) to utilities (n, m)."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, kernel: LandmarkKernel, weight: Array, bias: Array) -> None:
        """Keep a kernel, the weights of its values (l, m), and the bias (m,)."""
        super().__init__()
        self.kernel = kernel
        self.register_buffer("weight", torch.from_numpy(weight).float().contiguous())
        self.register_buffer("bias", torch.from_numpy(bias).float())

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Utilities (n, m)."""
        return self.kernel(vectors) @ self.weight + self.bias
