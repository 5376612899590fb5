"""The frozen recipe: a transformer that stays as it is, with a kernel machine on its vectors.

No gradient runs through the transformer, so that training takes minutes where fine-tuning takes an hour, and a larger
transformer can be used. Losses, calibration and gates are those of the other recipes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...data.records import Record
from ...routers.decision import Model
from ...routers.errors import InputError
from ..encoders.transformer import (
    Backbone,
    Pooling,
    TokenIds,
    check_token_budget,
    chosen_precision,
    load_transformer,
    merged,
    predict,
)
from ..encoders.transformer_network import token_rows
from ..fit.penalty_path import follow_path
from ..fit.ranking import Ranking, fit_ranking
from ..pipeline import Job, Plan, centred, settle, start_job
from ..transformer_recipe import HeadFit, finish_transformer, general_guess, plan_transformer_training
from .config import FrozenConfig
from .kernel_machine import KernelHead, LandmarkKernel
from .vector_cache import cached_vectors, read_vectors

KIND = "frozen"
#: Most folds that validate the kernel machine; each of them is a path of its own.
KERNEL_FOLDS = 2


def train_frozen(
    records: Sequence[Record],
    out: str | Path,
    config: FrozenConfig | None = None,
    *,
    pool: Sequence[Model] = (),
    progress: bool = False,
) -> Path:
    """Fit a kernel machine to the vectors of a transformer that stays as it is, and export both as one router.

    Args:
        records: preference and performance records, in any order and mixture; `plan_training` says how they are used.
        out: folder of the bundle; log and curve go to ``<out>.training/``.
        config: settings.
        pool: models with prices.
        progress: show the progress on stderr: a bar on a terminal, else a line every few seconds.

    Returns:
        The bundle's folder, for `routelearn.load`.

    Raises:
        InputError: see `check_frozen`.
        ExportError: the exported graph does not reproduce the network, or int8 decides otherwise.
        MissingExtraError: a library of the extra `transformers` is missing.
    """
    config = config or FrozenConfig()
    job = start_job(_plan(records, out, config, pool), progress)
    with job.log:
        return _train(job, config)


def check_frozen(
    records: Sequence[Record], out: str | Path, config: FrozenConfig | None = None, *, pool: Sequence[Model] = ()
) -> Plan:
    """Refuse whatever `train_frozen` refuses before it computes vectors; writes nothing.

    Raises:
        InputError: the records teach nothing or are too few to hold any out, a model of the settings is in no record,
            `out` cannot be written or holds something else, the transformer cannot be loaded, it has fewer layers or
            fewer positions than the settings say, the file of vectors holds something else, or ``torchrun`` started
            several processes.
        MissingExtraError: a library of the extra `transformers` is missing.
    """
    config = config or FrozenConfig()
    plan = _plan(records, out, config, pool)
    transformer, _, _ = _load(config)
    if config.vectors is not None:
        read_vectors(Path(config.vectors), transformer)
    return plan


def _plan(records: Sequence[Record], out: str | Path, config: FrozenConfig, pool: Sequence[Model]) -> Plan:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise InputError(
            f"{processes} processes were started; expected one, without torchrun: this recipe has no work to share"
        )
    return plan_transformer_training(records, out, config, pool, kind=KIND, most_folds=KERNEL_FOLDS)


def _load(config: FrozenConfig) -> tuple[nn.Module, Pooling, bytes]:
    """The transformer of the settings, ready for export, its pooling, and its tokenizer.json."""
    transformer, pooling, tokenizer_json = load_transformer(config.encoder, layers=config.layers)
    check_token_budget(transformer, config.max_tokens, config.encoder)
    return merged(transformer), pooling, tokenizer_json


def _train(job: Job, config: FrozenConfig) -> Path:
    transformer, pooling, tokenizer_json = _load(config)
    ids = token_rows(job.examples.queries, tokenizer_json, job.truncation)
    ranking = fit_ranking(job.examples, job.folds, job.log)
    network = Backbone(transformer, pooling, ranking.folds[0].bias, ranking.folds[0].offsets)
    fit = _fit_head(_vectors(network, ids, job, config), ranking, job, config)
    return finish_transformer(job, config, network, fit, ids=ids, tokenizer_json=tokenizer_json)


def _vectors(network: Backbone, ids: Sequence[TokenIds], job: Job, config: FrozenConfig) -> torch.Tensor:
    """Vectors of all training queries, float32 (n, d), from the file of vectors where it has them."""
    phase = job.log.phase("vectors", len(ids), "query")
    precision = chosen_precision(config.precision)

    def compute(rows: Sequence[TokenIds]) -> torch.Tensor:
        return predict(network, rows, precision, on_batch=lambda count: job.log.advance(phase, count))[1]

    file = None if config.vectors is None else Path(config.vectors)
    vectors = cached_vectors(file, network.transformer, ids, compute)
    job.log.advance(phase, done=True)
    return vectors


def _fit_head(vectors: torch.Tensor, ranking: Ranking, job: Job, config: FrozenConfig) -> HeadFit:
    """Fit a kernel machine to vectors (n, d), with the penalty that the folds choose."""
    examples, log = job.examples, job.log
    # A landmark from a fold adds nothing to the fit without that fold: where every query is a landmark, the solution
    # lies in the span of the queries that are fitted (the representer theorem).
    kernel = LandmarkKernel(vectors, config.landmarks, config.kernel_scale, config.seed)
    whitening = kernel.whitening().numpy()
    features = kernel(vectors).double().numpy() @ whitening
    # The mean of the features is left to the bias, which is not penalised as a weight is.
    mean = features.mean(axis=0)
    path = follow_path(
        features - mean, examples, job.folds, ranking, log, rank=32, l2=None, steps=25, patience=3, seed=config.seed
    )
    final = path.fit_all()
    held_out = np.logical_or.reduce(job.folds)
    guess = general_guess(job, config)
    findings = settle(job, config, path.held_out, held_out, final.bias, ranking.loss, guess)
    log.curve("l2", f"{KIND}: {findings.strong} over {findings.weak}", baseline=ranking.loss)
    columns, calibration = findings.columns, findings.calibration
    weight = calibration.slope * (whitening @ final.weight[:, columns])
    bias = calibration.slope * (final.bias - mean @ final.weight)[columns] + calibration.intercept
    return HeadFit(
        head=KernelHead(kernel, centred(weight, examples), centred(bias, examples)),
        findings=findings,
        rows=np.arange(len(vectors)),
        vectors=vectors,
        scores=findings.scores[examples.primary_queries()[held_out]],
        guess=guess,
    )
