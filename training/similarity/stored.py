"""A similarity bundle as `extend` reads it: its index, typed, and the arrays of its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...routers.base import win_rate
from ...routers.bundle import MODEL, RECORDS, TOKENIZER, Manifest, read_bundle
from ...routers.decision import Floats
from ...routers.errors import BundleCorruptError, InputError
from ...routers.nearest import NamedRecords
from ..encoders.general_part import GeneralPart
from ..encoders.static import StaticEncoder
from ..export.graph_builder import stored_arrays
from ..fit.calibration import Calibration
from ..fit.drift_reference import Projection
from ..fit.minimise import Array
from .config import KINDS


@dataclass(frozen=True, kw_only=True)
class Index:
    """What a manifest keeps of the index of any similarity router, under ``training.index``.

    Attributes:
        queries: number of queries in the index.
        epsilon: added to the variance of a query's vector over the dimensions.
        scale: a token's vector is its int8 row in the table times this scale.
    """

    queries: int
    epsilon: float
    scale: float

    def to_dict(self) -> dict[str, Any]:
        """The stored form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Any:
        """Read the stored form.

        Raises:
            BundleCorruptError: a field is missing, or there is one too many.
        """
        try:
            return cls(**content)
        except TypeError as error:
            raise BundleCorruptError(f"training.index of the manifest cannot be read: {error}") from error


@dataclass(frozen=True, kw_only=True)
class KernelIndex(Index):
    """The index of a router of the method "kernel"; see `kernel.py`.

    Attributes:
        bandwidth: the weight of a query in the index is ``exp(bandwidth * (cosine - 1))``.
        prior: amount of evidence that the global ranking counts for.
        base: quality or utility of each model, whatever the query.
        of_quality: base and evidence are qualities, not utilities.
        centre: utilities are centred over the models, since there are only preferences.
    """

    bandwidth: float
    prior: float
    base: list[float]
    of_quality: bool
    centre: bool


@dataclass(frozen=True, kw_only=True)
class RankingIndex(Index):
    """The index of a router of the method "bradley-terry"; see `weighted_ranking.py`.

    Attributes:
        tiers: the tier of each model, 0 the best.
        steps: steps of the graph's iteration.
    """

    tiers: list[int]
    steps: int


@dataclass(frozen=True)
class StoredGeneral:
    """What a general router adds to a stored router.

    Attributes:
        part: its numbers.
        ability: float64 (m,), of the models, in the order of the graph's columns.
        length: float32 (n,), -log norm of the vectors in the index.
    """

    part: GeneralPart
    ability: Array
    length: Floats


@dataclass(frozen=True)
class StoredRouter:
    """A similarity bundle that was read.

    Attributes:
        manifest: its manifest.
        index: its index, typed.
        calibration: what was folded into the graph.
        arrays: the initializers of its graph, by name.
        encoder: its static encoder.
        seed: seed of the training.
        strong_share: strong share of the default threshold.
        index_size: most queries in the index.
        records: the names of the records in the index; None: they have none.
    """

    manifest: Manifest
    index: KernelIndex | RankingIndex
    calibration: Calibration
    arrays: dict[str, Any]
    encoder: StaticEncoder
    seed: int
    strong_share: float
    index_size: int
    records: NamedRecords | None = None

    @classmethod
    def read(cls, bundle: str | Path) -> StoredRouter:
        """Read a similarity bundle.

        Raises:
            InputError: it is a bundle of another kind.
            BundleError: the bundle cannot be trusted.
        """
        manifest, contents = read_bundle(bundle)
        if manifest.kind not in KINDS.values():
            raise InputError(
                f"{bundle} is a {manifest.kind} router; expected a similarity router: only a similarity "
                "router can be extended"
            )
        if "placed" in manifest.training:
            raise InputError(
                f"{bundle} has models that adapt placed, {list(manifest.training['placed'])}; expected the bundle that "
                "it was made from: extend that one, then adapt it"
            )
        training, arrays = manifest.training, stored_arrays(contents[MODEL])
        kind: type[Index] = KernelIndex if manifest.kind == KINDS["kernel"] else RankingIndex
        index = kind.from_dict(training["index"])
        return cls(
            manifest=manifest,
            index=index,
            calibration=Calibration(**manifest.calibration),
            arrays=arrays,
            encoder=StaticEncoder(
                table=arrays["table"].copy(),
                scale=index.scale,
                tokenizer_json=contents[TOKENIZER],
                fingerprint=training["encoder_fingerprint"],
            ),
            seed=training["config"]["seed"],
            strong_share=training["config"]["strong_share"],
            index_size=training["config"]["index_size"],
            records=NamedRecords.from_json(contents[RECORDS], index.queries) if RECORDS in contents else None,
        )

    @property
    def models(self) -> list[str]:
        """Names of the pool, in the order of the graph's columns."""
        return [model.name for model in self.manifest.pool]

    def unit(self) -> Floats:
        """The unit vectors of the index as the graph has them, rounded, float32 (n, d).

        Rounding makes them a little longer or shorter. They are not made unit vectors again: that would change every
        similarity, and so the qualities of models that get no records.
        """
        return np.asarray(self.arrays["vectors"].T.astype(np.float32) * self.arrays["vector_scale"][:, None])

    def array(self, name: str) -> Floats:
        """An initializer of the graph as float32."""
        return np.asarray(self.arrays[name], np.float32)

    def projection(self) -> Projection | None:
        """Weight and offset of the sketch that drift is measured on; None: bundles of version 1 have none."""
        weight = self.arrays.get("projection")
        if weight is None:
            return None
        return weight, self.arrays["projection_offset"]

    def general(self) -> StoredGeneral | None:
        """The general part; None: the router has none.

        Raises:
            BundleCorruptError: a piece of it is missing.
        """
        if "general_weight" not in self.arrays:
            return None
        try:
            abilities = self.manifest.training["general"]["abilities"]
            return StoredGeneral(
                part=GeneralPart(
                    weight=self.array("general_weight"),
                    bias=self.array("general_bias"),
                    least=self.array("least_share").item(),
                    direction=self.array("share_direction")[:, 0],
                    offset=self.array("share_offset").item(),
                ),
                ability=np.array([abilities[name] for name in self.models]),
                length=self.array("vector_length"),
            )
        except KeyError as error:
            raise BundleCorruptError(f"the general part of the router lacks {error}; train the router again") from error

    def scores(self, quality: Floats) -> Floats:
        """Scores (n,) of qualities (n, m)."""
        strong, weak = self.manifest.columns
        return win_rate(quality[:, strong], quality[:, weak], self.manifest.link)
