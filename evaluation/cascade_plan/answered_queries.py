"""The queries that both models of a cascade answered, with the scores and the costs of the answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...data.records import PerformanceRecord, Record, record_key
from ...policies.cost import call_cost, check_all_priced, query_tokens
from ...routers.decision import Model
from ...routers.errors import InputError
from ...routers.query import Query, estimate_tokens
from ...training.fit.metrics import Array


@dataclass(frozen=True, kw_only=True)
class AnsweredQueries:
    """n queries that both models answered.

    Example:
        >>> from routelearn.evaluation.cascade_plan.answered_queries import answered_queries
        >>> weak, strong = routelearn.Model("w", 1.0, 1.0), routelearn.Model("s", 10.0, 10.0)
        >>> records = [
        ...     routelearn.PerformanceRecord("12345678", "w", 0.0, response="abcd"),
        ...     routelearn.PerformanceRecord("12345678", "s", 1.0, response="abcd"),
        ... ]
        >>> answered = answered_queries(records, strong, weak)
        >>> len(answered), float(answered.strong_cost[0] / answered.weak_cost[0])
        (1, 10.0)

    Attributes:
        queries: n queries.
        answers: n answers of the weak model.
        keys: n normalised prompts.
        weak: (n,) scores of the weak model's answers.
        strong: (n,) scores of the strong model's answers.
        weak_cost: (n,) USD of asking the weak model.
        strong_cost: (n,) USD of asking the strong model.
        cost_basis: what the costs of weak and of strong are taken from, in words.
    """

    queries: list[Query]
    answers: list[str]
    keys: list[str]
    weak: Array
    strong: Array
    weak_cost: Array
    strong_cost: Array
    cost_basis: tuple[str, str] = ("not said", "not said")

    def __len__(self) -> int:
        return len(self.queries)

    def rows(self, kept: npt.NDArray[np.int64]) -> AnsweredQueries:
        """The queries of these row numbers."""
        numbers = kept.tolist()
        return AnsweredQueries(
            queries=[self.queries[row] for row in numbers],
            answers=[self.answers[row] for row in numbers],
            keys=[self.keys[row] for row in numbers],
            weak=self.weak[kept],
            strong=self.strong[kept],
            weak_cost=self.weak_cost[kept],
            strong_cost=self.strong_cost[kept],
            cost_basis=self.cost_basis,
        )


def answered_queries(
    records: Sequence[Record], strong: Model, weak: Model, output_tokens: int | None = None
) -> AnsweredQueries:
    """Collect the queries that have an answer of the weak model and scores of both models.

    A record's measured cost counts where the record has one. Otherwise the cost is prices times tokens: those of the
    query by `query_tokens`, those of the answer by its length.

    Args:
        records: performance records of both models.
        strong: the strong model, with prices.
        weak: the weak model, with prices.
        output_tokens: assumed length of an answer of strong that is not in the records; None: as long as weak's.

    Raises:
        InputError: the two models are the same, one of them has no prices, or there is no such query.
    """
    if strong.name == weak.name:
        raise InputError(f"strong and weak are both {strong.name!r}; expected two models")
    check_all_priced([strong, weak])
    by_query: dict[str, dict[str, list[PerformanceRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if not isinstance(record, PerformanceRecord) or record.model not in {strong.name, weak.name}:
            continue
        if record.model == strong.name or record.response is not None:
            by_query[record_key(record)][record.model].append(record)
    pairs = [
        (key, *both)
        for key, by_model in by_query.items()
        for both in zip(by_model[weak.name], by_model[strong.name], strict=False)
    ]
    if not pairs:
        raise InputError(
            f"no query has a response of {weak.name!r} with its score and a score of {strong.name!r}; "
            "expected performance records with responses"
        )
    return AnsweredQueries(
        queries=[w.query for _, w, _ in pairs],
        answers=[w.response or "" for _, w, _ in pairs],
        keys=[key for key, _, _ in pairs],
        weak=np.asarray([w.score for _, w, _ in pairs]),
        strong=np.asarray([s.score for _, _, s in pairs]),
        weak_cost=np.asarray([_cost(w, weak, estimate_tokens(w.response or "")) for _, w, _ in pairs]),
        strong_cost=np.asarray([_cost(s, strong, _strong_tokens(s, w, output_tokens)) for _, w, s in pairs]),
        cost_basis=(
            _basis([w for _, w, _ in pairs], None),
            _basis([s for _, _, s in pairs], output_tokens),
        ),
    )


def _basis(records: Sequence[PerformanceRecord], output_tokens: int | None) -> str:
    """What the costs of one model's answers are taken from, in words."""
    measured = sum(record.cost_usd is not None for record in records)
    if measured == len(records):
        return "measured (cost_usd of the records)"
    unknown = sum(record.cost_usd is None and not record.response for record in records)
    length = "as long as weak's answers" if output_tokens is None else f"{output_tokens} tokens long"
    assumed = "assumed: prices times tokens estimated from the texts" + (
        f", where {unknown:,} of {len(records):,} answers are not in the records and taken to be {length}"
        if unknown
        else ""
    )
    if not measured:
        return assumed
    return f"measured for {measured:,} of {len(records):,} answers (cost_usd of the records); the others are {assumed}"


def _strong_tokens(strong: PerformanceRecord, weak: PerformanceRecord, output_tokens: int | None) -> int:
    """Tokens of strong's answer: of its response, or as assumed, or of weak's response."""
    if strong.response or output_tokens is None:
        return estimate_tokens(strong.response or weak.response or "")
    return output_tokens


def _cost(record: PerformanceRecord, model: Model, tokens: int) -> float:
    if record.cost_usd is not None:
        return record.cost_usd
    return call_cost(model, query_tokens(record.query), tokens) or 0.0
