"""The BERT recipe: a transformer fine-tuned end to end, with one head for every model (RouteLLM, section 4.2).

The transformer is any Hugging Face encoder, or a decoder with last-token pooling (the LLM-based router). Losses,
calibration and gates are those of the other recipes. RouteLLM classifies which of two models wins. Here every model has
a utility of its own, so that one router serves any pair of models and learns from scores as well as from battles.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...data.records import Record
from ...routers.base import Model
from ...routers.errors import require
from ..encoders.finetune import can_resume, checkpoints, fit_network, is_main_process, some_rows, wait_for_all
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
from ..fit.ranking import Ranking, fit_ranking
from ..pipeline import Job, centred, settle, start_job
from .config import BertConfig

KIND = "bert"
#: Queries, beside the held-out ones, that novelty is learned from.
NOVELTY_QUERIES = 2000


class LinearHead(nn.Module):
    """Maps unit vectors (n, d) to utilities (n, m). It is no `nn.Linear`, because int8 rounds the weights of those."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Keep weight (d, m) and bias (m,)."""
        super().__init__()
        self.register_buffer("weight", weight.float().contiguous())
        self.register_buffer("bias", bias.float())

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Utilities (n, m)."""
        return vectors @ self.weight + self.bias


def train_bert(
    records: Sequence[Record],
    out: str | Path,
    config: BertConfig | None = None,
    *,
    pool: Sequence[Model] = (),
    progress: bool = False,
) -> Path:
    """Fine-tune a transformer router and export it. Under ``torchrun`` every process calls this with the same records.

    Args:
        records: preference and performance records, in any order and mixture; `start_job` says how they are used.
        out: folder of the bundle; log, checkpoints and curve go to ``<out>.training/``.
        config: settings.
        pool: models with prices, by name.
        progress: show a progress bar on stderr.

    Returns:
        The bundle's folder, for `routelearn.load`. The first process alone writes it; it is there when all return.

    Raises:
        InputError: the records teach nothing, a model is in no record, or a setting does not suit the transformer.
        ExportError: the exported graph does not reproduce the network, or int8 decides otherwise.
        MissingExtraError: a library of the extra `train` or `lora` is missing.
    """
    require("accelerate", "train")
    config = config or BertConfig()
    main = is_main_process()
    resume = can_resume(Path(out), config)
    job = start_job(records, out, config, pool, progress and main, None if main else "other-processes", resume)
    with job.log:
        path = _train(job, config)
    wait_for_all()
    return path


def _train(job: Job, config: BertConfig) -> Path:
    examples, log = job.examples, job.log
    transformer, pooling, tokenizer_json = load_transformer(
        config.encoder, config.dropout, config.lora_rank, config.frozen_share, config.layers
    )
    check_token_budget(transformer, config.max_tokens, config.encoder)
    truncation = truncation_of(config)
    ids = token_rows(examples.queries, tokenizer_json, truncation)
    folds = validation_folds(examples, config.folds, config.seed)[:1]
    ranking = fit_ranking(examples, folds, log)
    network = Backbone(transformer, pooling, ranking.folds[0].bias, ranking.folds[0].offsets)
    fit_network(network, ids, examples, folds, ranking, config, job.out, log)
    if not is_main_process():
        return job.out
    network.transformer = merged(network.transformer)
    path = publish_network(
        job,
        config,
        network,
        _fit_head(network, ids, folds[0], ranking, job, config),
        kind=KIND,
        ids=ids,
        tokenizer_json=tokenizer_json,
        truncation=truncation,
        fold=folds[0],
    )
    shutil.rmtree(checkpoints(job.out))
    return path


def _fit_head(
    network: Backbone,
    ids: Sequence[TokenIds],
    fold: npt.NDArray[np.bool_],
    ranking: Ranking,
    job: Job,
    config: BertConfig,
) -> HeadFit:
    """Calibrate the fine-tuned heads on the fold, and keep those of the exported models."""
    rows = some_rows(fold, NOVELTY_QUERIES, config.seed)
    predicted, vectors = predict(network, [ids[row] for row in rows], chosen_precision(config.precision))
    utilities = torch.zeros(len(ids), predicted.shape[1], dtype=torch.float64)
    utilities[torch.from_numpy(rows)] = predicted.double()
    settled = settle(job, config, utilities, fold, ranking.overall.bias, ranking.loss)
    job.log.curve("step", f"{KIND}: {settled.strong} over {settled.weak}", baseline=ranking.loss)
    kept, calibration = settled.columns, settled.calibration
    weight = calibration.slope * network.head.weight.detach().T[:, kept]
    bias = calibration.slope * network.head.bias.detach()[kept] + calibration.intercept
    head = LinearHead(centred(weight, job.examples), centred(bias, job.examples))
    return HeadFit(head=head, settled=settled, rows=rows, vectors=vectors, scores=None)
