"""What strong and weak did on the same prompts, one outcome a prompt: what a threshold's loss is measured on."""

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
from ..pair import groups_of, paired

#: What a loss is counted in: points of the score, or of the win rate against always-strong (which has 1/2).
Unit = Literal["score", "win rate"]


@dataclass(frozen=True)
class Outcomes:
    """n prompts, in an order that depends on nothing but the prompts.

    Attributes:
        queries: n queries.
        gap: (n,), what the answer of strong is worth more than that of weak; negative where weak is better.
        largest: no gap can be larger.
        unit: of the gaps.
        fingerprint: sha256 of prompts and gaps: names the data, reveals nothing.
    """

    queries: list[Query]
    gap: Array
    largest: float
    unit: Unit
    fingerprint: str

    def __len__(self) -> int:
        return len(self.queries)


def outcomes_of(records: Sequence[Record], strong: str, weak: str) -> Outcomes:
    """The outcomes of two models: from performance records of both on a prompt, or from preferences between them.

    A performance gap is the difference of the scores. A preference of y for strong (1 wins, 1/2 ties) is a gap of
    y - 1/2: what the win rate against always-strong falls by when weak answers. Several outcomes of one prompt
    are averaged, so that prompts are independent. Where records give both kinds, scores count.

    Raises:
        InputError: no prompt has an outcome of both.
    """
    pairs = paired(records, strong, weak)
    keys, queries, gaps = pairs.keys, pairs.queries, pairs.strong - pairs.weak
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
    if not queries:
        raise InputError(
            f"no query has a score of both {strong!r} and {weak!r}, and there is no preference between them"
        )
    groups = groups_of(keys)
    first = np.unique(groups, return_index=True)[1]
    gap = np.bincount(groups, gaps) / np.bincount(groups)
    by_key = np.asarray(sorted(range(len(first)), key=lambda group: keys[first[group]]), np.int64)
    order = by_key[np.random.default_rng(0).permutation(len(by_key))]
    digest = hashlib.sha256()
    for group in by_key.tolist():
        digest.update(keys[first[group]].encode("utf-8", "surrogatepass") + b"\0" + gap[group].tobytes())
    return Outcomes(
        [queries[first[group]] for group in order.tolist()],
        gap[order],
        1.0 if unit == "score" else 0.5,
        unit,
        digest.hexdigest(),
    )


def _preference(record: PreferenceRecord, strong: str) -> float:
    return record.preference if record.model_a == strong else 1 - record.preference
