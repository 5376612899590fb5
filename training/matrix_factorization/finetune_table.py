"""Fine-tune the table of token vectors: worth it from tens of thousands of queries, which can move single words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import embedding_bag, normalize

from ...routers.bundle import Truncation
from ..encoders.outcome_tensors import OutcomeTensors, deterministic
from ..encoders.static import StaticEncoder, quantise, tokenize
from ..examples import Examples
from ..log import TrainingLog

#: Outcomes of one step.
BATCH = 512
#: Learning rates of the table and of the head.
TABLE_RATE, HEAD_RATE = 2e-4, 5e-3


def finetune_table(
    encoder: StaticEncoder,
    examples: Examples,
    held_out: npt.NDArray[np.bool_],
    truncation: Truncation,
    epochs: int,
    seed: int,
    log: TrainingLog,
) -> StaticEncoder:
    """Train the token table and a linear head together, and keep the table of the best epoch.

    Args:
        encoder: where to start.
        examples: what to learn from.
        held_out: bool (n,), the queries whose log loss picks the epoch; they are not trained on.
        truncation: how much of a query is read.
        epochs: at most so many; the training stops at the second epoch without a lower log loss.
        seed: of the order of the records.
        log: gets a line for each epoch.

    Returns:
        An encoder with the trained table, quantised again.
    """
    network = _TableNetwork(encoder, examples, truncation)
    outcomes = [part for part in (examples.preferences, examples.performances) if len(part)]
    training = [OutcomeTensors.of(part.of_queries(~held_out)) for part in outcomes]
    validation = [OutcomeTensors.of(part.of_queries(held_out)) for part in outcomes]
    random = np.random.default_rng(seed)
    best, best_table, epochs_since = float("inf"), network.table.detach().clone(), 0
    phase = log.phase("fine-tuning", epochs)
    with deterministic():
        for epoch in range(1, epochs + 1):
            train_loss = network.train_epoch(training, random)
            loss = network.mean_loss(validation)
            log.step(phase="fine-tuning", epoch=epoch, train_log_loss=train_loss, finetuning_log_loss=loss)
            log.advance(phase)
            if loss < best:
                best, best_table, epochs_since = loss, network.table.detach().clone(), 0
            else:
                epochs_since += 1
                if epochs_since >= 2:
                    break
    log.advance(phase, done=True)
    best_table[network.silent] = 0
    rounded, scale = quantise(best_table.numpy())
    return replace(encoder, table=rounded, scale=scale, fingerprint=encoder.fingerprint + "+finetuned")


class _TableNetwork:
    """A float table of token vectors and a linear head, with their optimiser.

    Attributes:
        table: float32 (vocabulary, d).
        silent: bool (vocabulary,), rows that stay zero: padding and unknown tokens.
    """

    def __init__(self, encoder: StaticEncoder, examples: Examples, truncation: Truncation) -> None:
        ids, lengths = tokenize(examples.queries, encoder.backend(), truncation)
        self._tokens = torch.from_numpy(ids.astype(np.int64))
        self._starts = torch.from_numpy(np.cumsum(lengths) - lengths)
        self._sizes = torch.from_numpy(lengths)
        self.table = (torch.from_numpy(encoder.table).float() * encoder.scale).requires_grad_()
        self.silent = torch.from_numpy((encoder.table == 0).all(axis=1))
        self._head = torch.zeros(encoder.dimensions + 1, len(examples.models), requires_grad=True)
        self._optimiser = torch.optim.AdamW(
            [{"params": [self.table], "lr": TABLE_RATE}, {"params": [self._head], "lr": HEAD_RATE}], weight_decay=0.01
        )

    def train_epoch(self, batches: list[OutcomeTensors], random: np.random.Generator) -> float:
        """Train on all outcomes once, in random order; the mean log loss (nats) on the way."""
        total = weight = 0.0
        for batch in batches:
            for rows in torch.from_numpy(random.permutation(len(batch.target))).split(BATCH):
                self._optimiser.zero_grad()
                loss = self._loss(batch, rows)
                (loss / batch.weight[rows].sum()).backward()
                if self.table.grad is not None:
                    self.table.grad[self.silent] = 0
                self._optimiser.step()
                total += float(loss.detach())
                weight += float(batch.weight[rows].sum())
        return total / weight

    def mean_loss(self, batches: list[OutcomeTensors]) -> float:
        """Weighted mean log loss (nats) of all outcomes."""
        with torch.no_grad():
            total = sum(float(self._loss(batch, torch.arange(len(batch.target)))) for batch in batches)
        return total / max(sum(float(batch.weight.sum()) for batch in batches), 1e-12)

    def _loss(self, batch: OutcomeTensors, rows: torch.Tensor) -> torch.Tensor:
        """Weighted sum of the log losses of some outcomes."""
        queries, local = batch.query[rows].unique(return_inverse=True)
        part = OutcomeTensors(
            query=local,
            model=batch.model[rows],
            target=batch.target[rows],
            weight=batch.weight[rows],
            source=batch.source[rows],
        )
        return part.losses(self._utilities(queries).double()).sum()

    def _utilities(self, queries: torch.Tensor) -> torch.Tensor:
        """Utilities (k, m) of k distinct queries."""
        count = self._sizes[queries]
        offset = count.cumsum(0) - count
        place = torch.arange(int(count.sum())) - offset.repeat_interleave(count)
        tokens = self._tokens[self._starts[queries].repeat_interleave(count) + place]
        vectors = embedding_bag(tokens, self.table, offset, mode="sum")
        return normalize(vectors) @ self._head[:-1] + self._head[-1]
