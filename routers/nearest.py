"""The training records that a similarity bundle names: records.json, and the ones nearest to a query.

A bundle holds the file only where its training was told to name the records. It has one entry for each row of the
index, in the order of the rows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .bundle import MAX_BYTES, RECORDS
from .decision import Floats
from .errors import BundleCorruptError, InputError
from .json_size import check_size

#: How records are named: by `prompt_hash` of the query, or by the text that the router reads of it.
NamedBy = Literal["hash", "text"]
#: The most JSON objects and values of the file.
MAX_OBJECTS, MAX_VALUES = 2_000_000, 8_000_000


@dataclass(frozen=True)
class NamedRecord:
    """What a bundle says of one training query.

    Attributes:
        name: the hash or the text of the query.
        outcomes: mean and weight of the outcomes of each model that the query has records of. Of a performance the
            outcome is the score, of a preference the win rate over the other model, ties one half.
    """

    name: str
    outcomes: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class NearestRecord:
    """A training record that is near to a query.

    Attributes:
        name: the hash of the training query (`prompt_hash`), or its text as far as the router reads it.
        similarity: cosine between the vectors of the two queries, as the router computes it: the vector of the training
            query is rounded to 8 bits, so that it is not exactly 1 for the same query.
        quality: the mean outcome of each model that the training query has records of, in [0, 1].

    Example:
        >>> from routelearn.routers import NearestRecord
        >>> NearestRecord("5d41402abc4b2a76", 0.93, {"gpt-4o": 1.0}).quality["gpt-4o"]
        1.0
    """

    name: str
    similarity: float
    quality: Mapping[str, float]


@dataclass(frozen=True)
class NamedRecords:
    """The content of records.json.

    Attributes:
        by: how the records are named.
        records: one for each row of the index, in the order of the rows.
    """

    by: NamedBy
    records: Sequence[NamedRecord]

    def to_json(self) -> bytes:
        """The file.

        Raises:
            InputError: it would be larger than a loader reads.
        """
        content = {"by": self.by, "records": [{"name": one.name, "outcomes": one.outcomes} for one in self.records]}
        data = (json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n").encode()
        try:
            if len(data) > MAX_BYTES[RECORDS]:
                raise ValueError(f"it has {len(data):,} bytes; expected at most {MAX_BYTES[RECORDS]:,}")
            check_size(data, MAX_OBJECTS, MAX_VALUES)
        except ValueError as error:
            raise InputError(
                f"{len(self.records):,} records cannot be named by {self.by} in {RECORDS}: {error}. Name them by hash, "
                "or keep fewer queries in the index"
            ) from error
        return data

    @classmethod
    def from_json(cls, data: bytes, rows: object) -> NamedRecords:
        """Read the file.

        Args:
            data: its bytes.
            rows: the number of rows of the index, as router.json has it.

        Raises:
            BundleCorruptError: it is not what an export writes, or has another number of entries.
        """
        try:
            check_size(data, MAX_OBJECTS, MAX_VALUES)
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BundleCorruptError(f"{RECORDS} is not JSON that may be read: {error}") from error
        if (
            not isinstance(content, dict)
            or set(content) != {"by", "records"}
            or not isinstance(content["records"], list)
        ):
            raise BundleCorruptError(f"{RECORDS} is not an object with the fields 'by' and 'records', a list")
        by, entries = content["by"], content["records"]
        if by not in get_args(NamedBy):
            raise BundleCorruptError(f"{RECORDS} has by {by!r:.80}; expected one of {list(get_args(NamedBy))}")
        if type(rows) is not int or len(entries) != rows:
            raise BundleCorruptError(
                f"{RECORDS} has {len(entries):,} records; expected {rows!r:.80}, the queries of training.index"
            )
        return cls(by, [_record(number, entry) for number, entry in enumerate(entries)])

    def nearest(self, rows: Floats, similarity: Floats) -> tuple[NearestRecord, ...]:
        """The records of some rows (k,) of the index, with their similarities (k,).

        Raises:
            BundleCorruptError: the index has no such row.
        """
        found = []
        for row, value in zip(rows.tolist(), similarity.tolist(), strict=True):
            if not 0 <= row < len(self.records):  # NaN too
                raise BundleCorruptError(f"model.onnx gives row {row} of an index of {len(self.records):,} rows")
            record = self.records[int(row)]
            quality = {model: mean for model, (mean, _) in record.outcomes.items()}
            found.append(NearestRecord(record.name, value, quality))
        return tuple(found)


def _record(number: int, entry: Any) -> NamedRecord:
    if not isinstance(entry, dict) or set(entry) != {"name", "outcomes"}:
        raise BundleCorruptError(
            f"{RECORDS}, record {number}: {entry!r:.80}; expected the fields 'name' and 'outcomes'"
        )
    name, outcomes = entry["name"], entry["outcomes"]
    if not isinstance(name, str) or not isinstance(outcomes, dict):
        raise BundleCorruptError(f"{RECORDS}, record {number}: {entry!r:.80}; expected a text and an object")
    for model, outcome in outcomes.items():
        if not _is_outcome(outcome):
            raise BundleCorruptError(
                f"{RECORDS}, record {number}, outcomes[{model!r:.80}]: {outcome!r:.80}; expected [mean, weight], the "
                "mean from 0 to 1 and the weight above 0"
            )
    return NamedRecord(name, {model: (float(mean), float(weight)) for model, (mean, weight) in outcomes.items()})


def _is_outcome(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not all(type(one) in {int, float} for one in value):
        return False
    mean, weight = value
    return bool(0 <= mean <= 1 and 0 < weight <= sys.float_info.max)  # NaN is refused as well
