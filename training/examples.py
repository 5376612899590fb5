"""Records as arrays: the distinct queries, and how well each model answered them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.records import PreferenceRecord, Record, record_key
from ..routers.base import Link
from ..routers.errors import InputError
from ..routers.query import Query

Ints = npt.NDArray[np.int64]

#: Prompts of one part of the text that the fingerprint is taken of.
_PROMPTS_AT_ONCE = 10_000

#: Held-out outcomes that are enough to choose settings, calibrate and take thresholds.
MOST_HELD_OUT = 50_000


@dataclass(frozen=True)
class Outcomes:
    """k outcomes over n queries and m models, all of one kind of record.

    A preference has two columns of models, and its target is the win rate of the first model. A performance has one
    column, and its target is the score.

    Attributes:
        query: int64 (k,), row of the query.
        model: int64 (k, 2) or (k, 1), numbers of the models.
        target: float32 (k,) in [0, 1]; float64 where it is a mean.
        weight: float32 (k,), > 0; float64 where it is a sum.
        source: int64 (k,), number of the record's source; 0 is the primary source, the one that the router is for.
    """

    query: Ints
    model: Ints
    target: npt.NDArray[np.floating]
    weight: npt.NDArray[np.floating]
    source: Ints

    def __len__(self) -> int:
        return len(self.target)

    def of_queries(self, kept: npt.NDArray[np.bool_]) -> Outcomes:
        """The outcomes of the queries that bool (n,) keeps; queries keep their numbers."""
        rows = kept[self.query]
        return self.rows(rows)

    def primary(self) -> Outcomes:
        """The outcomes of the primary source."""
        return self.rows(self.source == 0)

    def rows(self, rows: npt.NDArray[np.bool_]) -> Outcomes:
        """The outcomes that bool (k,) keeps."""
        return Outcomes(
            query=self.query[rows],
            model=self.model[rows],
            target=self.target[rows],
            weight=self.weight[rows],
            source=self.source[rows],
        )


@dataclass(frozen=True)
class Examples:
    """Everything that a router learns from.

    Attributes:
        queries: the n distinct queries.
        keys: n normalised prompts; queries of one key never straddle a split.
        splits: for each query the split that the data asks for, or None.
        models: the m model names.
        preferences: the outcomes of preference records.
        performances: the outcomes of performance records.
        sources: names of the sources, in the order of their numbers.
        tasks: for each query the name of its task, or None; empty where tasks are not learned from.
    """

    queries: list[Query]
    keys: list[str]
    splits: list[str | None]
    models: tuple[str, ...]
    preferences: Outcomes
    performances: Outcomes
    sources: tuple[str | None, ...] = (None,)
    tasks: Sequence[str | None] = ()

    def primary_models(self) -> list[int]:
        """Columns of the models that records of the primary source mention, in order."""
        columns = [outcomes.primary().model.ravel() for outcomes in (self.preferences, self.performances)]
        return sorted(set(np.concatenate(columns).tolist()))

    def primary_queries(self) -> npt.NDArray[np.bool_]:
        """Whether each query has a record of the primary source: bool (n,)."""
        primary = np.zeros(len(self.queries), np.bool_)
        for outcomes in (self.preferences, self.performances):
            primary[outcomes.primary().query] = True
        return primary

    def link(self) -> Link:
        """The link that suits the primary source: Bradley-Terry where most of its records are preferences."""
        preferences, performances = len(self.preferences.primary()), len(self.performances.primary())
        return "bradley-terry" if preferences > performances else "difference"


@dataclass
class _Columns:
    query: list[int] = field(default_factory=list)
    model: list[tuple[int, ...]] = field(default_factory=list)
    target: list[float] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    source: list[int] = field(default_factory=list)

    def outcomes(self, width: int) -> Outcomes:
        return Outcomes(
            np.asarray(self.query, np.int64),
            np.asarray(self.model, np.int64).reshape(-1, width),
            np.asarray(self.target, np.float32),
            np.asarray(self.weight, np.float32),
            np.asarray(self.source, np.int64),
        )


def examples_of(
    records: Sequence[Record], models: Sequence[str] | None = None, *, informative: bool = True
) -> Examples:
    """Turn records into arrays.

    Args:
        records: preference and performance records, mixed as they come.
        models: the pool; None: every model of the records, sorted by name.
        informative: refuse records that teach nothing: of one model, or with outcomes that are all the same.

    Raises:
        InputError: there are no records, no record mentions a model of the pool, or the records teach nothing.
    """
    if not records:
        raise InputError("no records to learn from; expected at least one")
    seen = {name for record in records for name in record.models}
    names = tuple(sorted(seen)) if models is None else tuple(models)
    unseen = [name for name in names if name not in seen]
    if unseen:
        raise InputError(f"no record mentions {unseen}; expected models of the records, {sorted(seen)}")
    column = {name: i for i, name in enumerate(names)}
    rows: dict[tuple[str, str | None], int] = {}
    queries: list[Query] = []
    preferences, performances = _Columns(), _Columns()
    key_of: dict[int, str] = {}
    sources: dict[str | None, int] = {}
    tasks: list[str | None] = []
    for record in records:
        if any(name not in column for name in record.models):
            continue
        # Readers intern queries: most records of one prompt share one object.
        key = key_of.get(id(record.query)) or key_of.setdefault(id(record.query), record_key(record))
        row = rows.setdefault((key, record.split), len(rows))
        if row == len(queries):
            queries.append(record.query)
            tasks.append(record.task)
        columns = preferences if isinstance(record, PreferenceRecord) else performances
        columns.query.append(row)
        columns.model.append(tuple(column[name] for name in record.models))
        columns.target.append(record.preference if isinstance(record, PreferenceRecord) else record.score)
        columns.weight.append(record.weight)
        columns.source.append(sources.setdefault(record.source, len(sources)))
    examples = Examples(
        queries,
        [key for key, _ in rows],
        [split for _, split in rows],
        names,
        preferences.outcomes(2),
        performances.outcomes(1),
        tuple(sources),
        tasks,
    )
    if informative:
        _check_informative(examples)
    return examples


def _check_informative(examples: Examples) -> None:
    preferences, performances = examples.preferences, examples.performances
    if len(performances) and not len(preferences) and np.ptp(performances.target) == 0:
        raise InputError(
            f"every performance record has the score {performances.target[0]:g}; expected good and bad answers"
        )
    if len(preferences) and not len(performances):
        if np.all(preferences.target == 0.5):
            raise InputError("every preference record is a tie; expected wins")
        first = preferences.model.min(axis=1) == preferences.model[:, 0]
        towards_first = np.where(first, preferences.target, 1 - preferences.target)
        pairs = np.unique(np.sort(preferences.model, axis=1), axis=0)
        if len(pairs) == 1 and np.ptp(towards_first) == 0:
            winner = examples.models[pairs[0][0 if towards_first[0] > 0.5 else 1]]
            raise InputError(f"{winner!r} wins every preference record; expected wins of both models")
    if len(examples.models) < 2:
        raise InputError(f"the records name only one model, {list(examples.models)}; expected two or more")


def validation_folds(examples: Examples, folds: int, seed: int) -> list[npt.NDArray[np.bool_]]:
    """The queries that each validation fold holds out: bool (n,) each.

    Where the primary source marks queries "val", there is one fold: all queries that are marked so. Else the prompts
    are dealt into folds by the seed. Queries with the same prompt are in the same fold.

    Raises:
        InputError: every query is marked "val", or there are fewer than two distinct prompts for each fold.
    """
    marked = np.asarray([split == "val" for split in examples.splits])
    if marked.all():
        raise InputError("every record to learn from is marked 'val'; expected others beside them")
    if (marked & examples.primary_queries()).any():
        return [marked]
    keys = sorted(set(examples.keys))
    if len(keys) < 2 * folds:
        raise InputError(f"{len(keys)} distinct prompts are too few for {folds} validation folds; expected {2 * folds}")
    order = np.random.default_rng(seed).permutation(len(keys))
    fold_of = {keys[i]: place % folds for place, i in enumerate(order.tolist())}
    fold = np.asarray([fold_of[key] for key in examples.keys])
    return [fold == number for number in range(folds)]


def primary_outcomes(examples: Examples, held_out: npt.NDArray[np.bool_]) -> list[Outcomes]:
    """The primary source's outcomes of the queries that bool (n,) marks: they judge a fit that did not see them."""
    parts = (examples.preferences, examples.performances)
    return [part.of_queries(held_out).primary() for part in parts if len(part)]


