"""The similarity router: it scores a query by what similar training queries say of the models.

One index of training queries serves two methods. The method ``kernel`` (kernel.py) takes performances, preferences or
both. The method ``bradley-terry`` (weighted_ranking.py) is RouteLLM's similarity-weighted ranking and takes
preferences. No weights are fitted to the queries, so that records and models can be added later (extend.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...data.records import Record
from ...routers.base import win_rate
from ...routers.decision import Floats, Model
from ...routers.errors import InputError
from ..encoders.static_network import EncodedQueries, encode_queries
from ..examples import Examples, Outcomes
from ..fit.drift_reference import projection_of
from ..fit.factorization import Array
from ..fit.novelty import centroids_of
from ..fit.ranking import Ranking, fit_ranking
from ..one_thread import one_thread
from ..pipeline import Findings, Job, Plan, settle, start_job
from ..static_recipe import (
    check_general,
    encoder_of,
    finish_static,
    guess_of,
    load_encoder,
    plan_static_training,
)
from .config import KINDS, SimilarityConfig
from .index import IndexRows, rows_per_run, subsample
from .kernel import KernelNetwork, evidence_of, fit_kernel
from .naming import named_index
from .stored import KernelIndex, RankingIndex
from .weighted_ranking import (
    Start,
    WeightedRankingNetwork,
    battle_counts,
    tier_ratings,
    tiers_of,
    weighted_counts,
)

#: Most held-out queries of each fold that calibrate a similarity-weighted ranking.
_CALIBRATION_QUERIES = 800
#: Most queries of the index whose scores, each computed without itself, make the drift reference.
REFERENCE_QUERIES = 2000

Network = KernelNetwork | WeightedRankingNetwork


def train_similarity(
    records: Sequence[Record],
    out: str | Path,
    config: SimilarityConfig | None = None,
    *,
    pool: Sequence[Model] = (),
    progress: bool = False,
) -> Path:
    """Build a similarity router and export it; arguments and result as those of `train_matrix_factorization`.

    Raises:
        InputError: see `check_similarity`.
        ExportError: the exported graph does not reproduce the network, or the ranking does not converge.
    """
    config = config or SimilarityConfig()
    job = start_job(_plan(records, out, config, pool), progress)
    with job.log, one_thread():
        return _train(job, config)


def check_similarity(
    records: Sequence[Record], out: str | Path, config: SimilarityConfig | None = None, *, pool: Sequence[Model] = ()
) -> Plan:
    """Refuse whatever `train_similarity` refuses before it fits; writes nothing but the encoder's cache.

    Raises:
        InputError: as `check_matrix_factorization` raises it, or the method does not suit the records.
    """
    config = config or SimilarityConfig()
    plan = _plan(records, out, config, pool)
    encoder_of(config)
    return plan


def _plan(records: Sequence[Record], out: str | Path, config: SimilarityConfig, pool: Sequence[Model]) -> Plan:
    check_general(config)
    plan = plan_static_training(records, out, config, pool, kind=KINDS[config.method])
    if config.method == "bradley-terry" and not len(plan.examples.preferences):
        raise InputError(
            "the method 'bradley-terry' needs preference records, but none were given; use the method 'kernel'"
        )
    return plan


@dataclass(frozen=True, kw_only=True)
class _Build:
    """A similarity router before its export.

    Attributes:
        network: over the queries in the index.
        index: the index, as the manifest keeps it.
        findings: what held-out utilities say.
        rows: int64 (k,), the queries in the index.
    """

    network: Network
    index: KernelIndex | RankingIndex
    findings: Findings
    rows: npt.NDArray[np.int64]


def _train(job: Job, config: SimilarityConfig) -> Path:
    examples = job.examples
    encoded = encode_queries(examples.queries, load_encoder(job, config), job.truncation)
    ranking = fit_ranking(examples, job.folds, job.log)
    build = (_kernel if config.method == "kernel" else _weighted_ranking)(job, config, encoded, ranking)
    network, unit, primary = build.network, encoded.unit, examples.primary_queries()
    network.centroids = centroids_of(unit, config.seed)
    network.projection = projection_of(unit[primary])
    network.keep_general(build.findings.general, np.log(encoded.inverse[build.rows, 0]))
    columns, naming = build.findings.columns, config.name_records
    records = named_index(network, examples, build.rows, columns, naming, job.truncation)
    return finish_static(
        job,
        config,
        build.findings,
        network,
        encoded,
        metadata=run_limits(network),
        scores=_scores_left_out(build, unit[build.rows], primary[build.rows], config.seed),
        index=build.index.to_dict(),
        records=records,
    )


def _scores_left_out(build: _Build, unit: Floats, primary: npt.NDArray[np.bool_], seed: int) -> Floats:
    """Scores of some queries of the primary source, each computed without itself, given the index's vectors (n, d)."""
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(primary))[:REFERENCE_QUERIES]
    quality = build.network.left_out(unit, chosen)
    manifest = build.findings.manifest
    strong, weak = manifest.columns
    return win_rate(quality[:, strong], quality[:, weak], manifest.link)


