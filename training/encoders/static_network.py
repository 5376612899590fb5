"""The networks of static routers: token table and pooling, in numpy and as ONNX nodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...routers.bundle import Truncation
from ...routers.decision import Floats
from ...routers.query import Query
from ...routers.tokenizer import Ids, Lengths, encode
from ..export.gate import NetworkQuality
from ..export.graph_builder import FLOAT, GraphBuilder
from ..fit.drift_reference import Projection
from .general_part import GeneralPart
from .static import StaticEncoder, tokenize

#: Queries that are encoded at once.
_QUERIES_AT_ONCE = 16_384


class StaticNetwork(ABC):
    """Token table and pooling, which every static router shares, in training, parity gate and export.

    A subclass adds the head: its numbers in `quality`, and its nodes in `add_quality`.

    Attributes:
        table: int8 (vocabulary, d).
        epsilon: added to the variance of a query's vector over the dimensions. It bounds the inverse length of an
            empty query.
        centroids: float32 (c, d), of the training queries; the novelty of a query is its distance from the nearest.
        projection: the sketch that drift is measured on.
        general: what a general router adds to the quality of the head; None: nothing.
    """

    #: Names of the arrays that are stored as float16.
    halved: tuple[str, ...] = ()
    #: Whether the sketch reads the features (n, d + 1), or the unit vectors (n, d).
    sketches_features = False
    #: Shapes of the outputs that the head adds to those of every router.
    further_outputs: Mapping[str, Sequence[int | str]] = {}

    def __init__(self, encoder: StaticEncoder, epsilon: float) -> None:
        """Make a network over an encoder."""
        self.table = encoder.table
        self.epsilon = epsilon
        self.centroids: Floats = np.zeros((1, encoder.dimensions), np.float32)
        self.projection: Projection = (np.zeros((encoder.dimensions, 1), np.float32), np.zeros(1, np.float32))
        self.general: GeneralPart | None = None

    @abstractmethod
    def quality(self, total: Floats) -> Floats:
        """Quality (n, m) of queries by the head, from the sums of their token vectors (n, d)."""

    @abstractmethod
    def add_quality(self, graph: GraphBuilder, pooled: PooledNodes, output: str) -> int:
        """Add the nodes that compute the quality by the head, under that name; return the number of models."""

    def whole_quality(self, total: Floats) -> Floats:
        """Quality (n, m) of queries by the head and by the general router, as the graph gives it."""
        own = self.quality(total)
        if self.general is None:
            return own
        unit, features = features_of(total, self.epsilon)
        return self.general.blended(own, features, unit)

    def sketch(self, vectors: Floats) -> Floats:
        """The few numbers (n, k) that drift is measured on, from the vectors (n, d) that the head reads."""
        return np.asarray(vectors @ self.projection[0] + self.projection[1], np.float32)

    def export(self, metadata: dict[str, str] | None = None) -> bytes:
        """The network as an ONNX model with the outputs ``quality``, ``novelty`` and ``vector``."""
        graph = GraphBuilder()
        pooled = add_pooling(graph, self.table, self.epsilon)
        models = self.add_quality(graph, pooled, "quality" if self.general is None else "own_quality")
        if self.general is not None:
            self.general.add_blended(graph, "own_quality", pooled.features(graph), pooled.unit)
        one = graph.constant("one", np.ones(1, np.float32))
        # One product and one reduction, because each node of the graph costs a single query time.
        centroids = graph.constant("centroids", self.centroids.T)
        distance = graph.node("Gemm", pooled.unit, centroids, one, alpha=-1.0)
        graph.node("ReduceMin", distance, graph.axes(1), output="novelty", keepdims=0)
        weight, offset = self.projection
        seen = pooled.features(graph) if self.sketches_features else pooled.unit
        names = graph.constant("projection", weight), graph.constant("projection_offset", offset)
        graph.node("Gemm", seen, *names, output="vector")
        outputs: dict[str, Sequence[int | str]] = {
            "quality": ("batch", models),
            "novelty": ("batch",),
            "vector": ("batch", weight.shape[1]),
            **self.further_outputs,
        }
        return graph.model(outputs, metadata)


@dataclass
class PooledNodes:
    """Names of the values that pooling computes.

    Attributes:
        total: float32 (n, d), sums of the table's rows.
        unit: float32 (n, d), unit vectors.
        inverse: float32 (n, 1), inverse standard deviations.
    """

    total: str
    unit: str
    inverse: str
    _features: str = ""

    def features(self, graph: GraphBuilder) -> str:
        """The features [unit vector; -log norm] (n, d + 1)."""
        if not self._features:
            self._features = graph.node("Concat", self.unit, graph.node("Log", self.inverse), axis=1)
        return self._features


def add_pooling(graph: GraphBuilder, table: npt.NDArray[np.int8], epsilon: float) -> PooledNodes:
    """Add the nodes that sum the table's rows at a query's token ids, and normalise the sum."""
    # MatMulInteger sums with the processor's int8 instructions. This is 2 to 8 times faster than a cast of the gathered
    # rows and a sum (measured).
    axis = graph.axes(1)
    rows = graph.node("Gather", graph.constant("table", table), "input_ids", axis=0)
    summed = graph.node("MatMulInteger", graph.node("Unsqueeze", "attention_mask", axis), rows)
    total = graph.node("Cast", graph.node("Squeeze", summed, axis), to=FLOAT)
    gain = graph.constant("gain", np.full(table.shape[1], table.shape[1] ** -0.5, np.float32))
    graph.node("LayerNormalization", total, gain, output=("unit", "", "inverse"), axis=-1, epsilon=epsilon)
    return PooledNodes(total, "unit", "inverse")


def normalised(total: Floats, epsilon: float) -> tuple[Floats, Floats]:
    """Unit vectors (n, d) and inverse standard deviations (n, 1) of sums of token vectors (n, d)."""
    wide = total.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    inverse = 1 / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + epsilon)
    unit = centred * inverse * total.shape[1] ** -0.5
    return unit.astype(np.float32), inverse.astype(np.float32)


def features_of(total: Floats, epsilon: float) -> tuple[Floats, Floats]:
    """Unit vectors (n, d) and features [unit vector; -log norm] (n, d + 1) of sums of token vectors (n, d)."""
    unit, inverse = normalised(total, epsilon)
    return unit, np.concatenate([unit, np.log(inverse)], axis=1)


def epsilon_of(total: Floats) -> float:
    """A tenth of the smallest variance among the queries' sums (n, d): too little to change any of them."""
    variance = total.var(axis=1, dtype=np.float64)
    return float(variance[variance > 0].min()) / 10 if (variance > 0).any() else 1.0


