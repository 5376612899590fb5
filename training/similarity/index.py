"""The index of a similarity router: int8 unit vectors of training queries, and the choice of those that it keeps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...routers.decision import Floats
from ...routers.session import FIND_NEAREST, NEAREST
from ..encoders.general_part import GeneralPart
from ..encoders.static import StaticEncoder
from ..encoders.static_network import PooledNodes, StaticNetwork, normalised
from ..export.graph_builder import FLOAT, GraphBuilder
from ..export.int8_steps import BITS, LARGEST_INPUT, SMALLEST, ZERO
from ..fit.calibration import Calibration

#: Most similarities that one run of the graph computes: some 16 MB.
SIMILARITIES_PER_RUN = 4_000_000
#: Most similarities, and most queries, that training computes at once: some 130 MB.
_SIMILARITIES_AT_ONCE = 1 << 25
_QUERIES_PER_REGION = 50
#: Training records that an explanation names, and the least weight whose log is taken: float32 has no smaller ones.
NEAREST_RECORDS, _LEAST_WEIGHT = 5, 1e-37
#: Queries that are looked up in an index at once.
_QUERIES_AT_ONCE = 512
_MOST_REGIONS = 256


@dataclass(frozen=True)
class IndexRows:
    """The training queries that an index keeps, and the models that it knows.

    Attributes:
        rows: int64 (k,), rows of the queries.
        weight: float32 (k, 1), how many queries each stands for.
        columns: the models, as columns of all models.
    """

    rows: npt.NDArray[np.int64]
    weight: Floats
    columns: list[int]

    def without(self, held_out: npt.NDArray[np.bool_]) -> IndexRows:
        """The index without the queries that bool (n,) marks."""
        kept = ~held_out[self.rows]
        return IndexRows(self.rows[kept], self.weight[kept], self.columns)


class IndexedNetwork(StaticNetwork):
    """A static network with an index of unit vectors: each is int8 with a scale of its own.

    Attributes:
        vectors: int8 (d, n), the rounded unit vectors.
        vector_scale: float32 (n,), their scales.
        vector_length: float16 (n,), -log norm of the queries' vectors before they were made unit vectors. Only
            `left_out` needs it, and only with a general part; empty: there is none.
        finds_nearest: the graph also gives the nearest rows of the index, with their cosines.
    """

    finds_nearest = False

    def __init__(self, encoder: StaticEncoder, epsilon: float, unit: Floats) -> None:
        """Make an index of unit vectors, float32 (n, d)."""
        super().__init__(encoder, epsilon)
        whole, self.vector_scale = _rounded(unit)
        self.vectors = np.ascontiguousarray(whole.T)
        self.vector_length = np.zeros(0, np.float16)

    def keep_general(self, part: GeneralPart | None, length: Floats) -> None:
        """Blend the quality with a general part; None: with none.

        Args:
            part: what a general router adds.
            length: (n,), -log norm of the vectors in the index.
        """
        self.general = part
        if part is not None:
            self.vector_length = length.astype(np.float16)

    @abstractmethod
    def own_left_out(self, unit: Floats, rows: npt.NDArray[np.int64]) -> Floats:
        """Quality (k, m) by the head alone of some rows of the index, each computed without itself; see `left_out`."""

    def left_out(self, unit: Floats, rows: npt.NDArray[np.int64]) -> Floats:
        """Quality (k, m) of some rows of the index, each computed without its own evidence, whose weight is 1.

        Args:
            unit: float32 (n, d), the unit vectors of the index.
            rows: int64 (k,).
        """
        own = self.own_left_out(unit, rows)
        if self.general is None:
            return own
        features = np.concatenate([unit[rows], self.vector_length[rows, None].astype(np.float32)], axis=1)
        return self.general.blended(own, features, unit[rows])

    def similarities(self, total: Floats) -> Floats:
        """Cosines (k, n) of queries to the index, from the sums of their token vectors (k, d)."""
        dimensions = total.shape[1]
        # What is rounded to 8 bits are whole numbers: in the last digit of a unit vector numpy and the graph differ.
        centred = total * np.float32(dimensions) - total.sum(axis=1, keepdims=True)
        step = np.maximum(np.abs(centred).max(axis=1, keepdims=True), np.float32(SMALLEST)) / np.float32(LARGEST_INPUT)
        whole = np.rint(centred / step) @ self.vectors.astype(np.float32)  # exact: integers below 2**24
        inverse = normalised(total, self.epsilon)[1]
        return np.asarray(whole * self.vector_scale * step * (inverse * np.float32(dimensions**-1.5)), np.float32)

    def add_similarities(self, graph: GraphBuilder, pooled: PooledNodes) -> str:
        """Add the nodes that compute the cosines (k, n); return the name of the result."""
        dimensions, last = self.table.shape[1], graph.axes(1)
        grown = graph.node("Mul", pooled.total, graph.scalar("dimensions", dimensions))
        centred = graph.node("Sub", grown, graph.node("ReduceSum", pooled.total, last, keepdims=1))
        # QuantizeLinear divides, rounds and shifts in one pass.
        largest = graph.node("ReduceMax", graph.node("Abs", centred), last, keepdims=0)
        bounded = graph.node("Max", largest, graph.scalar("smallest", SMALLEST))
        step = graph.node("Div", bounded, graph.scalar("largest_input", LARGEST_INPUT))
        zero = graph.constant("zero", np.asarray(ZERO, np.uint8))
        zeros = graph.node("Expand", zero, graph.node("Shape", step))
        rounded = graph.node("QuantizeLinear", centred, step, zeros, axis=0)
        if len(self.vector_length):  # no node reads it: it is for `extend`
            graph.constant("vector_length", self.vector_length)
        whole = graph.node("MatMulInteger", rounded, graph.constant("vectors", self.vectors), zero)
        scaled = graph.node(
            "Mul", graph.node("Cast", whole, to=FLOAT), graph.constant("vector_scale", self.vector_scale)
        )
        length = graph.node("Mul", pooled.inverse, graph.scalar("length", dimensions**-1.5))
        return graph.node("Mul", scaled, graph.node("Mul", graph.node("Unsqueeze", step, last), length))

    @contextmanager
    def add_nearest(self, graph: GraphBuilder, weight: str) -> Iterator[str]:
        """Add the rows with the largest weights (k, n), where somebody asks for them; give the logs of these weights.

        The weights grow with the cosines; the caller adds the cosines, ``nearest_similarity_found``, from their logs.
        (A second reader of the cosines themselves would keep the nodes after them from working in place.)
        """
        count = min(NEAREST_RECORDS, len(self.vector_scale))
        self.further_outputs = dict.fromkeys(NEAREST, ("batch", "records"))
        with graph.only_if(FIND_NEAREST, NEAREST):
            number = graph.constant("nearest_records", np.asarray([count], np.int64))
            graph.node("TopK", weight, number, output=("nearest_weight", "nearest_rows"))
            graph.node("Cast", "nearest_rows", output="nearest_found", to=FLOAT)
            yield graph.node("Log", graph.node("Max", "nearest_weight", graph.scalar("least_weight", _LEAST_WEIGHT)))


def add_calibrated(graph: GraphBuilder, utilities: str, calibration: Calibration, centre: bool, output: str) -> None:
    """Add the nodes that compute the quality from utilities, centred over the models where asked."""
    scaled = graph.node("Mul", utilities, graph.scalar("slope", calibration.slope))
    if centre:
        scaled = graph.node("Sub", scaled, graph.node("ReduceMean", scaled, graph.axes(1), keepdims=1))
    else:
        scaled = graph.node("Add", scaled, graph.scalar("intercept", calibration.intercept))
    graph.node("Sigmoid", scaled, output=output)


def places_in(index: Floats, unit: Floats) -> npt.NDArray[np.int64]:
    """The row of each query (k, d) in the index (n, d), int64 (k,); from n on where it is not in the index.

    A prompt is in the index when its vector, rounded as the index is, is there: the index keeps no text.
    """
    whole, stored = _rounded(unit)[0].astype(np.int32), _rounded(index)[0].astype(np.int32)
    place = np.empty(len(unit), np.int64)
    for rows in blocks(len(unit), len(index)):
        nearest = (unit[rows] @ index.T).argmax(axis=1)
        same = np.abs(stored[nearest] - whole[rows]).max(axis=1) <= 1
        place[rows] = np.where(same, nearest, -1)
    new = place < 0
    place[new] = len(index) + np.arange(int(new.sum()))
    return place


def _rounded(unit: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Vectors (n, d) rounded to 8 bits, and their scales (n,)."""
    scale = np.maximum(np.abs(unit).max(axis=1), 1e-12) / np.float32(2 ** (BITS - 1) - 1)
    return np.rint(unit / scale[:, None]).astype(np.int8), scale


