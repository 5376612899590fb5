"""The verifier recipe: a transformer that reads a query with an answer and says how likely the answer is good enough.

The verifier is a cross-encoder, as is FrugalGPT's scorer (Chen et al. 2023, section 3), and it is fine-tuned as the
BERT router is. Everything that is chosen after the fine-tuning is fitted on answers to queries that the transformer was
not trained on: the weights of the features, the calibration, and every threshold. Metrics are cross-fitted among these
answers. FrugalGPT's code fits thresholds on the scorer's training data, where they promise a confidence that new
answers do not get. The held-out answers also say when the training stops, which chooses one of a few checkpoints.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from ...cascade.verifier import PairEncoder
from ...data.records import Record
from ...routers.base import Router
from ...routers.bundle import CARD, MODEL, TOKENIZER, VERIFIER, Manifest, Truncation, save_bundle
from ...routers.decision import Model
from ...routers.errors import require
from ...routers.session import Session
from ...routers.tokenizer import HuggingFaceBackend
from ..encoders.finetune import can_resume, check_resume, checkpoints, fit_network, is_main_process, wait_for_all
from ..encoders.transformer import Backbone, Pooling, TokenIds, check_token_budget, load_transformer, merged, predict
from ..examples import Examples, data_fingerprint
from ..export.gate import check_quantised, check_rows
from ..export.int8 import CALIBRATION_QUERIES, GATE_QUERIES, golden_tolerance
from ..export.publish import verifier_card
from ..fit.ranking import fit_ranking
from ..log import TrainingLog, training_folder
from .config import VerifierConfig
from .job import VerifierJob, VerifierPlan, plan_verifier
from .network import (
    VerifierNetwork,
    confidence_by_session,
    export_verifier,
    golden_pairs,
    quantised_verifier,
)
from .stacking import Stack, cross_fitted, escalation_table, fit_stack, measured

#: Fewest held-out answers that the gate compares without other answers beside them.
LEAST_GATE = 200
#: Most pairs that the parity gate of a float graph compares, in batches and alone.
PARITY_PAIRS = 200


def train_verifier(
    records: Sequence[Record],
    out: str | Path,
    config: VerifierConfig | None = None,
    *,
    prior: Router | None = None,
    pool: Sequence[Model] = (),
    progress: bool = False,
) -> Path:
    """Fine-tune a verifier and export it. Under ``torchrun`` every process calls this with the same records.

    Args:
        records: performance records with responses, or preference records with responses, in any order and mixture.
            Records marked "test" are left out. Records marked "val", where there are any, are held out.
        out: folder of the bundle; log and checkpoints go to ``<out>.training/``.
        config: settings.
        prior: a router whose score of the query becomes a feature. It must not have been trained on these queries: a
            score that already knows the answer would be trusted too much.
        pool: models with prices.
        progress: show the progress on stderr: a bar on a terminal, else a line every few seconds.

    Returns:
        The bundle's folder, for `routelearn.load_verifier`.

    Raises:
        InputError: see `check_verifier`.
        ExportError: the exported graph does not reproduce the network, or int8 escalates otherwise.
        MissingExtraError: a library of the extra `transformers` or `lora` is missing.
    """
    config = config or VerifierConfig()
    require("accelerate", "transformers")
    plan = plan_verifier(records, out, config, prior=prior, pool=pool)
    main = is_main_process()
    folder = training_folder(plan.out) / ("" if main else "other-processes")
    log = TrainingLog(folder, show_progress=progress and main, resume=can_resume(plan.out, config))
    with log:
        path = _train(VerifierJob(**vars(plan), log=log))
    wait_for_all()
    return path


def check_verifier(
    records: Sequence[Record],
    out: str | Path,
    config: VerifierConfig | None = None,
    *,
    prior: Router | None = None,
    pool: Sequence[Model] = (),
) -> VerifierPlan:
    """Refuse whatever `train_verifier` refuses before it trains; writes nothing.

    Raises:
        InputError: there is no response to learn from, too few answers to hold out, no response of a model of the
            settings, `out` cannot be written or holds something else, the transformer cannot be loaded, it has fewer
            positions than the settings say, or the run to resume had other settings or other data.
        MissingExtraError: a library of the extra `transformers` or `lora` is missing.
    """
    config = config or VerifierConfig()
    require("accelerate", "transformers")
    plan = plan_verifier(records, out, config, prior=prior, pool=pool)
    _load(config)
    check_resume(plan.out, config, _hashed(plan))
    return plan


def _load(config: VerifierConfig) -> tuple[nn.Module, Pooling, bytes, PairEncoder]:
    """The transformer of the settings, its pooling, its tokenizer.json, and what makes pairs of queries and answers."""
    transformer, pooling, tokenizer_json = load_transformer(
        config.encoder, config.dropout, config.lora_rank, config.frozen_share
    )
    check_token_budget(transformer, config.max_tokens, config.encoder)
    encoder = PairEncoder.of(tokenizer_json, Truncation(max_tokens=config.max_tokens), config.query_tokens)
    return transformer, pooling, tokenizer_json, encoder


def _train(job: VerifierJob) -> Path:
    config = job.config
    job.log.phase("loading the transformer")
    transformer, pooling, tokenizer_json, encoder = _load(config)
    ids = encoder.encode(job.examples.queries, [answer.answer for answer in job.answers])
    ranking = fit_ranking(job.examples, job.folds, job.log)
    network = Backbone(transformer, pooling, ranking.folds[0].bias, ranking.folds[0].offsets)
    examples = _hashed(job)
    fit_network(network, ids, examples, job.folds, ranking, config, job.out, job.log)
    if not is_main_process():
        return job.out
    network.transformer = merged(network.transformer)
    utilities = _utilities(job, network, ids, job.rows)
    stack, confidence, metrics = _fit_stack(job, utilities)
    table = escalation_table(confidence)
    model, session, parity = _gated_graph(job, network, stack, utilities, ids, table, tokenizer_json)
    manifest = Manifest(
        kind=VERIFIER,
        pool=tuple(job.prices.get(name, Model(name)) for name in job.models),
        strong=config.strong or "",
        weak=config.weak or "",
        link="difference",
        truncation=encoder.truncation,
        calibration={"method": "stacking", **asdict(stack), "features": list(job.feature_names)},
        threshold=float(np.interp(config.escalation_rate, [rate for rate, _ in table], [value for _, value in table])),
        threshold_table=tuple(table),
        novelty_bound=None,
        training={
            "config": asdict(config),
            "data_fingerprint": data_fingerprint(examples),
            "records": len(job.answers),
            "queries": len(set(job.examples.keys)),
            "metrics": metrics,
            **parity,
        },
        golden=golden_pairs(session, encoder, job.feature_names),
        golden_tolerance=golden_tolerance(config.quantise),
    )
    contents = {MODEL: model, TOKENIZER: tokenizer_json, CARD: verifier_card(manifest, job.out.name).encode()}
    path = save_bundle(job.out, manifest, contents)
    shutil.rmtree(checkpoints(job.out))
    return path


def _utilities(
    job: VerifierJob, network: Backbone, ids: Sequence[TokenIds], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The network's utilities, float64 (r,), of the answers at these rows, computed in float32 as the graph does."""
    phase = job.log.phase("judging held-out answers", len(rows), "answer")
    predicted = predict(network, [ids[row] for row in rows], on_batch=lambda count: job.log.advance(phase, count))
    return np.asarray(predicted[0][:, 0].double().numpy())


