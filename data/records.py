"""Preference records and performance records, which routers are trained on and evaluated on."""

from __future__ import annotations

import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..routers.errors import InputError
from ..routers.query import Query, prompt_key

#: The weights that a record may have.
LEAST_WEIGHT, MOST_WEIGHT = 1e-9, 1e9


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


#: One row of evidence about models.
Record = PreferenceRecord | PerformanceRecord


def check_records(records: object) -> None:
    """Refuse what are no records, or records whose label or weight is out of range.

    Raises:
        InputError: they are not; the message says what to write.
    """
    if isinstance(records, (str, os.PathLike)):
        raise InputError(f"records is {str(records)!r}; expected records: read_records({str(records)!r}).records")
    if not isinstance(records, Sequence):
        hint = ": pass its attribute `records`" if hasattr(records, "records") else ""
        raise InputError(f"records is a {type(records).__name__}; expected a list of records{hint}")
    for number, record in enumerate(records):
        if isinstance(record, PerformanceRecord):
            name, label = "score", record.score
        elif isinstance(record, PreferenceRecord):
            name, label = "preference", record.preference
        else:
            raise InputError(f"record {number} is {record!r:.80}; expected a PerformanceRecord or a PreferenceRecord")
        if not isinstance(label, numbers.Real) or not 0 <= label <= 1:
            raise InputError(f"record {number} has the {name} {label!r:.80}; expected a number from 0 to 1")
        if not isinstance(record.weight, numbers.Real) or not LEAST_WEIGHT <= record.weight <= MOST_WEIGHT:
            raise InputError(
                f"record {number} has the weight {record.weight!r:.80}; expected a number from {LEAST_WEIGHT:g} to "
                f"{MOST_WEIGHT:g}"
            )


def record_key(record: Record) -> str:
    """The normalised prompt of a record. Records with the same key always stand in the same part of a split."""
    return prompt_key(record.query)
