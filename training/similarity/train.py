"""The similarity router: an index of training queries, and what they say of the models on queries like them.

Two methods over one index: ``kernel`` (`kernel.py`), for performances, preferences or
both, and ``bradley-terry`` (`weighted_ranking.py`), RouteLLM's similarity-weighted
ranking, for preferences. Nothing is fitted to the queries themselves, so that records
and models can be added later (`extend.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ...data.records import Record
from ...routers.base import Floats, Model, win_rate
from ...routers.bundle import Truncation
from ...routers.errors import InputError
from ..encoders.static import StaticEncoder, static_encoder
from ..encoders.static_network import OUTPUTS, StaticNetwork, epsilon_of, example_inputs, reference_quality, token_sums
from ..examples import validation_folds
from ..export.gate import parity_gate
from ..export.to_onnx import export_onnx, store_as_float16
from ..fit.drift_reference import projection_of
from ..fit.novelty import centroids_of, held_out_novelty
from ..fit.ranking import Ranking, fit_ranking
from ..pipeline import Job, Settled, finish, settle, start_job
from .config import SimilarityConfig
from .index import rows_per_run, subsample
from .kernel import KernelNetwork, evidence_of, fit_kernel
from .weighted_ranking import (
    Start,
    WeightedRankingNetwork,
    battle_counts,
    tier_ratings,
    tiers_of,
    weighted_counts,
)

KINDS = {"kernel": "similarity", "bradley-terry": "similarity-bradley-terry"}
#: Held-out queries that calibrate a similarity-weighted ranking, a fold.
_CALIBRATION_QUERIES = 800
#: Queries of the index whose scores, each left out, make the reference.
REFERENCE_QUERIES = 2000


def train_similarity(
    records: Sequence[Record],
    out: str | Path,
    config: SimilarityConfig | None = None,
    *,
    pool: Sequence[Model] = (),
    progress: bool = False,
) -> Path:
    """Build a similarity router and export it.

    Args:
        records: preference and performance records, mixed as they come; see `start_job` for their use.
        out: folder of the bundle; the log goes to ``<out>.training/``.
        config: settings.
        pool: prices of models, by name.
        progress: show a progress bar on stderr.

    Returns:
        The bundle's folder, for `routelearn.load`.

    Raises:
        InputError: nothing to learn from, a model that no record mentions, or a setting out of range.
        ExportError: the exported graph does not reproduce the network.
    """
    config = config or SimilarityConfig()
    job = start_job(records, out, config, pool, progress)
    if config.method == "bradley-terry" and not len(job.examples.preferences):
        raise InputError("the method 'bradley-terry' needs preference records; there are none: use 'kernel'")
    with job.log:
        return _train(job, config)


def _train(job: Job, config: SimilarityConfig) -> Path:
    examples, log = job.examples, job.log
    phase = log.phase("encoder", 1)
    encoder = static_encoder(config.encoder, config.dimensions)
    log.advance(phase)
    truncation = Truncation(max_tokens=config.max_tokens, distinct=True)
    folds = validation_folds(examples, config.folds, config.seed)
    total = token_sums(examples.queries, encoder, truncation)
    epsilon = epsilon_of(total)
    with torch.no_grad():
        unit, _ = StaticNetwork(encoder, epsilon).features(total)
    ranking = fit_ranking(examples, folds, log)
    train = _kernel if config.method == "kernel" else _weighted_ranking
    network, settled, rows, extra = train(job, config, encoder, epsilon, unit, folds, ranking)
    network.centroids = torch.from_numpy(centroids_of(unit.numpy(), config.seed))
    own = examples.own_queries()
    network.projection, network.projection_offset = projection_of(unit[torch.from_numpy(own)])
    return finish(
        job,
        config,
        settled,
        kind=KINDS[config.method],
        model=export_similarity(network),
        tokenizer_json=encoder.tokenizer_json,
        truncation=truncation,
        gate=parity_gate(reference_quality(network, encoder, truncation), examples.queries, truncation),
        fold=folds[0],
        novelties=held_out_novelty(unit.numpy(), folds[0], config.seed),
        scores=_scores_left_out(network, settled, unit[rows], own[rows], config.seed),
        encoder_fingerprint=encoder.fingerprint,
        index={"queries": network.vectors.shape[1], "epsilon": epsilon, "scale": encoder.scale, **extra},
    )


#: Network, what held-out utilities say, the queries in the index, and more to keep.
Trained = tuple["KernelNetwork | WeightedRankingNetwork", Settled, npt.NDArray[np.int64], dict[str, object]]


def _scores_left_out(
    network: KernelNetwork | WeightedRankingNetwork,
    settled: Settled,
    unit: torch.Tensor,
    own: npt.NDArray[np.bool_],
    seed: int,
) -> Floats:
    """Scores of some rows of the index (n, d) that are the router's own, each with itself left out."""
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(own))[:REFERENCE_QUERIES]
    quality = network.left_out(unit, chosen).float().numpy()
    strong, weak = settled.names.index(settled.strong), settled.names.index(settled.weak)
    return win_rate(quality[:, strong], quality[:, weak], settled.link)


