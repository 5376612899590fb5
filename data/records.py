"""Preference and performance records: what every router is trained on and judged by."""

from __future__ import annotations

from dataclasses import dataclass

from ..routers.query import Query, prompt_key


@dataclass(frozen=True, slots=True)
class PreferenceRecord:
    """Two models answered one query, and somebody preferred one of the answers.

    Attributes:
        query: a prompt, or a chat as a tuple of ``{"role", "content"}`` messages.
        model_a: name of the first model.
        model_b: name of the second model.
        preference: 1 when a wins, 0.5 for a tie, 0 when b wins; a value between is a soft label.
        weight: weight of the record in a training loss and in metrics, > 0.
        task: a label for per-task breakdowns, or None.
        split: "train", "val" or "test" where the file says so, or None.
        source: where it comes from (a file, a judge): sources may rank the models differently.
        response_a: a's answer, or None.
        response_b: b's answer, or None.
    """

    query: Query
    model_a: str
    model_b: str
    preference: float
    weight: float = 1.0
    task: str | None = None
    split: str | None = None
    source: str | None = None
    response_a: str | None = None
    response_b: str | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the record."""
        return (self.model_a, self.model_b)


@dataclass(frozen=True, slots=True)
class PerformanceRecord:
    """One model answered one query, and the answer got a score.

    Attributes:
        query: a prompt, or a chat as a tuple of ``{"role", "content"}`` messages.
        model: name of the model.
        score: quality of the answer in [0, 1].
        cost_usd: what the answer cost, USD, or None.
        response: the answer, or None.
        weight: weight of the record in a training loss and in metrics, > 0.
        task: a label for per-task breakdowns, or None.
        split: "train", "val" or "test" where the file says so, or None.
        source: where it comes from (a file, a judge): sources may score the models differently.
    """

    query: Query
    model: str
    score: float
    cost_usd: float | None = None
    response: str | None = None
    weight: float = 1.0
    task: str | None = None
    split: str | None = None
    source: str | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the record."""
        return (self.model,)


Record = PreferenceRecord | PerformanceRecord


def record_key(record: Record) -> str:
    """The normalised prompt of a record: records with one key never straddle a split."""
    return prompt_key(record.query)
