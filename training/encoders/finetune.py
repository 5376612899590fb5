"""Fine-tune a transformer end to end: probe its heads, then train everything, in one process or several, CPU or GPU.

The recipes bert and verifier share this. Checkpoints lie below the bundle's training folder, so that an interrupted run
can be resumed.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers.trainer_utils import get_last_checkpoint

from ...routers.errors import InputError
from ..examples import Examples, data_fingerprint
from ..fit.penalty_path import follow_path
from ..fit.ranking import Ranking
from ..log import TrainingLog, training_folder
from .config import FinetuneConfig
from .outcome_loss import LogCallback, OutcomeTrainer, QueryDataset, collate
from .transformer import PREDICTION_BATCH, Backbone, TokenIds, chosen_precision, predict, quiet

#: Queries, beside the held-out ones, that the heads are first fitted to.
PROBE_QUERIES = 3000
#: File that names the settings and the data of the run that the checkpoints belong to.
RUN = "run.json"
#: Settings that a resumed run may change, because training does not depend on them.
_EXPORT_SETTINGS = {"resume", "quantise", "strong_share", "escalation_rate", "link", "strong", "weak", "features"}


def fit_network(
    network: Backbone,
    ids: Sequence[TokenIds],
    examples: Examples,
    folds: list[npt.NDArray[np.bool_]],
    ranking: Ranking,
    config: FinetuneConfig,
    out: Path,
    log: TrainingLog,
) -> None:
    """Probe the heads, then fine-tune the whole network in place.

    Args:
        network: the network to train.
        ids: token ids of the n queries.
        examples: the queries' outcomes.
        folds: one validation fold, bool (n,).
        ranking: the global ranking, fitted without the queries of the fold.
        config: settings.
        out: folder of the bundle; checkpoints go below its training folder.
        log: gets one line for each validation.

    Raises:
        InputError: the run to resume had other settings or other data.
    """
    folder = checkpoints(out)
    check_resume(out, config, examples)
    _prepare_checkpoints(out, config, examples)
    if config.probe and not (config.resume and get_last_checkpoint(str(folder))):
        _probe(network, ids, examples, folds, ranking, config, log)
    finetune(network, ids, examples, folds[0], config, folder, log)


def _probe(
    network: Backbone,
    ids: Sequence[TokenIds],
    examples: Examples,
    folds: list[npt.NDArray[np.bool_]],
    ranking: Ranking,
    config: FinetuneConfig,
    log: TrainingLog,
) -> None:
    """Start the heads at the best linear fit to some queries, so that fine-tuning need not distort features to find it.

    This is linear probing, then fine-tuning (Kumar et al. 2022). The fit is that of the matrix factorization.
    """
    rows = some_rows(folds[0], PROBE_QUERIES, config.seed)
    phase = log.phase("probe", len(rows), "query")
    precision = chosen_precision(config.precision)
    vectors = predict(network, [ids[row] for row in rows], precision, lambda count: log.advance(phase, count))[1]
    features = np.zeros((len(ids), network.head.in_features))
    features[rows] = vectors.numpy()
    kept = np.zeros(len(ids), np.bool_)
    kept[rows] = True
    probed = replace(
        examples,
        preferences=examples.preferences.of_queries(kept),
        performances=examples.performances.of_queries(kept),
    )
    path = follow_path(features, probed, folds, ranking, log, rank=32, l2=None, steps=25, patience=3, seed=config.seed)
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(path.folds[0].weight.T))
        network.head.bias.copy_(torch.from_numpy(path.folds[0].bias))


def some_rows(held_out: npt.NDArray[np.bool_], others: int, seed: int) -> npt.NDArray[np.int64]:
    """Rows of all held-out queries, followed by at most `others` rows of other queries, drawn at random."""
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(~held_out))[:others]
    return np.concatenate([np.flatnonzero(held_out), drawn])


def checkpoints(out: Path) -> Path:
    """The folder that holds the checkpoints of a bundle in training."""
    return training_folder(out) / "checkpoints"


def can_resume(out: Path, config: FinetuneConfig) -> bool:
    """Whether the settings ask to resume a run, and there is a run to resume."""
    return config.resume and (checkpoints(out) / RUN).is_file()


def check_resume(out: Path, config: FinetuneConfig, examples: Examples) -> None:
    """Refuse to resume another run than the one whose checkpoints are there.

    Raises:
        InputError: the run to resume had other settings or other data.
    """
    if can_resume(out, config):
        run, before = _run(config, examples), json.loads((checkpoints(out) / RUN).read_text())
        changed = sorted(name for name in run if run[name] != before.get(name))
        if changed:
            raise InputError(
                f"cannot resume the run in {checkpoints(out)}: {changed} differ; expected the settings and the data of "
                "that run, or a new run without --resume"
            )


def _prepare_checkpoints(out: Path, config: FinetuneConfig, examples: Examples) -> None:
    """Delete the checkpoints of an earlier run, unless this run resumes it."""
    if is_main_process() and not can_resume(out, config):
        folder = checkpoints(out)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / RUN).write_text(json.dumps(_run(config, examples)))


def _run(config: FinetuneConfig, examples: Examples) -> dict[str, Any]:
    """The settings and the data that training depends on, as plain data."""
    settings = {name: value for name, value in asdict(config).items() if name not in _EXPORT_SETTINGS}
    run: dict[str, Any] = json.loads(json.dumps({**settings, "data": data_fingerprint(examples)}))
    return run


def finetune(
    network: Backbone,
    ids: Sequence[TokenIds],
    examples: Examples,
    held_out: npt.NDArray[np.bool_],
    config: FinetuneConfig,
    folder: Path,
    log: TrainingLog,
) -> None:
    """Train a network in place, and leave it with the weights of the best validation.

    Under ``torchrun`` every process trains on its share of each batch.

    Args:
        network: the network to train.
        ids: token ids of the n queries.
        examples: the queries' outcomes.
        held_out: bool (n,), the queries whose log loss stops the training; they are not trained on.
        config: settings.
        folder: checkpoints go here; the last two are kept.
        log: gets one line for each validation.
    """
    training, validation = QueryDataset(ids, examples, ~held_out), QueryDataset(ids, examples, held_out)
    with quiet():
        trainer = OutcomeTrainer(
            model=network,
            args=_arguments(config, folder, len(training)),
            train_dataset=training,
            eval_dataset=validation,
            data_collator=collate,
            optimizers=(_optimiser(network, config), None),  # type: ignore[arg-type]
            callbacks=[LogCallback(log), transformers.EarlyStoppingCallback(config.patience)],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        checkpoint = get_last_checkpoint(str(folder)) if config.resume and folder.is_dir() else None
        trainer.train(resume_from_checkpoint=checkpoint)
    network.to("cpu").eval()


def _arguments(config: FinetuneConfig, folder: Path, queries: int) -> transformers.TrainingArguments:
    """The settings of the library's trainer, for a number of training queries.

    The learning rates rise linearly over the first tenth of the steps, and then fall linearly.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # above 1 under torchrun
    per_device = max(1, config.batch_size // processes)
    steps_per_epoch = math.ceil(queries / (per_device * processes))
    every = max(1, steps_per_epoch // config.evaluations)
    precision = chosen_precision(config.precision)
    cuda = torch.cuda.is_available()
    return transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=per_device,
        per_device_eval_batch_size=PREDICTION_BATCH,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(steps_per_epoch * config.epochs / 10),
        max_grad_norm=1.0,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        use_cpu=not cuda,
        ddp_backend="gloo" if processes > 1 and not cuda else None,
        ddp_find_unused_parameters=False,
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=every,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        dataloader_pin_memory=cuda,
        disable_tqdm=True,
        report_to=[],
        seed=config.seed,
    )


def _optimiser(network: Backbone, config: FinetuneConfig) -> torch.optim.Optimizer:
    """AdamW with one learning rate for the transformer and one for the heads; only weight matrices decay."""
    heads = {
        id(parameter)
        for parameter in [*network.head.parameters(), *([] if network.offsets is None else [network.offsets])]
    }
    body = [p for p in network.parameters() if p.requires_grad and id(p) not in heads]
    rate, decay = config.learning_rate, config.weight_decay
    return torch.optim.AdamW(
        [
            {"params": [p for p in body if p.ndim >= 2], "lr": rate, "weight_decay": decay},
            {"params": [p for p in body if p.ndim < 2], "lr": rate, "weight_decay": 0.0},
            {
                "params": [p for p in network.parameters() if id(p) in heads],
                "lr": config.head_learning_rate,
                "weight_decay": 0.0,
            },
        ]
    )


def is_main_process() -> bool:
    """Whether this process writes the results: it is the only process, or the first that ``torchrun`` started."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """Wait until every process of a distributed run has come to this line."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
