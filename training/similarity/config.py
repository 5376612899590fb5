"""Settings of the similarity recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ..config import StaticRouterConfig, one_of, whole

#: The kind of a bundle by the method that made it.
KINDS = {"kernel": "similarity", "bradley-terry": "similarity-bradley-terry"}
#: Groups of models, as in RouteLLM.
TIERS = 10


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig(StaticRouterConfig):
    """Settings of `train_similarity`, beside those of `StaticRouterConfig`.

    Attributes:
        method: How the labels of similar queries are combined: kernel or bradley-terry. The method bradley-terry is
            RouteLLM's similarity-weighted ranking; it needs preference records.
        index_size: Largest number of queries in the index. If there are more training queries, a sample is kept that
            covers all kinds of queries and all models.
        tiers: Number of groups of about equally good models. Only the method bradley-terry uses it.
        name_records: Name the nearest training records in explanations: none, hash or text. The bundle then holds a
            hash of each prompt of its index with the outcomes, or with text the prompt itself, so that whoever gets the
            bundle can read it.

    Example:
        >>> from routelearn.training import SimilarityConfig
        >>> SimilarityConfig(strong="gpt-4o", weak="gpt-4o-mini").method
        'kernel'
        >>> SimilarityConfig(method="cosine")
        Traceback (most recent call last):
        routelearn.routers.errors.InputError: method is 'cosine'; expected one of 'kernel', 'bradley-terry'
    """

    method: Annotated[Literal["kernel", "bradley-terry"], one_of(*KINDS)] = "kernel"
    index_size: Annotated[int, whole(16)] = 65_536
    tiers: Annotated[int, whole(2, 50)] = TIERS
    name_records: Annotated[Literal["none", "hash", "text"], one_of("none", "hash", "text")] = "none"

    def check_combinations(self) -> None:
        """Tiers belong to the method "bradley-terry"."""
        super().check_combinations()
        if self.method != "bradley-terry":
            self.refuse_without_effect(["tiers"], f"with the method {self.method!r}")