def _index_rows(
    unit: Floats, answered: npt.NDArray[np.bool_], columns: list[int], config: SimilarityConfig
) -> IndexRows:
    """The queries that the index keeps.

    Args:
        unit: float32 (n, d), unit vectors.
        answered: bool (n, m), whether a query says something of a model; a query that says nothing of an exported
            model, as one of another source may, is left out.
        columns: the exported models.
        config: settings.
    """
    exported = answered[:, columns]
    known = np.flatnonzero(exported.any(axis=1))
    rows, weight = subsample(unit[known], exported[known], config.index_size, config.seed)
    return IndexRows(known[rows], weight[:, None], columns)


def _answered(examples: Examples, *parts: Outcomes) -> npt.NDArray[np.bool_]:
    """Whether each query has an outcome of each model: bool (n, m)."""
    answered = np.zeros((len(examples.queries), len(examples.models)), np.bool_)
    for part in parts:
        answered[part.query[:, None], part.model] = True
    return answered


def _kernel(job: Job, config: SimilarityConfig, encoded: EncodedQueries, ranking: Ranking) -> _Build:
    examples, unit = job.examples, encoded.unit
    answered = _answered(examples, examples.preferences, examples.performances)
    kept = _index_rows(unit, answered, examples.primary_models(), config)
    tried = kept
    if len(unit) <= config.index_size:  # what is known of the other models sets the priors, too
        tried = IndexRows(np.arange(len(unit)), np.ones((len(unit), 1), np.float32), list(range(len(examples.models))))
    fit = fit_kernel(unit, examples, job.folds, ranking, tried, config.seed, job.log)
    guess = guess_of(config, encoded, examples, job.folds)
    findings = settle(job, config, fit.utilities, fit.held_out, ranking.overall.bias, ranking.loss, guess)
    evidence = evidence_of(examples, ranking.overall, kept.rows).of_index(kept.columns, kept.weight)
    index = KernelIndex(
        queries=len(kept.rows),
        epsilon=encoded.epsilon,
        scale=encoded.encoder.scale,
        bandwidth=fit.bandwidth,
        prior=fit.prior,
        base=evidence.base.tolist(),
        of_quality=evidence.of_quality,
        centre=not len(examples.performances),
    )
    network = KernelNetwork(encoded.encoder, unit[kept.rows], evidence, index, findings.calibration)
    return _Build(network=network, index=index, findings=findings, rows=kept.rows)


def _weighted_ranking(job: Job, config: SimilarityConfig, encoded: EncodedQueries, ranking: Ranking) -> _Build:
    battles, unit = job.examples.preferences, encoded.unit
    fit = _fit_ranking_of_tiers(job, config, unit, ranking)
    # The ratings have no level, but with performances the general router tells one: the two cannot be blended.
    levelled = len(job.examples.performances) > 0
    guess = None if levelled else guess_of(config, encoded, job.examples, job.folds)
    findings = settle(job, config, fit.utilities, fit.held_out, ranking.overall.bias, ranking.loss, guess)
    tier = tiers_of(ranking.overall.bias, config.tiers)
    kept = _index_rows(unit, _answered(job.examples, battles), list(range(len(job.examples.models))), config)
    counts = battle_counts(battles, len(unit), tier)[kept.rows] * kept.weight
    index = RankingIndex(
        queries=len(kept.rows),
        epsilon=encoded.epsilon,
        scale=encoded.encoder.scale,
        tiers=tier[findings.columns].tolist(),
        steps=fit.steps,
    )
    network = WeightedRankingNetwork(encoded.encoder, unit[kept.rows], counts, index, findings.calibration)
    return _Build(network=network, index=index, findings=findings, rows=kept.rows)


@dataclass(frozen=True, kw_only=True)
class _TierFit:
    """What similarity-weighted rankings predict for held-out queries.

    Attributes:
        utilities: float64 (n, m); only the rows of `held_out` are set.
        held_out: bool (n,).
        steps: steps of the graph's iteration that were enough in every fold.
    """

    utilities: Array
    held_out: npt.NDArray[np.bool_]
    steps: int


def _fit_ranking_of_tiers(job: Job, config: SimilarityConfig, unit: Floats, ranking: Ranking) -> _TierFit:
    battles = job.examples.preferences
    utilities = np.zeros((len(unit), len(job.examples.models)))
    held_out = np.zeros(len(unit), np.bool_)
    random = np.random.default_rng(config.seed)
    steps = 0
    primary = job.examples.primary_queries()
    phase = job.log.phase("similarity-weighted ranking", len(job.folds))
    for fold, fold_ranking in zip(job.folds, ranking.folds, strict=True):
        tier = tiers_of(fold_ranking.bias, config.tiers)
        counts = battle_counts(battles, len(unit), tier)
        rows = np.sort(random.permutation(np.flatnonzero(fold & primary))[:_CALIBRATION_QUERIES])
        if not len(rows):
            continue
        others = np.flatnonzero(~fold)
        matrices = weighted_counts(unit[rows], unit[others], counts[others])
        ratings = tier_ratings(matrices)
        steps = max(steps, Start.of(counts[others]).steps_for(matrices))
        utilities[rows] = ratings[:, tier]
        held_out[rows] = True
        job.log.advance(phase)
    return _TierFit(utilities=utilities, held_out=held_out, steps=steps)


def run_limits(network: Network) -> dict[str, str]:
    """Metadata of the graph: the most rows of one run."""
    return {"rows_per_run": str(rows_per_run(network.vectors.shape[1]))}
