"""Settings of the verifier's recipe. This module imports no torch: the command line stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ...cascade.verifier import FEATURES
from ...routers.errors import InputError
from ..config import name_list, number, whole
from ..encoders.config import FinetuneConfig

#: Tokens of a pair that the query must leave free: the special tokens, and a few for the answer.
_LEAST_FREE_TOKENS = 8


@dataclass(frozen=True, kw_only=True)
class VerifierConfig(FinetuneConfig):
    """Settings of `train_verifier`. The other settings are those of the base classes.

    Attributes:
        strong: The model that answers when an answer is escalated. The bundle records its name.
        weak: The model whose answers will be verified. Thresholds are chosen on its answers only. By default they are
            chosen on the answers of all models.
        models: The models whose answers the verifier learns from. The default is every model of the records.
        folds: Number of folds over the prompts; one fold is held out. It has no effect if records are marked "val".
        max_tokens: Largest number of tokens of a query with its answer that the transformer reads.
        escalation_rate: Share of the held-out answers that the default threshold escalates.
        good_at: Lowest score at which an answer counts as good enough. For preferences it is the lowest win rate over
            the other answer, so by default a tie is good enough.
        query_tokens: Number of tokens of the query that are kept when query and answer are both too long.
        features: Features of the answer that the verifier reads in addition to its text. There are length, refusal,
            hedging, numbers and unfinished.

    Raises:
        InputError: a setting is out of its range.

    Example:
        >>> from routelearn.training import VerifierConfig
        >>> VerifierConfig(weak="sim-small", strong="sim-max").escalation_rate
        0.3
        >>> VerifierConfig(good_at=0)
        Traceback (most recent call last):
        ...
        routelearn.routers.errors.InputError: good_at is 0; expected a number above 0 and at most 1
    """

    max_tokens: Annotated[int, whole(8, 8192)] = 256
    epochs: Annotated[int, whole(1)] = 2
    escalation_rate: Annotated[float, number(least=0, most=1)] = 0.3
    good_at: Annotated[float, number(above=0, most=1)] = 0.5
    query_tokens: Annotated[int, whole(1)] = 96
    features: Annotated[tuple[str, ...], name_list(0, tuple(FEATURES))] = tuple(FEATURES)

    def check_combinations(self) -> None:
        """The query leaves tokens for the answer."""
        super().check_combinations()
        most = self.max_tokens - _LEAST_FREE_TOKENS
        if self.query_tokens >= most:
            raise InputError(
                f"query_tokens is {self.query_tokens}; expected fewer than {most}, since max_tokens is "
                f"{self.max_tokens} and the answer needs tokens too"
            )
