"""Fine-tune the token table itself: for data large enough to move single words (tens of thousands of queries)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import embedding_bag, normalize

from ...routers.bundle import Truncation
from ..encoders.static import StaticEncoder, quantize, tokenize
from ..examples import Examples
from ..fit.factorization import Batch, deterministic
from ..log import TrainingLog

BATCH = 512
TABLE_RATE = 2e-4
HEAD_RATE = 5e-3


def finetune_table(
    encoder: StaticEncoder,
    examples: Examples,
    held_out: npt.NDArray[np.bool_],
    truncation: Truncation,
    epochs: int,
    seed: int,
    log: TrainingLog,
) -> StaticEncoder:
    """Train table and a linear head together, and keep the table of the best epoch.

    Args:
        encoder: where to start.
        examples: what to learn from.
        held_out: (n,), the queries whose log loss picks the epoch; they are not trained on.
        truncation: how much of a query is read.
        epochs: at most; stops at the second epoch without a better log loss.
        seed: of the order of the records.
        log: gets a line an epoch.

    Returns:
        An encoder with the trained table, requantised.
    """
    ids, lengths = tokenize(examples.queries, encoder.backend(), truncation)
    tokens = torch.from_numpy(ids.astype(np.int64))
    starts = torch.from_numpy(np.cumsum(lengths) - lengths)
    sizes = torch.from_numpy(lengths)
    table = (torch.from_numpy(encoder.table).float() * encoder.scale).requires_grad_()
    silent = torch.from_numpy((encoder.table == 0).all(axis=1))
    head = torch.zeros(encoder.dimensions + 1, len(examples.models), requires_grad=True)
    optimiser = torch.optim.AdamW(
        [{"params": [table], "lr": TABLE_RATE}, {"params": [head], "lr": HEAD_RATE}], weight_decay=0.01
    )
    outcomes = [batch for batch in (examples.preferences, examples.performances) if len(batch)]
    training = [Batch.of(batch.of_queries(~held_out)) for batch in outcomes]
    validation = [Batch.of(batch.of_queries(held_out)) for batch in outcomes]

    def utilities(queries: torch.Tensor) -> torch.Tensor:
        """(k, m) of k distinct queries."""
        count = sizes[queries]
        offset = count.cumsum(0) - count
        place = torch.arange(int(count.sum())) - offset.repeat_interleave(count)
        vectors = embedding_bag(tokens[starts[queries].repeat_interleave(count) + place], table, offset, mode="sum")
        return normalize(vectors) @ head[:-1] + head[-1]

    def loss_of(batch: Batch, rows: torch.Tensor) -> torch.Tensor:
        queries, local = batch.query[rows].unique(return_inverse=True)
        part = Batch(local, batch.model[rows], batch.target[rows], batch.weight[rows], batch.source[rows])
        return part.losses(utilities(queries).double()).sum()

    random = np.random.default_rng(seed)
    best, best_table, since = float("inf"), table.detach().clone(), 0
    phase = log.phase("fine-tuning", epochs)
    with deterministic():
        for epoch in range(1, epochs + 1):
            total = weight = 0.0
            for batch in training:
                for rows in torch.from_numpy(random.permutation(len(batch.target))).split(BATCH):
                    optimiser.zero_grad()
                    loss = loss_of(batch, rows)
                    (loss / batch.weight[rows].sum()).backward()
                    if table.grad is not None:
                        table.grad[silent] = 0
                    optimiser.step()
                    total += float(loss.detach())
                    weight += float(batch.weight[rows].sum())
            with torch.no_grad():
                held = sum(float(loss_of(batch, torch.arange(len(batch.target)))) for batch in validation)
            held /= max(sum(float(batch.weight.sum()) for batch in validation), 1e-12)
            log.step(phase="fine-tuning", epoch=epoch, train_log_loss=total / weight, finetuning_log_loss=held)
            log.advance(phase)
            if held < best:
                best, best_table, since = held, table.detach().clone(), 0
            else:
                since += 1
                if since >= 2:
                    break
    log.advance(phase, done=True)
    best_table[silent] = 0
    rounded, scale = quantize(best_table.numpy())
    return replace(encoder, table=rounded, scale=scale, fingerprint=encoder.fingerprint + "+finetuned")
