"""Fine-tune a transformer end to end with `transformers.Trainer`: one process, several, CPU or GPU."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import nn
from torch.utils.data import Dataset
from transformers.trainer_utils import get_last_checkpoint

from ..examples import Examples, Outcomes
from ..fit.factorization import Batch
from ..log import TrainingLog
from .transformer import Backbone, quiet

Precision = Literal["auto", "float32", "bfloat16", "float16"]
#: Rows of a batch when only predicting.
PREDICTION_BATCH = 64


@dataclass(frozen=True)
class Settings:
    """How to fine-tune.

    Attributes:
        epochs: most passes over the queries.
        batch_size: queries a step, over all processes of one machine and accumulation steps.
        learning_rate: peak, of the transformer; linear warm-up over a tenth of the steps, then linear decay.
        head_learning_rate: peak, of the heads.
        weight_decay: of weights, not of biases and normalisations.
        precision: "auto" takes bfloat16 where the processor or GPU computes it natively.
        evaluations: validations an epoch; the best one's weights are kept.
        patience: stop after this many validations without a lower log loss.
        seed: of the order of the queries and of dropout.
        resume: go on from the last checkpoint, where there is one.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    head_learning_rate: float
    weight_decay: float
    precision: Precision
    evaluations: int
    patience: int
    seed: int
    resume: bool


class QueryDataset(Dataset[dict[str, Any]]):
    """Queries with their outcomes: one item a query, so that a query is encoded once however often it was judged."""

    def __init__(self, ids: Sequence[npt.NDArray[np.int32]], examples: Examples, rows: npt.NDArray[np.bool_]) -> None:
        """Keep the queries of bool (n,) that have an outcome."""
        self._ids = ids
        self._parts = [(part, _rows_of(part, len(ids))) for part in (examples.preferences, examples.performances)]
        counts = sum((np.bincount(part.query, minlength=len(ids)) for part, _ in self._parts), np.zeros(len(ids)))
        self.queries = np.flatnonzero(rows & (counts > 0))

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.queries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The token ids and, for both kinds of record, models, targets, weights and sources."""
        query = int(self.queries[index])
        item: dict[str, Any] = {"input_ids": self._ids[query]}
        for kind, (part, rows) in zip(("preferences", "performances"), self._parts, strict=True):
            found = rows[query]
            item[kind] = (part.model[found], part.target[found], part.weight[found], part.source[found])
        return item


def _rows_of(part: Outcomes, queries: int) -> list[npt.NDArray[np.int64]]:
    order = np.argsort(part.query, kind="stable")
    return np.split(order, np.cumsum(np.bincount(part.query, minlength=queries))[:-1])


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Pad the ids on the right and join the outcomes, which then count queries from 0 in the batch."""
    batch: dict[str, Any] = dict(
        zip(("input_ids", "attention_mask"), padded([item["input_ids"] for item in items]), strict=True)
    )
    for kind in ("preferences", "performances"):
        parts = [item[kind] for item in items]
        query = np.repeat(np.arange(len(items)), [len(part[1]) for part in parts])
        columns = [torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True)]
        batch[kind] = [torch.from_numpy(query), *columns]
    return batch


