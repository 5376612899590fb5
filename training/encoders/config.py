"""Settings that the recipes with a transformer share. This module imports no torch: the command line stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ...routers.errors import InputError
from ..config import (
    PACKAGED_ENCODER,
    SHIPPED_ENCODER,
    GeneralSetting,
    RecipeConfig,
    RouterConfig,
    flag,
    number,
    one_of,
    whole,
)

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Quantisation = Literal["none", "int8"]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(RecipeConfig):
    """Settings of every recipe with a transformer.

    Attributes:
        precision: Number format that the transformer computes in: auto, float32, bfloat16 or float16. "auto" takes
            bfloat16 where the processor or the GPU computes it natively, else float32.
        quantise: Number format of the exported weights: none or int8. "none" keeps float32; int8 needs a quarter of the
            space, is faster, and is refused where it changes decisions.
    """

    precision: Annotated[Precision, one_of("auto", "float32", "bfloat16", "float16")] = "auto"
    quantise: Annotated[Quantisation, one_of("none", "int8")] = "none"

    def check_combinations(self) -> None:
        """A table of token vectors is no transformer."""
        super().check_combinations()
        if self.encoder == SHIPPED_ENCODER:
            raise InputError(
                f"encoder is {SHIPPED_ENCODER!r}, a table of token vectors, which only the recipes mf and similarity "
                f"read; expected a transformer: a folder, a hub id org/name, or {PACKAGED_ENCODER!r}"
            )


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TransformerConfig):
    """Settings of every recipe that fine-tunes a transformer.

    Attributes:
        epochs: Largest number of passes over the training data.
        batch_size: Number of queries (for a verifier: answers) in one training step, all processes together.
        learning_rate: Peak learning rate of the transformer.
        head_learning_rate: Peak learning rate of the heads.
        weight_decay: Weight decay of the transformer's weight matrices.
        probe: Fit the heads to the untouched transformer first, and fine-tune from there.
        dropout: Dropout rate: share of the hidden units that are set to 0 in each training step.
        frozen_share: Share of the layers, counted from the input, that are not trained. Freezing a third of them saves
            a fifth of the time.
        lora_rank: Rank of the low-rank updates (LoRA). 0 trains the weights themselves. Above 0 only the updates are
            trained, which needs the extra lora.
        evaluations: Number of validations in each epoch. The weights with the best validation result are kept.
        patience: Training stops after this many validations in a row without a lower log loss.
        resume: Continue from the last checkpoint of an interrupted run with the same settings and data.
    """

    epochs: Annotated[int, whole(1)] = 1
    batch_size: Annotated[int, whole(1)] = 32
    learning_rate: Annotated[float, number(above=0, below=1)] = 6e-5
    head_learning_rate: Annotated[float, number(above=0, below=1)] = 1e-3
    weight_decay: Annotated[float, number(least=0)] = 0.01
    probe: Annotated[bool, flag()] = True
    dropout: Annotated[float, number(least=0, below=1)] = 0.1
    frozen_share: Annotated[float, number(least=0, below=1)] = 1 / 3
    lora_rank: Annotated[int, whole(0)] = 0
    evaluations: Annotated[int, whole(1)] = 3
    patience: Annotated[int, whole(1)] = 3
    resume: Annotated[bool, flag()] = False


@dataclass(frozen=True, kw_only=True)
class TransformerRouterConfig(GeneralSetting, TransformerConfig, RouterConfig):
    """Settings of every router with a transformer.

    Attributes:
        layers: Number of the transformer's layers to keep, counted from the input. The default is all of them. Middle
            layers often predict the difficulty of a query better than the last layers, which encode its topic.
        last_share: Share of the token budget for the end of a query that is too long. The rest is for its start. The
            question is often at the end.
    """

    layers: Annotated[int | None, whole(1).or_none()] = None
    last_share: Annotated[float, number(least=0, most=1)] = 0.6
