"""Preference records and performance records, which routers are trained on and evaluated on."""

from __future__ import annotations

from dataclasses import dataclass

from ..routers.query import Query, prompt_key


@dataclass(frozen=True, slots=True)
class PreferenceRecord:
    """Two models answered one query, and a judge preferred one of the answers.

    Attributes:
        query: a prompt, or a chat as a tuple of ``{"role", "content"}`` messages.
        model_a: name of the first model.
        model_b: name of the second model.
        preference: 1 when a wins, 0.5 for a tie, 0 when b wins. A value between these is a soft label.
        weight: weight of the record in the training loss and in metrics, above 0.
        task: name of the task that the query belongs to, for results by task; None when it is not known.
        split: "train", "val" or "test", as the file says; None when the file does not say.
        source: the file or the judge that the record comes from. Sources may rank the models differently.
        response_a: the answer of model a, or None.
        response_b: the answer of model b, or None.

    Example:
        >>> from routelearn.data import PreferenceRecord
        >>> record = PreferenceRecord("What is 2 plus 2?", "sim-max", "sim-small", preference=0.5)
        >>> record.models, record.weight
        (('sim-max', 'sim-small'), 1.0)
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
        """The names of the models in the record."""
        return (self.model_a, self.model_b)


@dataclass(frozen=True, slots=True)
class PerformanceRecord:
    """One model answered one query, and a judge scored the answer.

    Attributes:
        query: a prompt, or a chat as a tuple of ``{"role", "content"}`` messages.
        model: name of the model.
        score: quality of the answer, in [0, 1].
        cost_usd: cost of the answer in USD, or None.
        response: the answer, or None.
        weight: weight of the record in the training loss and in metrics, above 0.
        task: name of the task that the query belongs to, for results by task; None when it is not known.
        split: "train", "val" or "test", as the file says; None when the file does not say.
        source: the file or the judge that the record comes from. Sources may score the models differently.

    Example:
        >>> from routelearn.data import PerformanceRecord
        >>> PerformanceRecord("What is 2 plus 2?", "sim-small", score=1.0, cost_usd=0.0002).models
        ('sim-small',)
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
        """The names of the models in the record."""
        return (self.model,)


Record = PreferenceRecord | PerformanceRecord


def record_key(record: Record) -> str:
    """The normalised prompt of a record. Records with the same key always stand in the same part of a split."""
    return prompt_key(record.query)
