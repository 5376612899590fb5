"""The matrix-factorization router: a static encoder, and utilities linear in the query's vector.

``u(query) = bias + W · [v / |v| ; -log |v|]`` with v the sum of the vectors of the
query's distinct tokens (less its mean over the dimensions, which lets one layer
normalisation do it all) and W of low rank (RouteLLM, arXiv 2406.18665, section 4.2, with N models, ties,
soft labels and performance records). The length enters because hard queries are
longer, and the norm of v is already there. The whole training is a convex-like
problem of a few thousand numbers: full-batch L-BFGS along a path of penalties,
stopped early on held-out prompts, takes seconds and needs no learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ...data.records import Record
from ...routers.base import Model
from ...routers.bundle import Truncation
from ..encoders.static import static_encoder
from ..encoders.static_network import (
    OUTPUTS,
    MatrixFactorization,
    Standard,
    epsilon_of,
    example_inputs,
    reference_quality,
    token_sums,
)
from ..examples import Examples, validation_folds
from ..export.gate import parity_gate
from ..export.to_onnx import export_onnx
from ..fit.drift_reference import projection_of
from ..fit.novelty import centroids_of, held_out_novelty
from ..fit.penalty_path import follow_path
from ..fit.ranking import Ranking, fit_ranking
from ..pipeline import Job, centred, finish, settle, start_job
from .config import MatrixFactorizationConfig
from .tasks import SHARE, TaskExpert, fit_expert, helps

KIND = "matrix-factorization"
#: Weight of the length against the unit vector: one standard deviation of log |v| counts as this much.
LENGTH_SCALE = 0.3


def train_matrix_factorization(
    records: Sequence[Record],
    out: str | Path,
    config: MatrixFactorizationConfig | None = None,
    *,
    pool: Sequence[Model] = (),
    progress: bool = False,
) -> Path:
    """Train a matrix-factorization router and export it.

    Args:
        records: preference and performance records, mixed as they come; see `start_job` for their use.
        out: folder of the bundle; the log goes to ``<out>.training/``.
        config: settings.
        pool: prices of models, by name.
        progress: show a progress bar on stderr.

    Returns:
        The bundle's folder, for `routelearn.load`.

    Raises:
        InputError: nothing to learn from, a model that no record mentions, or a setting out of range.
        ExportError: the exported graph does not reproduce the network.
    """
    config = config or MatrixFactorizationConfig()
    job = start_job(records, out, config, pool, progress)
    with job.log:
        return _train(job, config)


def _train(job: Job, config: MatrixFactorizationConfig) -> Path:
    examples, log = job.examples, job.log
    phase = log.phase("encoder", 1)
    encoder = static_encoder(config.encoder, config.dimensions)
    log.advance(phase)
    truncation = Truncation(max_tokens=config.max_tokens, distinct=True)
    folds = validation_folds(examples, config.folds, config.seed)
    unfitted = None
    if config.finetune_epochs:
        from .finetune_table import finetune_table

        folds = folds[:1]  # the table has seen the queries of every other fold
        unfitted = folds[0]
        encoder = finetune_table(encoder, examples, folds[0], truncation, config.finetune_epochs, config.seed, log)
    total = token_sums(examples.queries, encoder, truncation)
    network = MatrixFactorization(encoder, epsilon_of(total))
    with torch.no_grad():
        unit, plain = network.features(total)
    vectors, plain = unit.numpy(), plain.double()
    spread = float(plain[:, -1].std(correction=0))
    standard = Standard(float(plain[:, -1].mean()), LENGTH_SCALE / spread if spread > 1e-6 else 0.0)
    features = standard.apply(plain)

    ranking = fit_ranking(examples, folds, log)
    path = follow_path(
        features,
        examples,
        folds,
        ranking,
        log,
        rank=config.rank,
        l2=config.l2,
        steps=config.path_steps,
        patience=config.patience,
        seed=config.seed,
    )
    final = path.fit_all()
    held_out = np.logical_or.reduce(folds)
    of_tasks = _of_tasks(features, examples, folds, ranking, config.seed) if config.tasks else None
    utilities, expert, share = path.held_out, None, 1.0
    both = utilities if of_tasks is None else SHARE * utilities + (1 - SHARE) * of_tasks
    if of_tasks is not None and helps(utilities, both, examples, held_out, config.seed, log):
        utilities, share = both, SHARE
        expert = fit_expert(features, examples, np.ones(len(held_out), np.bool_), ranking.overall, config.seed)
    settled = settle(job, config, utilities, held_out, final.bias, ranking.loss)
    calibration, kept = settled.calibration, settled.columns
    log.curve("l2", f"{KIND}: {settled.strong} over {settled.weak}", baseline=ranking.loss)

    slope = share * calibration.slope
    weight, bias = standard.fold(slope * final.weight[:, kept], slope * final.bias[kept] + calibration.intercept)
    network.weight, network.bias = centred(weight, examples).float(), centred(bias, examples).float()
    if expert is not None:
        worth = (1 - share) * calibration.slope * expert.worth[:, kept]
        network.expert = TaskExpert(*standard.fold(expert.weight, expert.bias), worth).exported(
            centred(worth, examples)
        )
    network.centroids = torch.from_numpy(centroids_of(vectors, config.seed))
    own = examples.own_queries() if unfitted is None else examples.own_queries() & unfitted
    network.projection, network.projection_offset = standard.fold(*projection_of(features[torch.from_numpy(own)]))
    network.eval()
    return finish(
        job,
        replace(config, l2=path.l2),
        settled,
        kind=KIND,
        model=export_onnx(network, example_inputs(), OUTPUTS),
        tokenizer_json=encoder.tokenizer_json,
        truncation=truncation,
        gate=parity_gate(reference_quality(network, encoder, truncation), examples.queries, truncation),
        fold=folds[0],
        novelties=held_out_novelty(vectors, folds[0], config.seed),
        unfitted=unfitted,
        encoder_fingerprint=encoder.fingerprint,
    )


def _of_tasks(
    features: torch.Tensor, examples: Examples, folds: list[npt.NDArray[np.bool_]], ranking: Ranking, seed: int
) -> torch.Tensor | None:
    """Utilities of each fold by an expert fitted without it: (n, m); None where no two tasks are named."""
    found = torch.zeros(len(features), len(examples.models), dtype=torch.float64)
    for fold, one in zip(folds, ranking.folds, strict=True):
        expert = fit_expert(features, examples, ~fold, one, seed)
        if expert is None:
            return None
        found[torch.from_numpy(fold)] = expert(features[torch.from_numpy(fold)])
    return found
