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
import torch
from torch import nn

from ...data.records import Record
from ...routers.decision import Model
from ..encoders.finetune import (
    can_resume,
    check_resume,
    checkpoints,
    fit_network,
    is_main_process,
    some_rows,
    wait_for_all,
)
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
from ..fit.factorization import Array
from ..fit.ranking import Ranking, fit_ranking
from ..pipeline import Job, Plan, centred, settle, start_job
from ..transformer_recipe import HeadFit, finish_transformer, general_guess, plan_transformer_training
from .config import BertConfig

KIND = "bert"
#: Queries, beside the held-out ones, that novelty is learned from.
NOVELTY_QUERIES = 2000


class LinearHead(nn.Module):
    """Maps unit vectors (n, d) to utilities (n, m). It is no `nn.Linear`, because int8 rounds the weights of those."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, weight: Array, bias: Array) -> None:
        """Keep weight (d, m) and bias (m,)."""
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(weight).float().contiguous())
        self.register_buffer("bias", torch.from_numpy(bias).float())

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
        records: preference and performance records, in any order and mixture; `plan_training` says how they are used.
        out: folder of the bundle; log, checkpoints and curve go to ``<out>.training/``.
        config: settings.
        pool: models with prices.
        progress: show the progress on stderr: a bar on a terminal, else a line every few seconds.

    Returns:
        The bundle's folder, for `routelearn.load`. The first process alone writes it; it is there when all return.

    Raises:
        InputError: see `check_bert`.
        ExportError: the exported graph does not reproduce the network, or int8 decides otherwise.
        MissingExtraError: a library of the extra `transformers` or `lora` is missing.
    """
    config = config or BertConfig()
    plan = _plan(records, out, config, pool)
    main = is_main_process()
    job = start_job(plan, progress and main, None if main else "other-processes", can_resume(plan.out, config))
    with job.log:
        path = _train(job, config)
    wait_for_all()
    return path


def check_bert(
    records: Sequence[Record], out: str | Path, config: BertConfig | None = None, *, pool: Sequence[Model] = ()
) -> Plan:
    """Refuse whatever `train_bert` refuses before it trains; writes nothing.

    Raises:
        InputError: the records teach nothing or are too few to hold any out, a model of the settings is in no record,
            `out` cannot be written or holds something else, the transformer cannot be loaded, it has fewer layers or
            fewer positions than the settings say, or the run to resume had other settings or other data.
        MissingExtraError: a library of the extra `transformers` or `lora` is missing.
    """
    config = config or BertConfig()
    plan = _plan(records, out, config, pool)
    _load(config)
    check_resume(plan.out, config, plan.examples)
    return plan


def _plan(records: Sequence[Record], out: str | Path, config: BertConfig, pool: Sequence[Model]) -> Plan:
    return plan_transformer_training(records, out, config, pool, kind=KIND, most_folds=1)


def _load(config: BertConfig) -> tuple[nn.Module, Pooling, bytes]:
    """The transformer of the settings, its pooling, and its tokenizer.json."""
    loaded = load_transformer(config.encoder, config.dropout, config.lora_rank, config.frozen_share, config.layers)
    check_token_budget(loaded[0], config.max_tokens, config.encoder)
    return loaded


def _train(job: Job, config: BertConfig) -> Path:
    transformer, pooling, tokenizer_json = _load(config)
    ids = token_rows(job.examples.queries, tokenizer_json, job.truncation)
    ranking = fit_ranking(job.examples, job.folds, job.log)
    network = Backbone(transformer, pooling, ranking.folds[0].bias, ranking.folds[0].offsets)
    fit_network(network, ids, job.examples, job.folds, ranking, config, job.out, job.log)
    if not is_main_process():
        return job.out
    network.transformer = merged(network.transformer)
    fit = _fit_head(network, ids, ranking, job, config)
    path = finish_transformer(job, config, network, fit, ids=ids, tokenizer_json=tokenizer_json)
    shutil.rmtree(checkpoints(job.out))
    return path


def _fit_head(network: Backbone, ids: Sequence[TokenIds], ranking: Ranking, job: Job, config: BertConfig) -> HeadFit:
    """Calibrate the fine-tuned heads on the held-out queries, and keep the heads of the exported models."""
    rows = some_rows(job.folds[0], NOVELTY_QUERIES, config.seed)
    phase, precision = job.log.phase("vectors", len(rows), "query"), chosen_precision(config.precision)
    predicted, vectors = predict(
        network, [ids[row] for row in rows], precision, lambda count: job.log.advance(phase, count)
    )
    utilities = np.zeros((len(ids), predicted.shape[1]))
    utilities[rows] = predicted.numpy()
    guess = general_guess(job, config)
    findings = settle(job, config, utilities, job.folds[0], ranking.overall.bias, ranking.loss, guess)
    job.log.curve("step", f"{KIND}: {findings.strong} over {findings.weak}", baseline=ranking.loss)
    columns, calibration = findings.columns, findings.calibration
    weight = calibration.slope * network.head.weight.detach().cpu().double().numpy().T[:, columns]
    bias = calibration.slope * network.head.bias.detach().cpu().double().numpy()[columns] + calibration.intercept
    head = LinearHead(centred(weight, job.examples), centred(bias, job.examples))
    return HeadFit(head=head, findings=findings, rows=rows, vectors=vectors, scores=None, guess=guess)
