"""Kernel-weighted nearest neighbours: models do on a query as they did on similar queries.

This is Nadaraya-Watson regression (Nadaraya 1964, Watson 1964) on the residuals of the global ranking, with the weights
``exp(bandwidth (cosine - 1))``. A prior that is worth ``prior`` neighbours shrinks it towards the global ranking. With
performances it is the local mean score. With preferences, which do not show a model's utility, it is one Newton step of
a locally weighted Bradley-Terry fit (Loader 1999, section 4) that starts from the global ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...routers.base import sigmoid
from ...routers.decision import Floats
from ...routers.errors import InputError
from ..encoders.static import StaticEncoder
from ..encoders.static_network import PooledNodes
from ..examples import Examples, primary_outcomes
from ..export.graph_builder import GraphBuilder
from ..fit.calibration import Calibration
from ..fit.factorization import Array, Factors, logits
from ..fit.ranking import Ranking, mean_loss
from ..log import TrainingLog
from .index import IndexedNetwork, IndexRows, add_calibrated, blocks
from .stored import KernelIndex

#: Bandwidths that validation tries. With 16, the weight of a neighbour halves with every 0.043 of cosine.
BANDWIDTHS = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
#: Priors that validation tries, as parts of the evidence that a typical query meets.
PRIORS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
#: Most held-out queries that choose between them.
VALIDATION_QUERIES = 4000
_EDGE = 1e-3
#: Largest sum of weights that float16 can store.
MOST_EVIDENCE = float(np.finfo(np.float16).max)

#: Kernel sums, (n, m): float32 where a fit or the graph computes them, float64 where the parity gate does.
Sums = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Evidence:
    """What each of n queries says of each of m models beyond the global ranking.

    Attributes:
        base: float64 (m,), quality of each model where all records are performances, else its utility, for any query.
        residual: float32 (n, m), sum of weighted (target - expected).
        amount: float32 (n, m), weight of the evidence: its count, or its information where there are preferences.
        of_quality: base and residuals are qualities, not utilities.
    """

    base: Array
    residual: Floats
    amount: Floats
    of_quality: bool

    def of_index(self, columns: Sequence[int], weight: Floats) -> Evidence:
        """The evidence on some models, weighted as the queries of an index are, by weights (n, 1)."""
        return replace(
            self,
            base=self.base[columns],
            residual=self.residual[:, columns] * weight,
            amount=self.amount[:, columns] * weight,
        )

    def utilities(self, residual: Sums, amount: Sums, prior: float) -> Sums:
        """Utilities (n, m) from kernel sums (n, m) of residuals and amounts."""
        estimate = self.base.astype(np.float32) + residual / (amount + np.float32(prior))
        if not self.of_quality:
            return estimate
        within = np.clip(estimate, _EDGE, 1 - _EDGE)
        return np.asarray(np.log(within / (1 - within)), np.float32)


def evidence_of(examples: Examples, ranking: Factors, index: npt.NDArray[np.int64] | None = None) -> Evidence:
    """The evidence of some queries of the examples against a global ranking, given their rows; None: of all queries."""
    of_quality = not len(examples.preferences)
    queries = len(examples.queries)
    rows = np.arange(queries) if index is None else index
    place = np.full(queries, -1)
    place[rows] = np.arange(len(rows))
    shape = (len(rows), len(examples.models))
    residual, amount = np.zeros(shape), np.zeros(shape)
    expected_utilities = np.broadcast_to(ranking.bias, (queries, shape[1]))
    for every in (examples.preferences, examples.performances):
        part = every.of_queries(place >= 0)
        expected = sigmoid(logits(part, expected_utilities, ranking.offsets))
        surprise = part.weight * (part.target - expected)
        certainty = part.weight * (np.ones_like(expected) if of_quality else expected * (1 - expected))
        for column in range(part.model.shape[1]):
            cell = (place[part.query], part.model[:, column])
            np.add.at(residual, cell, surprise if column == 0 else -surprise)
            np.add.at(amount, cell, certainty)
    base = sigmoid(ranking.bias) if of_quality else ranking.bias
    return Evidence(base, residual.astype(np.float32), amount.astype(np.float32), of_quality)


@dataclass(frozen=True)
class KernelFit:
    """Bandwidth and prior that validation chose, and what they predict for held-out queries.

    Attributes:
        bandwidth: see the module.
        prior: see the module; for the whole index.
        held_out: bool (n,), the held-out queries that were predicted.
        utilities: float64 (n, m); only the rows of `held_out` are set.
    """

    bandwidth: float
    prior: float
    held_out: npt.NDArray[np.bool_]
    utilities: Array


def fit_kernel(
    unit: Floats,
    examples: Examples,
    folds: list[npt.NDArray[np.bool_]],
    ranking: Ranking,
    index: IndexRows,
    seed: int,
    log: TrainingLog,
) -> KernelFit:
    """Choose bandwidth and prior by log loss on held-out queries of the primary source.

    Args:
        unit: float32 (n, d) unit vectors of the queries.
        examples: their outcomes.
        folds: bool (n,) each.
        ranking: where the residuals start.
        index: the queries that the index of the router keeps, and the models that it knows.
        seed: of the sample of held-out queries.
        log: gets a line for every pair.
    """
    random = np.random.default_rng(seed)
    each = VALIDATION_QUERIES // len(folds)
    primary = examples.primary_queries()
    parts = [np.sort(random.permutation(np.flatnonzero(fold & primary))[:each]) for fold in folds]
    chosen = np.zeros(len(unit), np.bool_)
    chosen[np.concatenate(parts)] = True
    place = np.cumsum(chosen) - 1  # of a chosen query among the chosen ones
    validation = [replace(part, query=place[part.query]) for part in primary_outcomes(examples, chosen)]
    phase = log.phase("kernel", len(folds) + len(BANDWIDTHS))
    per_fold: list[tuple[Evidence, list[tuple[Floats, Floats]]]] = []
    sizes = []
    for rows, fold, one in zip(parts, folds, ranking.folds, strict=True):
        others = index.without(fold)
        evidence = evidence_of(examples, one, others.rows).of_index(index.columns, others.weight)
        sums = kernel_sums(unit[rows], unit[others.rows], evidence.residual, evidence.amount, BANDWIDTHS)
        per_fold.append((evidence, sums))
        sizes.append(len(others.rows))
        log.advance(phase)
    # Each fold sees a part of the index. The evidence grows with the index, and so must the prior.
    grown = float(np.mean([len(index.rows) / max(1, size) for size in sizes]))
    best: KernelFit | None = None
    best_loss = float("inf")
    for number, bandwidth in enumerate(BANDWIDTHS):
        typical = float(np.median(np.concatenate([sums[number][1] for _, sums in per_fold]))) or 1e-6
        for share in PRIORS:
            utilities = np.zeros((place[-1] + 1, len(examples.models)))
            for rows, (evidence, sums) in zip(parts, per_fold, strict=True):
                utilities[place[rows][:, None], index.columns] = evidence.utilities(*sums[number], share * typical)
            loss = mean_loss(validation, utilities)
            log.step(phase="kernel", bandwidth=bandwidth, prior=share * typical, validation_log_loss=loss)
            if loss < best_loss - 1e-6:
                best_loss = loss
                best = KernelFit(bandwidth, share * typical * grown, chosen, utilities)
        log.advance(phase)
    assert best is not None
    utilities = np.zeros((len(unit), len(examples.models)))
    utilities[chosen] = best.utilities
    return replace(best, utilities=utilities)


def halved(values: Floats) -> Floats:
    """Evidence rounded to float16, as it is stored.

    Raises:
        InputError: it is too large for float16.
    """
    largest = float(np.abs(values).max(initial=0))
    if largest > MOST_EVIDENCE:
        raise InputError(
            f"the weights of one query's records of one model sum to {largest:,.0f}; expected at most "
            f"{MOST_EVIDENCE:,.0f}: divide the weights of all records by the same number"
        )
    return values.astype(np.float16).astype(np.float32)


def kernel_sums(
    queries: Floats, index: Floats, residual: Floats, amount: Floats, bandwidths: Sequence[float]
) -> list[tuple[Floats, Floats]]:
    """Kernel-weighted sums (k, m) of residual and amount (n, m) over an index (n, d), for unit vectors (k, d).

    The similarities, which cost most, are computed once for all bandwidths.

    Returns:
        For each bandwidth the sums of residuals and of amounts.
    """
    models = residual.shape[1]
    both = np.concatenate([residual, amount], axis=1)
    sums = np.empty((len(bandwidths), len(queries), 2 * models), np.float32)
    for rows in blocks(len(queries), len(index)):
        distance = queries[rows] @ index.T
        distance -= 1
        weight = np.empty_like(distance)
        for number, bandwidth in enumerate(bandwidths):
            np.multiply(np.float32(bandwidth), distance, out=weight)
            np.exp(weight, out=weight)
            sums[number, rows] = weight @ both
    return [(one[:, :models], one[:, models:]) for one in sums]


class KernelNetwork(IndexedNetwork):
    """The exported network: similarities to an int8 index, kernel sums, utilities, calibration.

    Attributes:
        evidence: what the queries of the index say; residual and amount are rounded to float16, as they are stored.
    """

    def __init__(
        self, encoder: StaticEncoder, unit: Floats, evidence: Evidence, index: KernelIndex, calibration: Calibration
    ) -> None:
        """Make a network over an index.

        Args:
            encoder: the token table.
            unit: float32 (n, d), unit vectors of the queries in the index.
            evidence: what these n queries say of the exported models.
            index: bandwidth, prior and the rest.
            calibration: slope and intercept of the utilities.
        """
        super().__init__(encoder, index.epsilon, unit)
        residual, amount = (halved(values) for values in (evidence.residual, evidence.amount))
        self.evidence = replace(evidence, residual=residual, amount=amount)
        self.index = index
        self.calibration = calibration

    def own_left_out(self, unit: Floats, rows: npt.NDArray[np.int64]) -> Floats:
        """Quality (k, m) by the kernel alone of some rows of the index, each computed without itself."""
        evidence = self.evidence
        bandwidths = [self.index.bandwidth]
        residual, amount = kernel_sums(unit[rows], unit, evidence.residual, evidence.amount, bandwidths)[0]
        return self._quality(residual - evidence.residual[rows], amount - evidence.amount[rows])

    def quality(self, total: Floats) -> Floats:
        """Quality (n, m) of queries, from the sums of their token vectors (n, d)."""
        parts = [np.zeros((0, len(self.evidence.base)), np.float32)]
        for rows in blocks(len(total), len(self.vector_scale)):
            weight = np.exp(self.index.bandwidth * (self.similarities(total[rows]).astype(np.float64) - 1))
            parts.append(self._quality(weight @ self.evidence.residual, weight @ self.evidence.amount))
        return np.concatenate(parts)

    def _quality(self, residual: Sums, amount: Sums) -> Floats:
        """Quality (k, m) from kernel sums (k, m)."""
        utilities = self.evidence.utilities(residual, amount, self.index.prior)
        calibrated = self.calibration.slope * utilities + self.calibration.intercept
        if self.index.centre:
            calibrated = calibrated - calibrated.mean(axis=1, keepdims=True)
        return sigmoid(calibrated).astype(np.float32)

    def add_quality(self, graph: GraphBuilder, pooled: PooledNodes, output: str) -> int:
        """Add the nodes that compute the quality, under that name; return the number of models."""
        evidence = self.evidence
        scale = graph.scalar("bandwidth", self.index.bandwidth)
        exponent = graph.node(
            "Mul", graph.node("Sub", self.add_similarities(graph, pooled), graph.scalar("unity", 1.0)), scale
        )
        weight = graph.node("Exp", exponent)
        if self.finds_nearest:
            with self.add_nearest(graph, weight) as log:
                graph.node("Add", graph.node("Div", log, scale), "unity", output="nearest_similarity_found")
        residual = graph.node("MatMul", weight, graph.constant("residual", evidence.residual, half=True))
        amount = graph.node("MatMul", weight, graph.constant("amount", evidence.amount, half=True))
        shrunk = graph.node("Div", residual, graph.node("Add", amount, graph.scalar("prior", self.index.prior)))
        utilities = graph.node("Add", shrunk, graph.constant("base", evidence.base.astype(np.float32)))
        if evidence.of_quality:
            within = graph.node("Clip", utilities, graph.scalar("least", _EDGE), graph.scalar("most", 1 - _EDGE))
            utilities = graph.node(
                "Log", graph.node("Div", within, graph.node("Sub", graph.scalar("unity", 1.0), within))
            )
        add_calibrated(graph, utilities, self.calibration, self.index.centre, output)
        return len(evidence.base)