def _fit_stack(
    job: VerifierJob, utilities: npt.NDArray[np.float64]
) -> tuple[Stack, npt.NDArray[np.float64], dict[str, Any]]:
    """Fit the last step on held-out answers: the stack, cross-fitted confidence (r,) of these answers, and metrics."""
    held = [job.answers[row] for row in job.rows]
    features = job.features(job.rows.tolist())
    good = np.asarray([answer.good for answer in held])
    weight = np.asarray([answer.weight for answer in held])
    stack = fit_stack(utilities, features, good, weight)
    confidence = cross_fitted(utilities, features, good, weight, [answer.key for answer in held], job.config.seed)
    metrics = measured(confidence, good, [answer.model for answer in held])
    job.log.step(phase="done", **metrics)
    return stack, confidence, metrics


def _gated_graph(
    job: VerifierJob,
    network: Backbone,
    stack: Stack,
    utilities: npt.NDArray[np.float64],
    ids: Sequence[TokenIds],
    table: Sequence[tuple[float, float]],
    tokenizer_json: bytes,
) -> tuple[bytes, Session, dict[str, float]]:
    """Export network and stack, in float32 or int8, and pass the gate.

    The graph must give the confidences that the thresholds were chosen from: those of the stack, from the network's
    utilities (r,) of the held-out answers.

    Returns:
        The graph, the graph as a session, and what the gate measured.

    Raises:
        ExportError: the graph does not reproduce the network, or int8 escalates otherwise.
    """
    exported = VerifierNetwork(network, stack).eval()
    final: nn.Module = exported
    if job.config.quantise == "int8":
        job.log.phase("int8")
        final = quantised_verifier(exported, job.pairs(ids, range(len(ids))[:CALIBRATION_QUERIES]))
    job.log.phase("export")
    model = export_verifier(final, job.feature_names, job.config.query_tokens)
    session = Session(model, HuggingFaceBackend(tokenizer_json, False), job.config.max_tokens, threads=1)
    job.log.phase("check of the graph")
    if job.config.quantise == "int8":
        rows = job.rows[:GATE_QUERIES]
        if len(job.rows) < LEAST_GATE:
            # Held-out answers alone, where there are enough: the network is sure of answers that it was trained on,
            # and int8 changes no decision on these.
            others = np.flatnonzero(~job.folds[0])[: GATE_QUERIES - len(rows)]
            utilities = np.concatenate([utilities, _utilities(job, network, ids, others)])
            rows = np.concatenate([rows, others])
        pairs = job.pairs(ids, rows.tolist())
        exact = stack.confidence(utilities[: len(rows)], pairs.features).astype(np.float32)
        thresholds = [value for rate, value in table if 0 < rate < 1]
        return model, session, check_quantised(exact, confidence_by_session(session, pairs), thresholds, None)
    chosen = _spread([len(ids[row]) for row in job.rows], PARITY_PAIRS)
    pairs = job.pairs(ids, job.rows[chosen].tolist())
    exact = stack.confidence(utilities[chosen], pairs.features).astype(np.float32)
    return model, session, check_rows(exact, lambda rows: confidence_by_session(session, pairs.at(rows)))


def _spread(lengths: Sequence[int], count: int) -> npt.NDArray[np.int64]:
    """At most `count` rows out of all, from the shortest to the longest: a graph that is wrong may be so at one end."""
    places = np.linspace(0, len(lengths) - 1, min(count, len(lengths))).round().astype(np.int64)
    return np.argsort(lengths, kind="stable")[places]


def _hashed(plan: VerifierPlan) -> Examples:
    """The examples with keys over query and answer, because other answers to the same queries are other data."""
    keys = [
        hashlib.sha256(f"{answer.key}\n{answer.answer}".encode("utf-8", "surrogatepass")).hexdigest()
        for answer in plan.answers
    ]
    return replace(plan.examples, keys=keys)
