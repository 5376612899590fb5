"""What records add to a stored similarity router: queries, some of which are in its index already, and models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...data.records import Record
from ...routers.decision import Floats
from ...routers.errors import InputError
from ..encoders.static_network import encode_queries
from ..examples import Examples, examples_of
from .index import places_in
from .stored import StoredRouter


@dataclass(frozen=True, kw_only=True)
class Additions:
    """What is added to a stored router.

    Attributes:
        examples: the new records, over all models: those of the stored router first.
        new_models: models that the stored router does not know.
        encoded: float32 (k, d), unit vectors of the new records' queries.
        length: float32 (k,), -log norm of their vectors.
        unit: float32 (n, d), unit vectors of the queries in the index, then those that are not in it yet.
        place: int64 (k,), the row in `unit` of each query of the new records.
        stored_rows: number of queries in the index before.
    """

    examples: Examples
    new_models: list[str]
    encoded: Floats
    length: Floats
    unit: Floats
    place: npt.NDArray[np.int64]
    stored_rows: int

    @property
    def merged(self) -> int:
        """The number of queries that were in the index already."""
        return len(self.place) - (len(self.unit) - self.stored_rows)

    def summed(self, stored: Floats, added: Floats) -> Floats:
        """Rows (n, m) of the extended index: those that are stored, with the new queries' rows (k, m) added."""
        rows = np.zeros((len(self.unit), added.shape[1]), np.float32)
        rows[: len(stored), : stored.shape[1]] = stored
        np.add.at(rows, self.place, added.astype(np.float32))
        return rows


def additions_to(stored: StoredRouter, records: Sequence[Record]) -> Additions:
    """What records add to a stored router; those marked "test" are left out.

    Raises:
        InputError: there are no others.
    """
    trainable = [record for record in records if record.split != "test"]
    if not trainable:
        raise InputError(f"no records to add: {len(records)} were given, and all are marked 'test'; expected others")
    seen = {name for record in trainable for name in record.models}
    new_models = sorted(seen.difference(stored.models))
    names = [*stored.models, *new_models]
    examples = _over_pool(examples_of(trainable, [name for name in names if name in seen], informative=False), names)
    encoded = encode_queries(examples.queries, stored.encoder, stored.manifest.truncation, stored.index.epsilon)
    before = stored.unit()
    place = places_in(before, encoded.unit)
    return Additions(
        examples=examples,
        new_models=new_models,
        encoded=encoded.unit,
        length=np.log(encoded.inverse[:, 0]),
        unit=np.concatenate([before, encoded.unit[place >= len(before)]]),
        place=place,
        stored_rows=len(before),
    )


def _over_pool(examples: Examples, names: Sequence[str]) -> Examples:
    """The examples over a whole pool, which may hold models that they do not mention."""
    column = np.asarray([names.index(name) for name in examples.models])
    parts = [replace(part, model=column[part.model]) for part in (examples.preferences, examples.performances)]
    return replace(examples, models=tuple(names), preferences=parts[0], performances=parts[1])
