"""Kernel-weighted nearest neighbours: models do on a query as they did on similar queries.

This is Nadaraya-Watson regression (Nadaraya 1964, Watson 1964) on the residuals of the global ranking, with the weights
``exp(bandwidth (cosine - 1))``. A prior that is worth ``prior`` neighbours shrinks it towards the global ranking. With
performances it is the local mean score. With preferences, which do not show a model's utility, it is one Newton step of
a locally weighted Bradley-Terry fit (Loader 1999, section 4) that starts from the global ranking.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from ..encoders.static import StaticEncoder
from ..encoders.static_network import Outputs
from ..examples import Examples
from ..fit.calibration import Calibration
from ..fit.factorization import Batch, Factors
from ..fit.ranking import Ranking, mean_loss, primary_outcomes
from ..log import TrainingLog
from .index import IndexedNetwork, index_sums
from .stored import KernelIndex

#: Bandwidths that validation tries. With 16, the weight of a neighbour halves with every 0.043 of cosine.
BANDWIDTHS = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
#: Priors that validation tries, as parts of the evidence that a typical query meets.
PRIORS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
#: Most held-out queries that choose between them.
VALIDATION_QUERIES = 4000
_ROWS = 512
_EDGE = 1e-3


@dataclass(frozen=True)
class Evidence:
    """What each of n queries says of each of m models beyond the global ranking.

    Attributes:
        base: float64 (m,), quality of each model where all records are performances, else its utility, for any query.
        residual: float32 (n, m), sum of weighted (target - expected).
        amount: float32 (n, m), weight of the evidence: its count, or its information where there are preferences.
        of_quality: base and residuals are qualities, not utilities.
    """

    base: torch.Tensor
    residual: torch.Tensor
    amount: torch.Tensor
    of_quality: bool

    def utilities(self, residual: torch.Tensor, amount: torch.Tensor, prior: float | torch.Tensor) -> torch.Tensor:
        """Utilities (n, m) from kernel sums (n, m) of residuals and amounts."""
        estimate = self.base.to(residual) + residual / (amount + prior)
        return torch.logit(estimate.clamp(_EDGE, 1 - _EDGE)) if self.of_quality else estimate


def evidence_of(examples: Examples, ranking: Factors) -> Evidence:
    """The evidence of every query of some examples, against a global ranking."""
    of_quality = not len(examples.preferences)
    shape = (len(examples.queries), len(examples.models))
    residual, amount = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for part in (examples.preferences, examples.performances):
        if not len(part):
            continue
        batch = Batch.of(part)
        expected = torch.sigmoid(batch.logits(ranking.bias.expand(*shape), ranking.offsets))
        surprise = batch.weight * (batch.target - expected)
        certainty = batch.weight * (1.0 if of_quality else expected * (1 - expected))
        for column in range(batch.model.shape[1]):
            place = (batch.query, batch.model[:, column])
            residual.index_put_(place, surprise if column == 0 else -surprise, accumulate=True)
            amount.index_put_(place, certainty, accumulate=True)
    base = torch.sigmoid(ranking.bias) if of_quality else ranking.bias
    return Evidence(base, residual.float(), amount.float(), of_quality)


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
    utilities: torch.Tensor
    train_log_loss: float


def fit_kernel(
    unit: torch.Tensor,
    examples: Examples,
    folds: list[npt.NDArray[np.bool_]],
    ranking: Ranking,
    seed: int,
    log: TrainingLog,
) -> KernelFit:
    """Choose bandwidth and prior by log loss on held-out queries of the primary source.

    Args:
        unit: float32 (n, d) unit vectors of the queries.
        examples: their outcomes.
        folds: bool (n,) each.
        ranking: where the residuals start.
        seed: of the sample of held-out queries.
        log: gets a line for every pair.
    """
    random = np.random.default_rng(seed)
    each = VALIDATION_QUERIES // len(folds)
    parts = []
    for fold in folds:
        rows = np.flatnonzero(fold)
        parts.append(np.sort(random.permutation(rows)[:each]))
    chosen = np.zeros(len(unit), np.bool_)
    chosen[np.concatenate(parts)] = True
    validation = primary_outcomes(examples, chosen)
    phase = log.phase("kernel", len(BANDWIDTHS))
    best: KernelFit | None = None
    best_loss = float("inf")
    others = [np.flatnonzero(~fold) for fold in folds]
    per_fold = [evidence_of(examples, one) for one in ranking.folds]
    # Each fold sees a part of the index. The evidence grows with the index, and so must the prior.
    grown = float(np.mean([len(unit) / max(1, len(index)) for index in others]))
    for bandwidth in BANDWIDTHS:
        sums = [
            kernel_sums(unit[rows], unit[index], evidence.residual[index], evidence.amount[index], bandwidth)
            for rows, index, evidence in zip(parts, others, per_fold, strict=True)
        ]
        typical = float(torch.cat([amount for _, amount in sums]).median()) or 1e-6
        for share in PRIORS:
            utilities = torch.zeros(len(unit), len(examples.models), dtype=torch.float64)
            for rows, evidence, (residual, amount) in zip(parts, per_fold, sums, strict=True):
                utilities[rows] = evidence.utilities(residual, amount, share * typical).double()
            loss = mean_loss(validation, utilities)
            log.step(phase="kernel", bandwidth=bandwidth, prior=share * typical, validation_log_loss=loss)
            if loss < best_loss - 1e-6:
                best_loss = loss
                best = KernelFit(bandwidth, share * typical * grown, chosen, utilities, loss)
        log.advance(phase)
    assert best is not None
    return best


def kernel_sums(
    queries: torch.Tensor, index: torch.Tensor, residual: torch.Tensor, amount: torch.Tensor, bandwidth: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel-weighted sums (k, m) of residual and amount (n, m) over an index (n, d), for unit vectors (k, d)."""
    sums = []
    for chunk in queries.split(_ROWS):
        weight = torch.exp(bandwidth * (chunk @ index.T - 1))
        sums.append((weight @ residual, weight @ amount))
    residuals, amounts = zip(*sums, strict=True)
    return torch.cat(residuals), torch.cat(amounts)