def table_sums(table: npt.NDArray[np.int8], ids: Ids, lengths: Lengths) -> Floats:
    """Sum of the table's rows at the ids of every query, float32 (n, d), exactly as the graph computes it.

    Args:
        table: int8 (vocabulary, d).
        ids: int32 (total,), the ids of all n queries one after the other.
        lengths: int64 (n,), numbers of ids.
    """
    from scipy.sparse import csr_array

    starts = np.concatenate([[0], np.cumsum(lengths)])
    counts = csr_array((np.ones(len(ids), np.float32), ids, starts), (len(lengths), len(table)))
    return np.asarray(counts @ table.astype(np.float32))  # integers up to 2**24 are exact in float32


def unit_sums(queries: Sequence[Query], encoder: StaticEncoder) -> Floats:
    """Unit vectors of the sums of the queries' distinct tokens, float32 (n, d): what kNN and k-means compare."""
    total = table_sums(encoder.table, *tokenize(queries, encoder.backend(), Truncation(distinct=True)))
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9), np.float32)


@dataclass(frozen=True)
class EncodedQueries:
    """Queries as a static encoder reads them.

    Attributes:
        encoder: the token table.
        truncation: how much of a query is read.
        epsilon: added to the variance of a query's vector over the dimensions.
        unit: float32 (n, d), unit vectors of the n queries.
        inverse: float32 (n, 1), inverse standard deviations of the sums of their token vectors.
    """

    encoder: StaticEncoder
    truncation: Truncation
    epsilon: float
    unit: Floats
    inverse: Floats

    @property
    def features(self) -> Floats:
        """The unit vectors and -log norm: float32 (n, d + 1)."""
        return self.features_at(slice(None))

    def features_at(self, rows: npt.NDArray[np.int64] | slice) -> Floats:
        """The features of some queries, by their rows: float32 (k, d + 1)."""
        return np.concatenate([self.unit[rows], np.log(self.inverse[rows])], axis=1)


def encode_queries(
    queries: Sequence[Query], encoder: StaticEncoder, truncation: Truncation, epsilon: float | None = None
) -> EncodedQueries:
    """Encode queries.

    Args:
        queries: n queries.
        encoder: the token table.
        truncation: how much of a query is read.
        epsilon: added to the variance of a query's vector over the dimensions. None takes a value that is too small to
            change any of these queries.
    """
    backend, table = encoder.backend(), encoder.table
    blocks = [slice(start, start + _QUERIES_AT_ONCE) for start in range(0, len(queries), _QUERIES_AT_ONCE)]
    vectors = np.empty((len(queries), encoder.dimensions), np.float32)
    for rows in blocks:
        vectors[rows] = table_sums(table, *tokenize(queries[rows], backend, truncation))
    if epsilon is None:
        epsilon = epsilon_of(vectors)
    inverse = np.empty((len(queries), 1), np.float32)
    for rows in blocks:  # in place, since the vectors are what takes the memory
        vectors[rows], inverse[rows] = normalised(vectors[rows], epsilon)
    return EncodedQueries(encoder=encoder, truncation=truncation, epsilon=epsilon, unit=vectors, inverse=inverse)


def static_quality(network: StaticNetwork, encoder: StaticEncoder, truncation: Truncation) -> NetworkQuality:
    """Quality (n, m) of queries by the network, one at a time: what the graph must reproduce, however it batches."""
    backend = encoder.backend()

    def quality(queries: Sequence[Query]) -> Floats:
        texts = [truncation.read(query).text for query in queries]
        kept = [np.unique(truncation.kept(encode(backend, [text])[0])) for text in texts]
        lengths = np.asarray([len(ids) for ids in kept], np.int64)
        total = table_sums(network.table, np.concatenate(kept) if kept else np.zeros(0, np.int32), lengths)
        return network.whole_quality(total)

    return quality
