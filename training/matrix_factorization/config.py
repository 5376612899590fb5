"""Settings of the matrix-factorization recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..config import StaticRouterConfig, flag, number, whole


@dataclass(frozen=True, kw_only=True)
class MatrixFactorizationConfig(StaticRouterConfig):
    """Settings of `train_matrix_factorization`, beside those of `StaticRouterConfig`.

    Attributes:
        rank: Largest rank of the factors.
        l2: L2 penalty on the factors. By default validation chooses it from a series of penalties, from strong to weak.
        path_steps: Largest number of penalties in the series.
        patience: The series stops after this many penalties without a lower validation loss.
        tasks: Learn from the task names of the records, if that lowers the loss on held-out queries.
        few_labels: Average the utilities with those of a fixed prior, which is better where labels are few.
        finetune_epochs: Largest number of epochs to fine-tune the token table before the fit. 0 leaves the table
            unchanged.

    Example:
        >>> from routelearn.training import MatrixFactorizationConfig
        >>> MatrixFactorizationConfig(strong="gpt-4o", weak="gpt-4o-mini", rank=16).rank
        16
        >>> MatrixFactorizationConfig(rank=0)
        Traceback (most recent call last):
        routelearn.routers.errors.InputError: rank is 0; expected a whole number from 1
    """

    rank: Annotated[int, whole(1)] = 32
    l2: Annotated[float | None, number(above=0).or_none()] = None
    path_steps: Annotated[int, whole(1)] = 25
    patience: Annotated[int, whole(1)] = 3
    tasks: Annotated[bool, flag()] = True
    few_labels: Annotated[bool, flag()] = True
    finetune_epochs: Annotated[int, whole(0)] = 0

    def check_combinations(self) -> None:
        """A penalty that is given leaves no path to follow."""
        super().check_combinations()
        if self.l2 is not None:
            self.refuse_without_effect(["path_steps", "patience"], "when l2 is given: no other penalty is tried")
