"""Outcomes as tensors, with the log loss of the other fits, for what torch trains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from ..examples import Outcomes


@dataclass(frozen=True)
class OutcomeTensors:
    """Outcomes as tensors, with the fields of `Outcomes`."""

    query: torch.Tensor
    model: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    source: torch.Tensor

    @classmethod
    def of(cls, outcomes: Outcomes) -> OutcomeTensors:
        """The outcomes as tensors; targets and weights are float64."""
        return cls(
            torch.from_numpy(outcomes.query),
            torch.from_numpy(outcomes.model),
            torch.from_numpy(outcomes.target).double(),
            torch.from_numpy(outcomes.weight).double(),
            torch.from_numpy(outcomes.source),
        )

    def losses(self, utilities: torch.Tensor, offsets: torch.Tensor | None = None) -> torch.Tensor:
        """Weighted log loss (nats) of each outcome, (k,), from utilities (n, m) and offsets (sources, m)."""
        picked = utilities[self.query.unsqueeze(1), self.model]
        if offsets is not None:
            picked = picked + offsets[self.source.unsqueeze(1), self.model]
        logits = picked[:, 0] - picked[:, 1] if picked.shape[1] == 2 else picked[:, 0]
        return self.weight * binary_cross_entropy_with_logits(logits, self.target, reduction="none")


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Make torch add in a fixed order, so that a seed gives the same bytes twice."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
