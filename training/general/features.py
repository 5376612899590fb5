"""What the general recipe needs of an encoder: features that a linear head reads, and a graph with such a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...routers.bundle import Manifest, Truncation
from ...routers.decision import Floats
from ...routers.query import Query
from ..export.publish import Gate
from ..fit.drift_reference import Projection
from ..fit.minimise import Array

#: Called with a number of queries, to show progress.
OnQueries = Callable[[int], object]


def nothing(count: int) -> None:
    """Show no progress."""
    del count


@dataclass(frozen=True)
class LinearHead:
    """What an exported general router computes from standardised features (n, f).

    Attributes:
        weight: (f, 2), to the slope and the intercept of a query.
        bias: (2,).
        abilities: (2,), of the typical strong and the typical weak model, whose qualities the graph itself computes.
        centroids: float32 (c, d), of the unit vectors of training queries, for the novelty.
        projection: from the features to the few numbers that drift is measured on.
    """

    weight: Array
    bias: Array
    abilities: Array
    centroids: Floats
    projection: Projection


@dataclass(frozen=True)
class Exported:
    """A graph and the gate that it has to pass.

    Attributes:
        model: the ONNX graph.
        gate: refuses the graph where it is not the network.
        golden_tolerance: largest |difference| of a golden quality that still passes at load.
    """

    model: bytes
    gate: Gate
    golden_tolerance: float = Manifest.golden_tolerance


class TextFeatures(Protocol):
    """An encoder with the means and scales that standardise its features."""

    @property
    def truncation(self) -> Truncation:
        """How much of a query is read."""
        ...

    @property
    def tokenizer_json(self) -> bytes:
        """The bytes of the tokenizer."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the encoder."""
        ...

    def learn(self, queries: Sequence[Query], on_queries: OnQueries = nothing) -> tuple[Array, Floats]:
        """Learn the means and scales from n training queries.

        Args:
            queries: the queries.
            on_queries: called with the number of queries that were encoded, to show progress.

        Returns:
            Features float64 (n, f) and unit vectors float32 (n, d) of these queries.
        """
        ...

    def of(self, queries: Sequence[Query]) -> Array:
        """Features float64 (n, f) of n queries, after `learn`."""
        ...

    def export(
        self, head: LinearHead, queries: Sequence[Query], held_out: npt.NDArray[np.bool_], seed: int
    ) -> Exported:
        """The graph of this encoder with a head.

        Args:
            head: the head.
            queries: the n training queries.
            held_out: bool (n,), those that the gate of an int8 graph compares first.
            seed: of the choice of queries that int8 is calibrated on.
        """
        ...
