"""Settings of the recipe with a frozen transformer. This module imports no torch: the command line stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..config import number, text, whole
from ..encoders.config import TransformerRouterConfig


@dataclass(frozen=True, kw_only=True)
class FrozenConfig(TransformerRouterConfig):
    """Settings of `train_frozen`. The other settings are those of the base classes.

    Attributes:
        folds: Number of folds over the prompts; two folds are the validation data. It has no effect if records are
            marked "val".
        max_tokens: Largest number of tokens of a query that the transformer reads.
        landmarks: Number of training queries that the kernel machine compares a query with.
        kernel_scale: How fast similarity falls with distance: 1 / (2 variance) of the Gaussian kernel.
        vectors: An .npz file that caches the vectors of the queries. Vectors that are in the file are not computed
            again.

    Raises:
        InputError: a setting is out of its range.

    Example:
        >>> from routelearn.training import FrozenConfig
        >>> FrozenConfig(layers=8).landmarks
        2048
        >>> FrozenConfig(kernel_scale=0)
        Traceback (most recent call last):
        ...
        routelearn.routers.errors.InputError: kernel_scale is 0; expected a number above 0 and at most 100
    """

    folds: Annotated[int, whole(2)] = 10
    max_tokens: Annotated[int, whole(8, 8192)] = 128
    landmarks: Annotated[int, whole(8, 65_536)] = 2048
    kernel_scale: Annotated[float, number(above=0, most=100)] = 3.0
    vectors: Annotated[str | None, text().or_none()] = None