def enough_folds(examples: Examples, folds: list[npt.NDArray[np.bool_]]) -> list[npt.NDArray[np.bool_]]:
    """The first folds, up to `MOST_HELD_OUT` held-out outcomes of the primary source between them; at least one.

    Each fold costs one more fit, and so many outcomes tell a log loss to some thousandths.
    """
    held_out = [
        sum(len(part.of_queries(fold).primary()) for part in (examples.preferences, examples.performances))
        for fold in folds
    ]
    before = np.cumsum([0, *held_out[:-1]])
    return [fold for fold, so_far in zip(folds, before.tolist(), strict=True) if so_far < MOST_HELD_OUT]


def record_facts(examples: Examples, records_read: int) -> dict[str, Any]:
    """What a manifest says of the records of a training.

    Args:
        examples: what was learned from.
        records_read: number of records before any was left out.
    """
    preferences, performances = len(examples.preferences), len(examples.performances)
    return {
        "data_fingerprint": data_fingerprint(examples),
        "records": preferences + performances,
        "preference_records": preferences,
        "performance_records": performances,
        "records_left_out": records_read - preferences - performances,
        "queries": len(examples.queries),
        "sources": [str(source) for source in examples.sources],
    }


def data_fingerprint(examples: Examples) -> str:
    """The sha256 of all keys, tasks and outcomes, in order: it names the training data and reveals nothing."""
    named = [examples.tasks] if any(task is not None for task in examples.tasks) else []
    digest = hashlib.sha256()
    # The JSON of [keys, models, tasks], a part at a time: as one text it would take as much memory as all prompts.
    for text in _json_parts([examples.keys, examples.models, *named]):
        digest.update(text.encode("utf-8", "surrogatepass"))
    for outcomes in (examples.preferences, examples.performances):
        for array in (outcomes.query, outcomes.model, outcomes.target, outcomes.weight, outcomes.source):
            digest.update(array.tobytes())
    return digest.hexdigest()


def _json_parts(lists: Sequence[Sequence[str | None]]) -> Iterator[str]:
    """The text that `json.dumps` makes of lists of strings, in parts."""
    for number, values in enumerate(lists):
        yield "[[" if number == 0 else ", ["
        for start in range(0, len(values), _PROMPTS_AT_ONCE):
            yield ", " if start else ""
            yield json.dumps(values[start : start + _PROMPTS_AT_ONCE])[1:-1]
        yield "]"
    yield "]"
