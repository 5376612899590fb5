"""Names of the training records of an index, for explanations: hashes or texts of the queries, where asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...routers.bundle import Truncation
from ...routers.nearest import NamedBy, NamedRecord, NamedRecords
from ...routers.query import prompt_hash
from ..examples import Examples
from .index import IndexedNetwork
from .stored import StoredRouter


def named_index(
    network: IndexedNetwork,
    examples: Examples,
    rows: npt.NDArray[np.int64],
    columns: Sequence[int],
    by: NamedBy | Literal["none"],
    truncation: Truncation,
) -> bytes | None:
    """Name the records of an index, and let the graph of its network find the nearest ones.

    Args:
        network: over the index.
        examples: what was learned from.
        rows: int64 (n,), the queries of the index, as rows of the examples.
        columns: the exported models, as columns of all models.
        by: how to name the records.
        truncation: how much of a query is read.

    Returns:
        The bytes of records.json; None: the records get no names.

    Raises:
        InputError: the file would be too large.
    """
    if by == "none":
        return None
    network.finds_nearest = True
    return NamedRecords(by, named_records(examples, rows, columns, by, truncation)).to_json()


def extended_index(
    network: IndexedNetwork,
    stored: StoredRouter,
    examples: Examples,
    place: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
) -> bytes | None:
    """The names of an index that was extended, as `named_index` gives them, in the way of the stored router.

    Args:
        network: over the new index.
        stored: the router that was extended.
        examples: the k queries of the new records, over all models.
        place: int64 (k,), the row of each of them: of a query that is new, the next after all rows so far.
        rows: int64 (n,), the rows that the new index keeps.

    Returns:
        The bytes of records.json; None: the records of the stored router have no names.

    Raises:
        InputError: the file would be too large.
    """
    before = stored.records
    if before is None:
        return None
    network.finds_nearest = True
    every, models, truncation = list(before.records), range(len(examples.models)), stored.manifest.truncation
    added = named_records(examples, np.arange(len(place)), models, before.by, truncation)
    for record, row in zip(added, place.tolist(), strict=True):
        if row == len(every):
            every.append(record)
        else:
            every[row] = _joined(every[row], record)
    return NamedRecords(before.by, [every[row] for row in rows.tolist()]).to_json()


def named_records(
    examples: Examples,
    rows: npt.NDArray[np.int64],
    columns: Sequence[int],
    by: NamedBy,
    truncation: Truncation,
) -> list[NamedRecord]:
    """Names, and mean outcomes of some models, of some queries; arguments as those of `named_index`."""
    weight, total = _outcome_sums(examples, rows)
    records = []
    for place, row in enumerate(rows.tolist()):
        query = examples.queries[row]
        known = [column for column in columns if weight[place, column] > 0]
        outcomes = {examples.models[column]: _outcome(total[place, column], weight[place, column]) for column in known}
        records.append(NamedRecord(prompt_hash(query) if by == "hash" else truncation.read(query).text, outcomes))
    return records


def _outcome_sums(
    examples: Examples, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sums (k, m) of the weights, and of the weighted outcomes, of each model on the queries (k,)."""
    place = np.full(len(examples.queries), -1)
    place[rows] = np.arange(len(rows))
    weight = np.zeros((len(rows), len(examples.models)))
    total = np.zeros_like(weight)
    for every in (examples.preferences, examples.performances):
        part = every.of_queries(place >= 0)
        for column in range(part.model.shape[1]):
            cell = (place[part.query], part.model[:, column])
            np.add.at(weight, cell, part.weight)
            np.add.at(total, cell, part.weight * (part.target if column == 0 else 1 - part.target))
    return weight, total


def _joined(one: NamedRecord, other: NamedRecord) -> NamedRecord:
    """The record of a query that has outcomes in two files; it keeps its first name."""
    outcomes = dict(one.outcomes)
    for model, (mean, weight) in other.outcomes.items():
        first_mean, first_weight = outcomes.get(model, (0.0, 0.0))
        outcomes[model] = _outcome(first_mean * first_weight + mean * weight, first_weight + weight)
    return NamedRecord(one.name, outcomes)


def _outcome(total: float, weight: float) -> tuple[float, float]:
    """Mean and weight with six digits, which keep the file small."""
    return float(f"{total / weight:.6g}"), float(f"{weight:.6g}")