class KernelNetwork(IndexedNetwork):
    """The exported network: similarities to an int8 index, kernel sums, utilities, calibration."""

    residual: torch.Tensor
    amount: torch.Tensor
    slope: torch.Tensor
    intercept: torch.Tensor

    def __init__(
        self,
        encoder: StaticEncoder,
        unit: torch.Tensor,
        evidence: Evidence,
        index: KernelIndex,
        calibration: Calibration,
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
        # Rounded to float16, as they are stored, so that torch and the graph compute with the same numbers.
        self.register_buffer("residual", evidence.residual.half().float())
        self.register_buffer("amount", evidence.amount.half().float())
        self.evidence = replace(evidence, base=evidence.base.float())
        self.register_buffer("base", self.evidence.base)
        self.bandwidth = index.bandwidth
        self.prior = index.prior
        self.register_buffer("slope", torch.tensor(calibration.slope, dtype=torch.float32))
        self.register_buffer("intercept", torch.tensor(calibration.intercept, dtype=torch.float32))
        self.centre = index.centre

    def left_out(self, unit: torch.Tensor, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """Quality (k, m) of some rows of the index, each computed without its own evidence, whose weight is 1.

        Args:
            unit: float32 (n, d), the unit vectors of the index.
            rows: int64 (k,).
        """
        residual, amount = kernel_sums(unit[rows], unit, self.residual, self.amount, self.bandwidth)
        return self._quality(residual - self.residual[rows], amount - self.amount[rows])

    def _quality(self, residual: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
        """Quality (k, m) from kernel sums (k, m)."""
        utilities = self.evidence.utilities(residual, amount, self.prior)
        calibrated = self.slope * utilities + self.intercept
        if self.centre:
            calibrated = calibrated - calibrated.mean(dim=1, keepdim=True)
        return torch.sigmoid(calibrated)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Outputs:
        """Quality (n, m), novelty (n,) and vector (n, k) of token ids and their mask, (n, length) each."""
        unit, similarity = self.similarities(input_ids, attention_mask)
        weight = torch.exp(self.bandwidth * (similarity - 1))
        residual, amount = (index_sums(weight, values) for values in (self.residual, self.amount))
        return self._quality(residual, amount), self.novelty(unit), self.sketch(unit)