def padded(ids: Sequence[npt.NDArray[np.int32]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, int64 (n, length)."""
    length = max(1, *(len(row) for row in ids))
    values, mask = np.zeros((len(ids), length), np.int64), np.zeros((len(ids), length), np.int64)
    for row, found in enumerate(ids):
        values[row, : len(found)] = found
        mask[row, : len(found)] = 1
    return torch.from_numpy(values), torch.from_numpy(mask)


class _Trainer(transformers.Trainer):
    """The loss of the other routers, per unit of weight; nothing else differs from `transformers.Trainer`."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **options: Any) -> Any:
        utilities = model(inputs["input_ids"], inputs["attention_mask"])
        backbone: Any = getattr(model, "module", model)
        offsets = backbone.all_offsets()
        loss = utilities.new_zeros(())
        weight = utilities.new_zeros(())
        for kind in ("preferences", "performances"):
            batch = Batch(*_ordered(inputs[kind]))
            if len(batch.target):
                loss = loss + batch.losses(utilities.float(), offsets).sum()
                weight = weight + batch.weight.sum()
        loss = loss / weight.clamp_min(1e-12)
        return (loss, {"utilities": utilities}) if options.get("return_outputs") else loss

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Any:
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None


def _ordered(columns: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    query, model, target, weight, source = columns
    return query, model, target, weight, source


class _Progress(transformers.TrainerCallback):
    def __init__(self, log: TrainingLog) -> None:
        self._log = log
        self._phase: Any = None
        self._train_loss = float("nan")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._phase = self._log.phase("fine-tuning", state.max_steps)
        for _step in range(state.global_step):  # resumed
            self._log.advance(self._phase)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._log.advance(self._phase)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        logs = logs or {}
        self._train_loss = logs.get("loss", self._train_loss)
        if "eval_loss" in logs:
            self._log.step(
                phase="fine-tuning",
                step=state.global_step,
                epoch=state.epoch,
                train_log_loss=self._train_loss,
                validation_log_loss=logs["eval_loss"],
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._log.advance(self._phase, done=True)


def finetune(
    network: Backbone,
    ids: Sequence[npt.NDArray[np.int32]],
    examples: Examples,
    held_out: npt.NDArray[np.bool_],
    settings: Settings,
    folder: Path,
    log: TrainingLog,
) -> None:
    """Train a network in place, and leave it with the weights of the best validation.

    Started by ``torchrun``, every process trains on its share of each batch.

    Args:
        network: where to start.
        ids: token ids of the n queries.
        examples: their outcomes.
        held_out: bool (n,), the queries whose log loss stops the training; they are not trained on.
        settings: how.
        folder: checkpoints go here, the last two kept.
        log: gets a line a validation.
    """
    training, validation = QueryDataset(ids, examples, ~held_out), QueryDataset(ids, examples, held_out)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    per_device = max(1, settings.batch_size // processes)
    steps_per_epoch = math.ceil(len(training) / (per_device * processes))
    every = max(1, steps_per_epoch // settings.evaluations)
    precision = native_precision() if settings.precision == "auto" else settings.precision
    cuda = torch.cuda.is_available()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=per_device,
        per_device_eval_batch_size=PREDICTION_BATCH,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(steps_per_epoch * settings.epochs / 10),
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
        seed=settings.seed,
    )
    with quiet():
        trainer = _Trainer(
            model=network,
            args=arguments,
            train_dataset=training,
            eval_dataset=validation,
            data_collator=collate,
            optimizers=(_optimiser(network, settings), None),  # type: ignore[arg-type]
            callbacks=[_Progress(log), transformers.EarlyStoppingCallback(settings.patience)],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        checkpoint = get_last_checkpoint(str(folder)) if settings.resume and folder.is_dir() else None
        trainer.train(resume_from_checkpoint=checkpoint)
    network.to("cpu").eval()


def _optimiser(network: Backbone, settings: Settings) -> torch.optim.Optimizer:
    heads = {
        id(parameter)
        for parameter in [*network.head.parameters(), *([] if network.offsets is None else [network.offsets])]
    }
    body = [p for p in network.parameters() if p.requires_grad and id(p) not in heads]
    rate, decay = settings.learning_rate, settings.weight_decay
    return torch.optim.AdamW(
        [
            {"params": [p for p in body if p.ndim >= 2], "lr": rate, "weight_decay": decay},
            {"params": [p for p in body if p.ndim < 2], "lr": rate, "weight_decay": 0.0},
            {
                "params": [p for p in network.parameters() if id(p) in heads],
                "lr": settings.head_learning_rate,
                "weight_decay": 0.0,
            },
        ]
    )


def native_precision() -> Precision:
    """bfloat16 where it is computed natively (measured twice as fast as float32), else float32."""
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if native() else "float32"


def is_main_process() -> bool:
    """Whether this process writes the results: the only one, or the first that torchrun started."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """Wait until every process of a distributed run is here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def predict(
    network: Backbone,
    ids: Sequence[npt.NDArray[np.int32]],
    precision: Precision = "float32",
    on_batch: Callable[[int], object] = lambda count: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Utilities (n, m) and unit vectors (n, d) of n queries, batched by length, on a GPU where there is one.

    Args:
        network: left on the CPU.
        ids: token ids of the n queries.
        precision: of the transformer.
        on_batch: called with the size of every batch, for progress.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    half = torch.float16 if precision == "float16" else torch.bfloat16
    mixed = precision == "bfloat16" or (precision == "float16" and device == "cuda")
    network.eval().to(device)
    order = np.argsort([len(row) for row in ids], kind="stable")
    pooled = torch.zeros(len(ids), network.head.in_features)
    with torch.no_grad():
        for start in range(0, len(order), PREDICTION_BATCH):
            rows = order[start : start + PREDICTION_BATCH]
            batch = [tensor.to(device) for tensor in padded([ids[row] for row in rows])]
            with torch.autocast(device, half, enabled=mixed):
                pooled[torch.from_numpy(rows)] = network.pooled(*batch).cpu()
            on_batch(len(rows))
        return network.to("cpu").head(pooled), pooled