def _kernel(
    job: Job,
    config: SimilarityConfig,
    encoder: StaticEncoder,
    epsilon: float,
    unit: torch.Tensor,
    folds: list[npt.NDArray[np.bool_]],
    ranking: Ranking,
) -> Trained:
    fitted = fit_kernel(unit, job.examples, folds, ranking, config.seed, job.log)
    settled = settle(job, config, fitted.utilities, fitted.held_out, ranking.overall.bias, ranking.loss)
    kept = settled.columns
    evidence = evidence_of(job.examples, ranking.overall)
    amount = evidence.amount[:, kept]
    known = np.flatnonzero((amount > 0).any(dim=1).numpy())  # queries of other sources may know no exported model
    rows, weight = subsample(unit[known].numpy(), (amount[known] > 0).numpy(), config.index_size, config.seed)
    rows, scale = known[rows], torch.from_numpy(weight).unsqueeze(1)
    evidence = replace(
        evidence,
        base=evidence.base[kept],
        residual=evidence.residual[rows][:, kept] * scale,
        amount=amount[rows] * scale,
    )
    network = KernelNetwork(encoder, epsilon, unit[rows], evidence).eval()
    network.bandwidth, network.prior = fitted.bandwidth, fitted.prior
    network.slope.fill_(settled.calibration.slope)
    network.intercept.fill_(settled.calibration.intercept)
    network.centre = not len(job.examples.performances)
    extra: dict[str, object] = {
        "bandwidth": fitted.bandwidth,
        "prior": fitted.prior,
        "base": evidence.base.tolist(),
        "of_quality": evidence.of_quality,
        "centre": network.centre,
    }
    return network, settled, rows, extra


def _weighted_ranking(
    job: Job,
    config: SimilarityConfig,
    encoder: StaticEncoder,
    epsilon: float,
    unit: torch.Tensor,
    folds: list[npt.NDArray[np.bool_]],
    ranking: Ranking,
) -> Trained:
    examples = job.examples
    battles = examples.preferences
    utilities = torch.zeros(len(unit), len(examples.models), dtype=torch.float64)
    held_out = np.zeros(len(unit), np.bool_)
    random = np.random.default_rng(config.seed)
    steps = 0
    phase = job.log.phase("similarity-weighted ranking", len(folds))
    for fold, one in zip(folds, ranking.folds, strict=True):
        tier = tiers_of(one.bias.numpy(), config.tiers)
        counts = battle_counts(battles, len(unit), tier)
        rows = np.sort(random.permutation(np.flatnonzero(fold))[:_CALIBRATION_QUERIES])
        others = np.flatnonzero(~fold)
        matrices = weighted_counts(unit[rows], unit[others], counts[others])
        ratings = tier_ratings(matrices)
        steps = max(steps, Start.of(counts[others]).steps_for(matrices))
        utilities[rows] = ratings[:, tier].double()
        held_out[rows] = True
        job.log.advance(phase)
    settled = settle(job, config, utilities, held_out, ranking.overall.bias, ranking.loss)
    tier = tiers_of(ranking.overall.bias.numpy(), config.tiers)
    answered = np.zeros((len(unit), len(examples.models)), np.bool_)
    answered[np.repeat(battles.query, 2), battles.model.ravel()] = True
    known = np.flatnonzero(answered.any(axis=1))
    rows, weight = subsample(unit[known].numpy(), answered[known], config.index_size, config.seed)
    rows = known[rows]
    counts = battle_counts(battles, len(unit), tier)[rows] * torch.from_numpy(weight).unsqueeze(1)
    network = WeightedRankingNetwork(encoder, epsilon, unit[rows], counts, tier[settled.columns], steps).eval()
    network.slope.fill_(settled.calibration.slope)
    return network, settled, rows, {"tiers": tier[settled.columns].tolist(), "steps": steps}


def export_similarity(network: KernelNetwork | WeightedRankingNetwork) -> bytes:
    """The graph of a similarity router: index in int8, evidence in float16, runs bounded by the index's size."""
    size = int(network.vectors.shape[1])
    model = export_onnx(network, example_inputs(), OUTPUTS, {"rows_per_run": str(rows_per_run(size))})
    return store_as_float16(model, ("residual", "amount", "counts"))
