"""Settings of the BERT recipe. This module imports no torch: the command line stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ...routers.errors import InputError
from ..config import whole
from ..encoders.config import FinetuneConfig, TransformerRouterConfig


@dataclass(frozen=True, kw_only=True)
class BertConfig(FinetuneConfig, TransformerRouterConfig):
    """Settings of `train_bert`. The other settings are those of the base classes.

    Attributes:
        folds: Number of folds over the prompts; one fold is the validation data. It has no effect if records are marked
            "val".
        max_tokens: Largest number of tokens of a query that the transformer reads.

    Raises:
        InputError: a setting is out of its range.

    Example:
        >>> from routelearn.training import BertConfig
        >>> BertConfig(strong="sim-max", weak="sim-small").epochs
        1
        >>> BertConfig(dropout=1.5)
        Traceback (most recent call last):
        ...
        routelearn.routers.errors.InputError: dropout is 1.5; expected a number from 0 and below 1
    """

    folds: Annotated[int, whole(2)] = 10
    max_tokens: Annotated[int, whole(8, 8192)] = 128

    def __post_init__(self) -> None:
        """Refuse zero epochs, which name another recipe, and check the settings.

        Raises:
            InputError: `epochs` is 0, or a setting is out of its range.
        """
        if self.epochs == 0:
            raise InputError(
                "epochs is 0; expected a whole number from 1. To leave the transformer as it is, use the recipe "
                "`routelearn train frozen` (in Python: train_frozen)"
            )
        super().__post_init__()
