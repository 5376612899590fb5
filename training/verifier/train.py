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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from ...cascade.verifier import PRIOR, PairEncoder, feature_rows
from ...data.records import Record
from ...routers.base import Floats, Model, Router
from ...routers.bundle import CARD, MODEL, TOKENIZER, VERIFIER, Manifest, Truncation, check_replaceable, save_bundle
from ...routers.errors import InputError, require
from ...routers.session import Session
from ...routers.tokenizer import HuggingFaceBackend
from ..encoders.finetune import can_resume, checkpoints, fit_network, is_main_process, wait_for_all
from ..encoders.transformer import Backbone, TokenIds, check_token_budget, load_transformer, merged, predict
from ..examples import Examples, data_fingerprint, validation_folds
from ..export.gate import check_quantised, check_rows
from ..export.int8 import CALIBRATION_QUERIES, GATE_QUERIES, golden_tolerance
from ..export.publish import verifier_card
from ..fit.ranking import fit_ranking
from ..log import TrainingLog
from ..pipeline import training_folder
from .config import VerifierConfig
from .judged_answers import JudgedAnswer, answer_examples, judged_answers
from .network import (
    Pairs,
    VerifierNetwork,
    confidence_by_session,
    confidence_by_torch,
    export_verifier,
    golden_pairs,
    quantised_verifier,
)
from .stacking import Stack, cross_fitted, escalation_table, fit_stack, measured

#: Fewest held-out answers of either kind, and fewest prompts, that thresholds can be picked from.
LEAST_HELD_OUT = 10
#: Fewest held-out answers that the gate compares without other answers beside them.
LEAST_GATE = 200
#: Most pairs that the parity gate of a float graph compares.
PARITY_PAIRS = 200


@dataclass(frozen=True)
class VerifierJob:
    """One training run of a verifier.

    Attributes:
        answers: the n answers to learn from; answers of records marked "test" are not among them.
        examples: the same answers as the outcomes of one model.
        config: settings.
        out: folder of the bundle.
        prior: the router whose score of the query is a feature, or None.
        prices: models with prices, by name.
        log: where metrics and progress go.
    """

    answers: Sequence[JudgedAnswer]
    examples: Examples
    config: VerifierConfig
    out: Path
    prior: Router | None
    prices: Mapping[str, Model]
    log: TrainingLog

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features that the verifier reads beside the text."""
        return (*self.config.features, *([PRIOR] if self.prior else []))

    def features(self, rows: Sequence[int]) -> Floats:
        """Features of the answers at these rows, float32 (r, k)."""
        answers = [self.answers[row] for row in rows]
        priors = None if self.prior is None else self.prior.score([answer.query for answer in answers]).tolist()
        return feature_rows(self.feature_names, [answer.answer for answer in answers], priors)

    def pairs(self, ids: Sequence[TokenIds], rows: Sequence[int]) -> Pairs:
        """The pairs at these rows, from the token ids of all n pairs."""
        return Pairs([ids[row] for row in rows], self.features(rows))


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
        pool: models with prices, by name.
        progress: show a progress bar on stderr.

    Returns:
        The bundle's folder, for `routelearn.load_verifier`.

    Raises:
        InputError: the records teach nothing, a model has no response, or a setting does not suit the transformer.
        ExportError: the exported graph does not reproduce the network, or int8 escalates otherwise.
        MissingExtraError: a library of the extra `train` or `lora` is missing.
    """
    require("accelerate", "train")
    config = config or VerifierConfig()
    out = Path(out)
    check_replaceable(out)
    trainable = [record for record in records if record.split != "test"]
    if not trainable:
        raise InputError(f"no records to learn from ({len(records)} are marked 'test')")
    answers = judged_answers(trainable, config.models, config.good_at)
    names = sorted({answer.model for answer in answers})
    if config.weak is not None and config.weak not in names:
        raise InputError(f"no record has a response of {config.weak!r}; there are responses of {names}")
    main = is_main_process()
    folder = training_folder(out) / ("" if main else "other-processes")
    with TrainingLog(folder, show_progress=progress and main, resume=can_resume(out, config)) as log:
        path = _train(
            VerifierJob(
                answers=answers,
                examples=answer_examples(answers),
                config=config,
                out=out,
                prior=prior,
                prices={model.name: model for model in pool},
                log=log,
            )
        )
    wait_for_all()
    return path


