"""A kernel machine on the vectors of a transformer that stays as it is: no gradient runs through it.

Utilities are ``sum over landmarks of weight · exp(scale · (cos(query, landmark) - 1))``: a Gaussian kernel on unit
vectors, whose machine is a linear one on its Nyström features (Williams and Seeger 2001), so that losses, path of
penalties and calibration are the matrix factorization's. On MMLU it routes better than the same encoder fine-tuned.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

#: Directions of the landmarks' kernel matrix with a smaller eigenvalue (their mean is 1) are left out: any penalty that
#: generalises shrinks them to nothing.
_LEAST_EIGENVALUE = 0.1


class LandmarkKernel(nn.Module):
    """Unit vectors (n, d) to kernel values (n, l).

    Attributes:
        centre: (d,), the mean of the training vectors; what all queries share tells none apart.
        landmarks: (d, l), unit vectors of training queries.
        scale: of the exponent.
    """

    centre: torch.Tensor
    landmarks: torch.Tensor

    def __init__(self, vectors: torch.Tensor, count: int, scale: float, seed: int) -> None:
        """Draw landmarks from training vectors, float32 (n, d)."""
        super().__init__()
        self.scale = scale
        self.register_buffer("centre", vectors.mean(dim=0))
        rows = np.random.default_rng(seed).permutation(len(vectors))[:count]
        self.register_buffer("landmarks", self._centred(vectors[torch.from_numpy(rows)]).T.contiguous())

    def _centred(self, vectors: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(vectors - self.centre, dim=1)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """The kernel between queries and landmarks."""
        return torch.exp(self.scale * (self._centred(vectors) @ self.landmarks - 1))

    def whitening(self) -> torch.Tensor:
        """What kernel values are multiplied with so that dot products of the result are the kernel: float64 (l, r)."""
        values, directions = torch.linalg.eigh(torch.exp(self.scale * (self.landmarks.T @ self.landmarks - 1)).double())
        kept = values > _LEAST_EIGENVALUE
        return directions[:, kept] / values[kept].sqrt()


class KernelHead(nn.Module):
    """Unit vectors (n, d) to utilities (n, m)."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, kernel: LandmarkKernel, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Keep a kernel and what its values are multiplied with, (l, m) and (m,)."""
        super().__init__()
        self.kernel = kernel
        self.register_buffer("weight", weight.float().contiguous())
        self.register_buffer("bias", bias.float())

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.kernel(vectors) @ self.weight + self.bias
