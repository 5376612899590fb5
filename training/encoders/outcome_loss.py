"""`transformers.Trainer` with the losses of the other recipes, and queries with their outcomes as its batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import nn
from torch.utils.data import Dataset

from ..examples import Examples, Outcomes
from ..log import TrainingLog
from .outcome_tensors import OutcomeTensors
from .transformer import TokenIds, padded


class QueryDataset(Dataset[dict[str, Any]]):
    """Queries with their outcomes, one item a query: a query is encoded once however often it was judged.

    Attributes:
        queries: int64 (k,), rows of the queries that are in the data set.
    """

    def __init__(self, ids: Sequence[TokenIds], examples: Examples, rows: npt.NDArray[np.bool_]) -> None:
        """Keep the queries that bool (n,) marks and that have an outcome."""
        self._ids = ids
        self._parts = [(part, _rows_of(part, len(ids))) for part in (examples.preferences, examples.performances)]
        counts = sum((np.bincount(part.query, minlength=len(ids)) for part, _ in self._parts), np.zeros(len(ids)))
        self.queries = np.flatnonzero(rows & (counts > 0))

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.queries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The token ids of a query and, for both kinds of record, models, targets, weights and sources."""
        query = int(self.queries[index])
        item: dict[str, Any] = {"input_ids": self._ids[query]}
        for kind, (part, rows) in zip(("preferences", "performances"), self._parts, strict=True):
            kept = rows[query]
            item[kind] = (part.model[kept], part.target[kept], part.weight[kept], part.source[kept])
        return item


def _rows_of(part: Outcomes, queries: int) -> list[npt.NDArray[np.int64]]:
    """The rows of the outcomes, query by query."""
    order = np.argsort(part.query, kind="stable")
    return np.split(order, np.cumsum(np.bincount(part.query, minlength=queries))[:-1])


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Make one batch of items: ids padded on the right, outcomes joined and numbered by the batch's queries."""
    batch: dict[str, Any] = dict(
        zip(("input_ids", "attention_mask"), padded([item["input_ids"] for item in items]), strict=True)
    )
    for kind in ("preferences", "performances"):
        parts = [item[kind] for item in items]
        query = np.repeat(np.arange(len(items)), [len(part[1]) for part in parts])
        columns = [torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True)]
        batch[kind] = [torch.from_numpy(query), *columns]
    return batch


class OutcomeTrainer(transformers.Trainer):
    """A `transformers.Trainer` whose loss is the log loss of the outcomes, per unit of weight."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **options: Any) -> Any:
        """The loss of a batch; with `return_outputs` the utilities too."""
        utilities = model(inputs["input_ids"], inputs["attention_mask"])
        backbone: Any = getattr(model, "module", model)  # torch wraps the model when several processes or GPUs share it
        offsets = backbone.all_offsets()
        loss = utilities.new_zeros(())
        weight = utilities.new_zeros(())
        for kind in ("preferences", "performances"):
            query, models, target, weights, source = inputs[kind]
            batch = OutcomeTensors(query=query, model=models, target=target, weight=weights, source=source)
            if len(batch.target):
                loss = loss + batch.losses(utilities.float(), offsets).sum()
                weight = weight + batch.weight.sum()
        loss = loss / weight.clamp_min(1e-12)
        return (loss, {"utilities": utilities}) if options.get("return_outputs") else loss

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Any:
        """The loss of a validation batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None


class LogCallback(transformers.TrainerCallback):
    """Writes losses to the training log, and tells it the progress."""

    def __init__(self, log: TrainingLog) -> None:
        self._log = log
        self._phase: Any = None
        self._train_loss = float("nan")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin a phase, at the step where a resumed run goes on."""
        self._phase = self._log.phase("fine-tuning", state.max_steps)
        self._log.advance(self._phase, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count one step."""
        self._log.advance(self._phase)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Write one line for each validation."""
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
        """End the phase."""
        self._log.advance(self._phase, done=True)
