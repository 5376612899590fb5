"""The index of a similarity router: int8 unit vectors of training queries, and the choice of those that it keeps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ..encoders.static import StaticEncoder
from ..encoders.static_network import StaticNetwork
from ..export.int8 import BITS, rounded
from ..export.to_onnx import embedding_sum, int8_linear

#: Most similarities that one run of the graph computes: some 16 MB.
SIMILARITIES_PER_RUN = 4_000_000
_QUERIES_PER_REGION = 50
#: Queries that are looked up in an index at once.
_QUERIES_AT_ONCE = 512
_MOST_REGIONS = 256


class IndexedNetwork(StaticNetwork):
    """A static network with an index of unit vectors: each is int8 with a scale of its own."""

    vectors: torch.Tensor
    vector_scale: torch.Tensor

    def __init__(self, encoder: StaticEncoder, epsilon: float, unit: torch.Tensor) -> None:
        """Make an index of unit vectors, float32 (n, d)."""
        super().__init__(encoder, epsilon)
        vectors, scale = rounded(unit, BITS)
        self.register_buffer("vectors", vectors.T.contiguous())
        self.register_buffer("vector_scale", scale)

    def similarities(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors (k, d) of a batch, and their cosines (k, n) to the index."""
        total = embedding_sum(self.table, input_ids, attention_mask)
        unit, inverse = self.normalised(total)
        # What is rounded to 8 bits are whole numbers: in the last digit of a unit vector torch and the graph differ.
        dimensions = self.table.shape[1]
        centred = total * dimensions - total.sum(dim=1, keepdim=True)
        return unit, int8_linear(centred, self.vectors, self.vector_scale) * (inverse * dimensions**-1.5)


def index_sums(weight: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Weighted sums (k, m) over an index, of weights (k, n) and values (n, m).

    Torch computes in float64, because its float32 product of so tall a matrix is 1e-4 off (measured on 11,000 rows).
    The product of the graph is not.
    """
    if torch.compiler.is_exporting():
        return weight @ values
    return (weight.double() @ values.double()).float()


def places_in(index: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """The row of each query (k, d) in the index (n, d), int64 (k,); from n on where it is not in the index.

    A prompt is in the index when its vector, rounded as the index is, is there: the index keeps no text.
    """
    whole, _ = rounded(unit, BITS)
    stored, _ = rounded(index, BITS)
    places = []
    for rows, chunk in zip(whole.split(_QUERIES_AT_ONCE), unit.split(_QUERIES_AT_ONCE), strict=True):
        nearest = (chunk @ index.T).argmax(dim=1)
        same = (stored[nearest].int() - rows.int()).abs().amax(dim=1) <= 1
        places.append(torch.where(same, nearest, -1))
    place = torch.cat(places)
    new = place < 0
    place[new] = len(index) + torch.arange(int(new.sum()))
    return place


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
