"""What is lost when weak answers instead of strong, prompt by prompt: a threshold's loss is measured on it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...data.records import PreferenceRecord, Record, record_key
from ...routers.errors import InputError
from ...routers.query import Query
from ...training.fit.metrics import Array
from ..pair import groups_of, paired, relative_weights

#: The unit of a loss: points of the score, or points of the win rate against always-strong (which is 1/2).
Unit = Literal["score", "win rate"]


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of n prompts, in an order that depends on nothing but the prompts.

    Example:
        >>> from routelearn.evaluation import losses_of
        >>> records = [routelearn.PerformanceRecord("2 + 2?", model, score) for model, score in (("s", 1), ("w", 0.75))]
        >>> losses = losses_of(records, "s", "w")
        >>> losses.queries, losses.gap.tolist(), losses.unit
        (['2 + 2?'], [0.25], 'score')

    Attributes:
        queries: n queries.
        gap: (n,) how much more strong's answer is worth than weak's; negative where weak is better.
        largest: upper limit of the gaps: 1 for scores, 1/2 for win rates.
        unit: unit of the gaps.
        fingerprint: sha256 of prompts, gaps and weights; it identifies the data and reveals nothing of them.
        weight: (n,) weights of the prompts, with a mean of 1; None: all count alike.
    """

    queries: list[Query]
    gap: Array
    largest: float
    unit: Unit
    fingerprint: str
    weight: Array | None = None

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def largest_weighted(self) -> float:
        """Upper limit of the gaps times their weights."""
        return self.largest if self.weight is None else self.largest * float(self.weight.max())

    @property
    def weighted_gap(self) -> Array:
        """The gaps times their weights, (n,): their mean is that of all prompts that these were chosen from."""
        return self.gap if self.weight is None else self.gap * self.weight


def losses_of(records: Sequence[Record], strong: str, weak: str) -> Losses:
    """The losses between two models, from performance records of both or from preferences between them.

    A performance gap is the difference of the scores. A preference of y for strong (1 wins, 1/2 ties) is a gap of
    y - 1/2: so much the win rate against always-strong falls when weak answers. Several gaps of one prompt are
    averaged, so that prompts are independent. Where the records hold both kinds, only the scores count.

    Args:
        records: performance or preference records.
        strong: the strong model.
        weak: the weak model.

    Raises:
        InputError: no prompt has a score of both models, and there is no preference between them.
    """
    pairs = paired(records, strong, weak)
    keys, queries, gaps, weights = pairs.keys, pairs.queries, pairs.strong - pairs.weak, pairs.weight
    unit: Unit = "score"
    if not queries:
        unit = "win rate"
        decided = [
            record
            for record in records
            if isinstance(record, PreferenceRecord) and set(record.models) == {strong, weak}
        ]
        keys = [record_key(record) for record in decided]
        queries = [record.query for record in decided]
        gaps = np.asarray([_preference(record, strong) - 0.5 for record in decided], np.float64)
        weights = relative_weights([record.weight for record in decided])
    if not queries:
        raise InputError(
            f"no query has a score of both {strong!r} and {weak!r}, and there is no preference between them; "
            "expected performance or preference records of both models"
        )
    groups = groups_of(keys)
    first = np.unique(groups, return_index=True)[1]
    gap = np.bincount(groups, gaps) / np.bincount(groups)
    by_key = np.asarray(sorted(range(len(first)), key=lambda group: keys[first[group]]), np.int64)
    order = by_key[np.random.default_rng(0).permutation(len(by_key))]
    weight = None if weights is None else relative_weights(np.bincount(groups, weights) / np.bincount(groups))
    digest = hashlib.sha256()
    for group in by_key.tolist():
        digest.update(keys[first[group]].encode("utf-8", "surrogatepass") + b"\0" + gap[group].tobytes())
        if weight is not None:
            digest.update(weight[group].tobytes())
    return Losses(
        queries=[queries[first[group]] for group in order.tolist()],
        gap=gap[order],
        largest=1.0 if unit == "score" else 0.5,
        unit=unit,
        fingerprint=digest.hexdigest(),
        weight=None if weight is None else weight[order],
    )


def _preference(record: PreferenceRecord, strong: str) -> float:
    return record.preference if record.model_a == strong else 1 - record.preference
