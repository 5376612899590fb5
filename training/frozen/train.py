"""The frozen recipe: a transformer that stays as it is, with a kernel machine on its vectors.

No gradient runs through the transformer, so that training takes minutes where fine-tuning takes an hour, and a larger
transformer can be used. Losses, calibration and gates are those of the other recipes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ...data.records import Record
from ...routers.base import Model
from ...routers.errors import InputError
from ..encoders.transformer import (
    Backbone,
    TokenIds,
    check_token_budget,
    chosen_precision,
    load_transformer,
    merged,
    predict,
)
from ..encoders.transformer_network import HeadFit, publish_network, token_rows, truncation_of
from ..examples import validation_folds
from ..fit.penalty_path import follow_path
from ..fit.ranking import Ranking, fit_ranking
from ..pipeline import Job, centred, settle, start_job
from .config import FrozenConfig
from .kernel_machine import KernelHead, LandmarkKernel
from .vector_cache import cached_vectors

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
        records: preference and performance records, in any order and mixture; `start_job` says how they are used.
        out: folder of the bundle; log and curve go to ``<out>.training/``.
        config: settings.
        pool: models with prices, by name.
        progress: show a progress bar on stderr.

    Returns:
        The bundle's folder, for `routelearn.load`.

    Raises:
        InputError: the records teach nothing, a model is in no record, a setting does not suit the transformer, the
            file of vectors is unusable, or ``torchrun`` started several processes.
        ExportError: the exported graph does not reproduce the network, or int8 decides otherwise.
        MissingExtraError: a library of the extra `train` is missing.
    """
    config = config or FrozenConfig()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise InputError(
            f"{processes} processes were started; expected one, without torchrun: this recipe has no work to share"
        )
    job = start_job(records, out, config, pool, progress)
    with job.log:
        return _train(job, config)


def _train(job: Job, config: FrozenConfig) -> Path:
    examples = job.examples
    transformer, pooling, tokenizer_json = load_transformer(config.encoder, layers=config.layers)
    check_token_budget(transformer, config.max_tokens, config.encoder)
    truncation = truncation_of(config)
    ids = token_rows(examples.queries, tokenizer_json, truncation)
    folds = validation_folds(examples, config.folds, config.seed)[:KERNEL_FOLDS]
    ranking = fit_ranking(examples, folds, job.log)
    network = Backbone(merged(transformer), pooling, ranking.folds[0].bias, ranking.folds[0].offsets)
    return publish_network(
        job,
        config,
        network,
        _fit_head(_vectors(network, ids, job, config), folds, ranking, job, config),
        kind=KIND,
        ids=ids,
        tokenizer_json=tokenizer_json,
        truncation=truncation,
        fold=folds[0],
    )


def _vectors(network: Backbone, ids: Sequence[TokenIds], job: Job, config: FrozenConfig) -> torch.Tensor:
    """Vectors of all training queries, float32 (n, d), from the file of vectors where it has them."""
    phase = job.log.phase("vectors", len(ids))
    precision = chosen_precision(config.precision)

    def compute(rows: Sequence[TokenIds]) -> torch.Tensor:
        return predict(network, rows, precision, on_batch=lambda count: job.log.advance(phase, count))[1]

    file = None if config.vectors is None else Path(config.vectors)
    vectors = cached_vectors(file, network.transformer, ids, compute)
    job.log.advance(phase, done=True)
    return vectors


def _fit_head(
    vectors: torch.Tensor, folds: list[npt.NDArray[np.bool_]], ranking: Ranking, job: Job, config: FrozenConfig
) -> HeadFit:
    """Fit a kernel machine to vectors (n, d), with the penalty that the folds choose."""
    examples, log = job.examples, job.log
    # A landmark from a fold adds nothing to the fit without that fold: where every query is a landmark, the solution
    # lies in the span of the queries that are fitted (the representer theorem).
    kernel = LandmarkKernel(vectors, config.landmarks, config.kernel_scale, config.seed)
    whitening = kernel.whitening()
    features = kernel(vectors).double() @ whitening
    # The mean of the features is left to the bias, which is not penalised as a weight is.
    mean = features.mean(dim=0)
    path = follow_path(
        features - mean, examples, folds, ranking, log, rank=32, l2=None, steps=25, patience=3, seed=config.seed
    )
    final = path.fit_all()
    held_out = np.logical_or.reduce(folds)
    settled = settle(job, config, path.held_out, held_out, final.bias, ranking.loss)
    log.curve("l2", f"{KIND}: {settled.strong} over {settled.weak}", baseline=ranking.loss)
    kept, calibration = settled.columns, settled.calibration
    weight = calibration.slope * (whitening @ final.weight[:, kept])
    bias = calibration.slope * (final.bias - mean @ final.weight)[kept] + calibration.intercept
    return HeadFit(
        head=KernelHead(kernel, centred(weight, examples), centred(bias, examples)),
        settled=settled,
        rows=np.arange(len(vectors)),
        vectors=vectors,
        scores=settled.scores[examples.own_queries()[held_out]],
    )