def _train(job: VerifierJob) -> Path:
    config, examples = job.config, job.examples
    transformer, pooling, tokenizer_json = load_transformer(
        config.encoder, config.dropout, config.lora_rank, config.frozen_share
    )
    check_token_budget(transformer, config.max_tokens, config.encoder)
    encoder = PairEncoder.of(tokenizer_json, Truncation(max_tokens=config.max_tokens), config.query_tokens)
    ids = encoder.encode(examples.queries, [answer.answer for answer in job.answers])
    rows, folds = held_out(examples, job.answers, config)
    ranking = fit_ranking(examples, folds, job.log)
    network = Backbone(transformer, pooling, ranking.folds[0].bias, ranking.folds[0].offsets)
    # The keys are made of query and answer, because other answers to the same queries are other data.
    hashed = replace(examples, keys=_hashes(job.answers))
    fit_network(network, ids, hashed, folds, ranking, config, job.out, job.log)
    if not is_main_process():
        return job.out
    network.transformer = merged(network.transformer)
    stack, confidence, metrics = _fit_stack(job, network, ids, rows)
    table = escalation_table(confidence)
    # Held-out answers alone, where there are enough: the network is sure of answers that it was trained on, and int8
    # changes no decision on these.
    others = np.flatnonzero(~folds[0]) if len(rows) < LEAST_GATE else np.empty(0, np.int64)
    compared = np.concatenate([rows, others])[:GATE_QUERIES].tolist()
    exported = VerifierNetwork(network, stack).eval()
    model, session, parity = _gated_graph(job, exported, ids, compared, table, tokenizer_json)
    manifest = Manifest(
        kind=VERIFIER,
        pool=tuple(job.prices.get(name, Model(name)) for name in sorted({answer.model for answer in job.answers})),
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
            "data_fingerprint": data_fingerprint(hashed),
            "records": len(job.answers),
            "queries": len(set(examples.keys)),
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


def _fit_stack(
    job: VerifierJob, network: Backbone, ids: Sequence[TokenIds], rows: npt.NDArray[np.int64]
) -> tuple[Stack, npt.NDArray[np.float64], dict[str, Any]]:
    """Fit the last step on held-out answers: the stack, cross-fitted confidence (r,) of these answers, and metrics."""
    held = [job.answers[row] for row in rows]
    features = job.features(rows.tolist())
    utilities = predict(network, [ids[row] for row in rows])[0][:, 0].double().numpy()
    good = np.asarray([answer.good for answer in held])
    weight = np.asarray([answer.weight for answer in held])
    stack = fit_stack(utilities, features, good, weight)
    confidence = cross_fitted(utilities, features, good, weight, [answer.key for answer in held], job.config.seed)
    metrics = measured(confidence, good, [answer.model for answer in held])
    job.log.step(phase="done", **metrics)
    return stack, confidence, metrics


def _gated_graph(
    job: VerifierJob,
    network: VerifierNetwork,
    ids: Sequence[TokenIds],
    compared: Sequence[int],
    table: Sequence[tuple[float, float]],
    tokenizer_json: bytes,
) -> tuple[bytes, Session, dict[str, float]]:
    """Export the network, in float32 or int8, and pass the gate on the answers at `compared`.

    Returns:
        The graph, the graph as a session, and what the gate measured.

    Raises:
        ExportError: the graph does not reproduce the network, or int8 escalates otherwise.
    """
    pairs = job.pairs(ids, compared)
    exact = confidence_by_torch(network, pairs)
    final: nn.Module = network
    if job.config.quantise == "int8":
        final = quantised_verifier(network, job.pairs(ids, range(len(ids))[:CALIBRATION_QUERIES]))
    model = export_verifier(final, job.feature_names, job.config.query_tokens)
    session = Session(model, HuggingFaceBackend(tokenizer_json, False), job.config.max_tokens, threads=1)
    if job.config.quantise == "int8":
        thresholds = [value for rate, value in table if 0 < rate < 1]
        return model, session, check_quantised(exact, confidence_by_session(session, pairs), thresholds, None)
    parity = check_rows(exact[:PARITY_PAIRS], lambda rows: confidence_by_session(session, pairs.at(rows)))
    return model, session, parity


def held_out(
    examples: Examples, answers: Sequence[JudgedAnswer], config: VerifierConfig
) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.bool_]]]:
    """Choose the answers that are not trained on.

    Returns:
        The rows that thresholds are picked from: answers of the primary source, and of the weak model where one is
        named. And one fold, bool (n,), that marks all answers to the same prompts: where one answer to a prompt is
        marked "val", no answer to this prompt is trained on.

    Raises:
        InputError: there are too few good answers, too few others, or too few prompts among these rows.
    """
    fold = validation_folds(examples, config.folds, config.seed)[0]
    keys = {key for key, held in zip(examples.keys, fold, strict=True) if held}
    fold = np.asarray([key in keys for key in examples.keys])
    primary = [a.source == examples.sources[0] and config.weak in {None, a.model} for a in answers]
    rows = np.flatnonzero(fold & np.asarray(primary))
    good = sum(answers[int(row)].good for row in rows)
    prompts = len({answers[int(row)].key for row in rows})
    if min(good, len(rows) - good, prompts) < LEAST_HELD_OUT:
        raise InputError(
            f"of {len(rows)} held-out answers to {prompts} prompts {good} are good enough; thresholds need at least "
            f"{LEAST_HELD_OUT} of either kind and as many prompts: give more records, or hold out more (fewer folds)"
        )
    return rows, [fold]


def _hashes(answers: Sequence[JudgedAnswer]) -> list[str]:
    """A key for each query with its answer."""
    return [
        hashlib.sha256(f"{answer.key}\n{answer.answer}".encode("utf-8", "surrogatepass")).hexdigest()
        for answer in answers
    ]
