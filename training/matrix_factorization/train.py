"""The matrix-factorization router: a static encoder, and utilities linear in the query's vector.

The utilities are ``u(query) = bias + W · [v / |v| ; -log |v|]``. Here v is the sum of the vectors of the query's
distinct tokens, minus its mean over the dimensions, so that one layer normalisation computes both parts. W has low rank
(RouteLLM, arXiv 2406.18665, section 4.2, here with N models, ties, soft labels and performance records). The length of
v enters because hard queries are longer. Training fits a few thousand numbers by full-batch L-BFGS along a path of
penalties, and stops early by held-out prompts. This takes seconds and needs no learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...data.records import Record
from ...routers.decision import Model
from ...routers.errors import require
from ..encoders.static import StaticEncoder
from ..encoders.static_network import EncodedQueries, encode_queries
from ..examples import Examples
from ..fit.drift_reference import projection_of
from ..fit.factorization import Array
from ..fit.novelty import centroids_of
from ..fit.penalty_path import follow_path
from ..fit.ranking import Ranking, fit_ranking
from ..fit.standard import LENGTH_SCALE, Standard
from ..one_thread import one_thread
from ..pipeline import Findings, Job, Plan, centred, settle, start_job
from ..static_recipe import (
    check_general,
    encoder_of,
    finish_static,
    guess_of,
    load_encoder,
    plan_static_training,
)
from .config import MatrixFactorizationConfig
from .few_labels import fit_weights, share_of_path
from .network import MatrixFactorization
from .tasks import SHARE, TaskExpert, fit_expert, helps

KIND = "matrix-factorization"


def train_matrix_factorization(
    records: Sequence[Record],
    out: str | Path,
    config: MatrixFactorizationConfig | None = None,
    *,
    pool: Sequence[Model] = (),
    progress: bool = False,
) -> Path:
    """Train a matrix-factorization router and export it.

    Args:
        records: preference and performance records, mixed as they come; `plan_training` says how they are used.
        out: folder of the bundle; the log goes to ``<out>.training/``.
        config: settings.
        pool: models with prices.
        progress: show a progress bar on stderr.

    Returns:
        The bundle's folder, for `routelearn.load`.

    Raises:
        InputError: see `check_matrix_factorization`.
        ExportError: the exported graph does not reproduce the network.
    """
    config = config or MatrixFactorizationConfig()
    job = start_job(_plan(records, out, config, pool), progress)
    with job.log, one_thread():
        return _train(job, config)


def check_matrix_factorization(
    records: Sequence[Record],
    out: str | Path,
    config: MatrixFactorizationConfig | None = None,
    *,
    pool: Sequence[Model] = (),
) -> Plan:
    """Refuse whatever `train_matrix_factorization` refuses before it fits; writes nothing but the encoder's cache.

    Raises:
        InputError: there is nothing to learn from or too little to hold out, no record mentions a model of the
            settings, `out` cannot be written or holds something else, or there is no such encoder.
    """
    config = config or MatrixFactorizationConfig()
    plan = _plan(records, out, config, pool)
    encoder_of(config)
    return plan


def _plan(records: Sequence[Record], out: str | Path, config: MatrixFactorizationConfig, pool: Sequence[Model]) -> Plan:
    if config.finetune_epochs:
        require("torch", "transformers")
    else:
        check_general(config)
    # A fine-tuned table has seen the queries of every fold but the one that stops the fine-tuning.
    most_folds = 1 if config.finetune_epochs else None
    return plan_static_training(records, out, config, pool, kind=KIND, most_folds=most_folds)


def _train(job: Job, config: MatrixFactorizationConfig) -> Path:
    examples, folds = job.examples, job.folds
    unfitted = folds[0] if config.finetune_epochs else None
    encoded = encode_queries(examples.queries, _encoder(job, config), job.truncation)
    features = encoded.features.astype(np.float64)
    standard = Standard.of(features, LENGTH_SCALE)
    features = standard.apply(features)
    ranking = fit_ranking(examples, folds, job.log)
    fit = _fit(job, config, features, ranking)
    held_out = np.logical_or.reduce(folds)
    # A fine-tuned table is not the encoder of the general router.
    guess = None if config.finetune_epochs else guess_of(config, encoded, examples, folds)
    findings = settle(job, config, fit.utilities, held_out, fit.bias, ranking.loss, guess)
    job.log.curve("l2", f"{KIND}: {findings.strong} over {findings.weak}", baseline=ranking.loss)
    network = _network(encoded, fit, standard, findings, examples)
    network.centroids, network.general = centroids_of(encoded.unit, config.seed), findings.general
    primary = examples.primary_queries() if unfitted is None else examples.primary_queries() & unfitted
    weight, offset = standard.fold(*projection_of(features[primary]))
    network.projection = weight.astype(np.float32), offset.astype(np.float32)
    return finish_static(
        job,
        config,
        findings,
        network,
        encoded,
        unfitted=unfitted,
        l2=fit.l2,
    )


def _encoder(job: Job, config: MatrixFactorizationConfig) -> StaticEncoder:
    """The static encoder, fine-tuned where the settings say so."""
    encoder = load_encoder(job, config)
    if not config.finetune_epochs:
        return encoder
    from .finetune_table import finetune_table  # needs torch

    return finetune_table(
        encoder, job.examples, job.folds[0], job.truncation, config.finetune_epochs, config.seed, job.log
    )


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """Utilities linear in the features, beside an expert on tasks where that helps.

    Attributes:
        weight: (d + 1, m), on standardised features.
        bias: (m,).
        l2: the penalty that validation chose.
        utilities: float64 (n, m), what fits without each query's fold predict for the query.
        expert: the expert on tasks; None where tasks do not help.
        share: weight of the linear utilities beside those of the expert.
    """

    weight: Array
    bias: Array
    l2: float
    utilities: Array
    expert: TaskExpert | None
    share: float


def _fit(job: Job, config: MatrixFactorizationConfig, features: Array, ranking: Ranking) -> _Fit:
    examples, folds = job.examples, job.folds
    path = follow_path(
        features,
        examples,
        folds,
        ranking,
        job.log,
        rank=config.rank,
        l2=config.l2,
        steps=config.path_steps,
        patience=config.patience,
        seed=config.seed,
    )
    utilities, expert, share = path.held_out, None, 1.0
    factors, held_out = path.fit_all(), np.logical_or.reduce(folds)
    weight, bias = factors.weight, factors.bias
    of_path = share_of_path(int(examples.primary_queries().sum())) if config.few_labels else 1.0
    if of_path < 1:
        prior, weights = _by_prior(features, examples, folds, ranking)
        pooled = of_path * utilities + (1 - of_path) * prior
        if not helps(pooled, utilities, examples, held_out, config.seed, job.log, "path alone"):
            utilities = pooled
            weight = of_path * weight + (1 - of_path) * weights
            bias = of_path * bias + (1 - of_path) * ranking.overall.bias
    by_task = _utilities_by_task(features, examples, folds, ranking, config.seed) if config.tasks else None
    if by_task is not None:
        pooled = SHARE * utilities + (1 - SHARE) * by_task
        if helps(utilities, pooled, examples, held_out, config.seed, job.log, "tasks"):
            utilities, share = pooled, SHARE
            expert = fit_expert(features, examples, np.ones(len(held_out), np.bool_), ranking.overall, config.seed)
    return _Fit(weight=weight, bias=bias, l2=path.l2, utilities=utilities, expert=expert, share=share)


def _by_prior(
    features: Array, examples: Examples, folds: list[npt.NDArray[np.bool_]], ranking: Ranking
) -> tuple[Array, Array]:
    """Utilities (n, m) of each fold under the fixed prior, fitted without it, and the weights (d + 1, m) of all."""
    utilities = np.zeros((len(features), len(examples.models)))
    for fold, fold_ranking in zip(folds, ranking.folds, strict=True):
        utilities[fold] = features[fold] @ fit_weights(features, examples, ~fold, fold_ranking) + fold_ranking.bias
    return utilities, fit_weights(features, examples, np.ones(len(features), np.bool_), ranking.overall)


def _network(
    encoded: EncodedQueries, fit: _Fit, standard: Standard, findings: Findings, examples: Examples
) -> MatrixFactorization:
    """The network with calibration and standardisation folded into its weights, for the exported models alone."""
    calibration, columns = findings.calibration, findings.columns
    slope = fit.share * calibration.slope
    weight, bias = standard.fold(slope * fit.weight[:, columns], slope * fit.bias[columns] + calibration.intercept)
    expert = None
    if fit.expert is not None:
        worth = (1 - fit.share) * calibration.slope * fit.expert.worth[:, columns]
        guess = TaskExpert(*standard.fold(fit.expert.weight, fit.expert.bias), worth)
        expert = guess.exported(centred(worth.astype(np.float64), examples))
    weight, bias = centred(weight.astype(np.float64), examples), centred(bias.astype(np.float64), examples)
    return MatrixFactorization(encoded.encoder, encoded.epsilon, weight, bias, expert)


def _utilities_by_task(
    features: Array, examples: Examples, folds: list[npt.NDArray[np.bool_]], ranking: Ranking, seed: int
) -> Array | None:
    """Utilities (n, m) of each fold by an expert fitted without it; None where records name fewer than two tasks."""
    utilities = np.zeros((len(features), len(examples.models)))
    for fold, fold_ranking in zip(folds, ranking.folds, strict=True):
        expert = fit_expert(features, examples, ~fold, fold_ranking, seed)
        if expert is None:
            return None
        utilities[fold] = expert.utilities(features[fold])
    return utilities
