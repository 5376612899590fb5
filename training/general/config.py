"""Settings of the general recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..config import SHIPPED_ENCODER, Config, name_list, number, text, whole


@dataclass(frozen=True, kw_only=True)
class GeneralConfig(Config):
    """Settings of `train_general`. The defaults were chosen by leaving sources out (benchmarks/general.py).

    Attributes:
        encoder: The static encoder: minilm-static, which comes with routelearn, or a model2vec folder or hub id.
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
    difficulty_l2: Annotated[float, number(above=0)] = 60.0
    discrimination_l2: Annotated[float, number(above=0)] = 100.0
    level_l2: Annotated[float, number(above=0)] = 30.0
    ability_l2: Annotated[float, number(above=0)] = 0.3
    source_queries: Annotated[int, whole(1)] = 1500
    traffic: Annotated[tuple[str, ...] | None, name_list().or_none()] = None
    preference_weight: Annotated[float, number(above=0)] = 3.0
    max_tokens: Annotated[int, whole(8, 8192)] = 512
    seed: Annotated[int, whole(0, 2**32 - 1)] = 0
