"""What the recipes bert and frozen share: the checks before training, and the end of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..data.records import Record
from ..routers.bundle import Truncation
from ..routers.decision import Floats, Model
from .config import GENERAL_ROUTER, NO_ROUTER
from .encoders.config import TransformerRouterConfig
from .encoders.transformer import Backbone, TokenIds
from .encoders.transformer_network import TransformerNetwork, export_network, quantised_network, torch_quality
from .examples import Examples
from .export.gate import NetworkQuality, decision_gate, parity_gate
from .export.int8 import GATE_QUERIES, golden_tolerance
from .export.publish import Gate
from .fit.drift_reference import projection_of
from .fit.metrics import Array
from .fit.novelty import centroids_of, held_out_novelty
from .general.companion import GeneralCompanion
from .general.prior import GeneralGuess, GeneralPrior
from .libraries import require_training
from .pipeline import Findings, Job, Plan, finish, plan_training

#: Training queries that the parity gate compares; a transformer takes some ten milliseconds for each.
PARITY_TEXTS = 300


def plan_transformer_training(
    records: Sequence[Record],
    out: str | Path,
    config: TransformerRouterConfig,
    pool: Sequence[Model],
    *,
    kind: str,
    most_folds: int,
) -> Plan:
    """Check a run as `plan_training` does; a transformer reads the start and the end of a long query."""
    require_training("transformers")
    if config.general not in {GENERAL_ROUTER, NO_ROUTER}:  # before anything is written
        GeneralPrior.read(config.general)
    truncation = Truncation(
        max_tokens=config.max_tokens,
        last_tokens=round(config.max_tokens * config.last_share),
        special_tokens=True,
    )
    return plan_training(records, out, config, pool, kind=kind, truncation=truncation, most_folds=most_folds)


def general_guess(job: Job, config: TransformerRouterConfig) -> GeneralGuess | None:
    """What the general router of the settings expects of the training queries; None: the settings name none."""
    if config.general == NO_ROUTER:
        return None
    prior = GeneralPrior.read(config.general)
    return prior.guess(prior.encode(job.examples.queries), job.folds, job.examples, config.strong)


@dataclass(frozen=True, kw_only=True)
class HeadFit:
    """The fitted head of a router, and what its held-out queries say.

    Attributes:
        head: unit vectors (n, d) to calibrated utilities of the exported models.
        findings: calibration, thresholds and metrics from held-out queries.
        rows: int64 (k,), rows of the queries whose vectors are known; those of the first fold are among them.
        vectors: float32 (k, d), the vectors of these queries.
        scores: scores of held-out queries by heads that were fitted without them. None where the exported head itself
            was fitted without them.
        guess: what a general router expects of the queries; None: it does not take part.
    """

    head: nn.Module
    findings: Findings
    rows: npt.NDArray[np.int64]
    vectors: torch.Tensor
    scores: Floats | None
    guess: GeneralGuess | None

    @property
    def companion(self) -> GeneralCompanion | None:
        """The general part of the router; None: there is none."""
        part = self.findings.general
        return None if part is None or self.guess is None else GeneralCompanion(part, self.guess.encoded)


def finish_transformer(
    job: Job,
    config: TransformerRouterConfig,
    backbone: Backbone,
    fit: HeadFit,
    *,
    ids: Sequence[TokenIds],
    tokenizer_json: bytes,
) -> Path:
    """Export a fitted router, in float32 or int8, and publish it behind the gate.

    Args:
        job: the training run.
        config: its settings.
        backbone: the transformer with its pooling.
        fit: the fitted head.
        ids: token ids of the training queries.
        tokenizer_json: bytes of the tokenizer.

    Returns:
        The bundle's folder.

    Raises:
        ExportError: the exported graph does not reproduce the network, or int8 decides otherwise.
    """
    examples, fold = job.examples, job.folds[0]
    vectors = fit.vectors.numpy()
    held_out = (fold & examples.primary_queries())[fit.rows]
    projection = projection_of(vectors[held_out])
    network: nn.Module = TransformerNetwork(backbone, fit.head, centroids_of(vectors, config.seed), projection).eval()
    by_network, companion = torch_quality(network, tokenizer_json, job.truncation), fit.companion
    if companion is not None:
        by_network = companion.beside(by_network)
    if config.quantise == "int8":
        gate = _int8_gate(by_network, job, fit.findings)
        network = quantised_network(network, ids)
    else:
        gate = parity_gate(by_network, examples.queries, PARITY_TEXTS)
    job.log.phase("export and check of the graph")
    return finish(
        job,
        config,
        fit.findings,
        model=export_network(network),
        tokenizer_json=tokenizer_json,
        gate=gate,
        novelties=held_out_novelty(vectors, fold[fit.rows], config.seed),
        unfitted=fold,
        scores=fit.scores,
        golden_tolerance=golden_tolerance(config.quantise),
        companion=None if companion is None else companion.export(),
    )


def _int8_gate(by_network: NetworkQuality, job: Job, findings: Findings) -> Gate:
    """The gate of the int8 graph, on `GATE_QUERIES` training queries, held-out ones first."""
    examples, held_out = job.examples, job.folds[0]
    rows = np.concatenate([np.flatnonzero(held_out), np.flatnonzero(~held_out)])[:GATE_QUERIES]
    columns = [findings.columns[column] for column in findings.manifest.columns]
    strong, weak = (_scores_of(examples, column)[rows] for column in columns)
    return decision_gate(by_network, [examples.queries[row] for row in rows], (strong, weak))


def _scores_of(examples: Examples, column: int) -> Array:
    """Scores of one model's answers, float64 (n,), NaN where unknown."""
    part = examples.performances
    scores = np.full(len(examples.queries), np.nan)
    answered = part.model[:, 0] == column
    scores[part.query[answered]] = part.target[answered]
    return scores