def blocks(queries: int, size: int) -> list[slice]:
    """Slices of a number of queries that are compared with an index of `size` rows at once."""
    step = max(1, min(_QUERIES_AT_ONCE, _SIMILARITIES_AT_ONCE // max(1, size)))
    return [slice(start, start + step) for start in range(0, queries, step)]


def rows_per_run(size: int) -> int:
    """The most queries of one run of a graph whose index has `size` rows."""
    return max(1, SIMILARITIES_PER_RUN // max(1, size))


def subsample(
    vectors: npt.NDArray[np.float32], answered: npt.NDArray[np.bool_], size: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Choose rows of an index so that every region and every model stays covered.

    Regions are k-means clusters. Each keeps rows in proportion to the square root of its size, so that rare kinds of
    query keep a larger part of their rows. Every model keeps at least an even share.

    Args:
        vectors: (n, d) unit vectors.
        answered: bool (n, m), whether a row says something of a model.
        size: rows to keep.
        seed: of the clusters and the draw.

    Returns:
        The kept rows in rising order, and the weight of each: the size of its region divided by the rows that the
        region keeps, so that sums over the index keep their expectation.
    """
    count = len(vectors)
    if count <= size:
        return np.arange(count), np.ones(count, np.float32)
    from sklearn.cluster import MiniBatchKMeans

    regions = int(np.clip(size // _QUERIES_PER_REGION, 1, _MOST_REGIONS))
    means = MiniBatchKMeans(regions, random_state=seed, n_init="auto", batch_size=4096)
    region = means.fit_predict(vectors)
    held = np.bincount(region, minlength=regions)
    random = np.random.default_rng(seed)
    order = random.permutation(count)
    # Models first: the rarest model picks its share before the others.
    share = size // (2 * answered.shape[1])
    kept = np.zeros(count, np.bool_)
    for model in np.argsort(answered.sum(axis=0)):
        candidates = order[answered[order, model]]
        missing = min(share, len(candidates)) - int(kept[candidates].sum())
        if missing > 0:
            kept[candidates[~kept[candidates]][:missing]] = True
    # Then regions, filled up to their quota, and what is left over at random.
    quota = np.sqrt(held) / np.sqrt(held).sum() * (size - kept.sum())
    rank = np.empty(count, np.int64)
    for number in range(regions):
        rows = order[(region[order] == number) & ~kept[order]]
        rank[rows] = np.arange(len(rows))
    kept |= rank < np.floor(quota)[region]
    left = order[~kept[order]][: max(0, size - int(kept.sum()))]
    kept[left] = True
    rows = np.flatnonzero(kept)[:size]
    weight = held / np.maximum(np.bincount(region[rows], minlength=regions), 1)
    return rows, weight[region[rows]].astype(np.float32)
