"""The verifier: a transformer that reads a query with an answer and says how likely the answer is good enough.

A cross-encoder (FrugalGPT's scorer, Chen et al. 2023, section 3, is one as well), fine-tuned as the BERT router is.
Everything that is chosen afterwards (the weights of the features, the calibration, every threshold) is fitted on
answers to queries that the transformer was not trained on, and measured cross-fitted among those: fitted on the
scorer's own training data, as in FrugalGPT's code, thresholds would promise a confidence that new answers do not get.
The same held-out answers also say when the training stops: one choice among a few checkpoints.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...cascade.verifier import FEATURES, PRIOR, PairEncoder, feature_rows
from ...data.records import Record
from ...routers.base import Floats, Model, Router
from ...routers.bundle import (
    CARD,
    MODEL,
    TOKENIZER,
    VERIFIER,
    Golden,
    Manifest,
    Truncation,
    check_replaceable,
    save_bundle,
)
from ...routers.errors import InputError, require
from ...routers.golden import GOLDEN_PAIRS, GOLDEN_PRIOR
from ...routers.session import Session
from ...routers.tokenizer import HuggingFaceBackend
from ..bert.train import (
    CALIBRATION_QUERIES,
    GATE_QUERIES,
    INT8_GOLDEN_TOLERANCE,
    TOKENS_PER_RUN,
    BertConfig,
    check_token_budget,
    checkpoints,
    fit_network,
)
from ..config import name_list, number, whole
from ..encoders.finetune import is_main_process, padded, predict, wait_for_all
from ..encoders.transformer import Backbone, load_transformer, merged
from ..examples import Examples, data_fingerprint, validation_folds
from ..export.int8 import quantised
from ..export.to_onnx import export_onnx
from ..export.verifier_card import verifier_card
from ..export.verifier_gate import check_verifier, confidence_by_session
from ..fit.ranking import fit_ranking
from ..log import TrainingLog
from ..pipeline import training_folder
from .judged_answers import JudgedAnswer, answer_examples, judged_answers
from .stacking import Stack, cross_fitted, escalation_table, fit_stack, measured

#: Fewest held-out answers of either kind, and prompts, that thresholds can be picked from.
LEAST_HELD_OUT = 10
#: Fewest held-out answers that the gate compares alone.
LEAST_GATE = 200


@dataclass(frozen=True, kw_only=True)
class VerifierConfig(BertConfig):
    """Settings of `train_verifier`, beside those of `BertConfig`.

    `models` are those whose answers are learned from (None: all), `weak` is the one whose answers will be verified
    (None: all), `strong` the one that answers instead; `strong_share` is the escalation rate of the default
    threshold.

    Attributes:
        good_at: least score of an answer that is good enough; of preferences, the least win rate over the other.
        query_tokens: tokens that are the query's when query and answer are long.
        features: read beside the text; see `FEATURES` of cascade/verifier.py.
    """

    folds: int = 5
    max_tokens: int = 256
    epochs: int = 2
    strong_share: float = 0.3
    good_at: Annotated[float, number(above=0, most=1)] = 0.5
    query_tokens: Annotated[int, whole(1)] = 96
    features: Annotated[tuple[str, ...], name_list(0, tuple(FEATURES))] = tuple(FEATURES)

    def check_combinations(self) -> None:
        """The query leaves room for the answer, and a verifier is always trained."""
        super().check_combinations()
        if self.epochs < 1:
            raise InputError(f"epochs is {self.epochs}; expected a whole number from 1")
        if self.query_tokens >= self.max_tokens - 8:
            raise InputError(
                f"query_tokens is {self.query_tokens}; expected less than max_tokens - 8, {self.max_tokens - 8}"
            )


class VerifierNetwork(nn.Module):
    """What is exported: ids and mask (n, length), features (n, k) to ``quality`` (n, 1), P(good enough)."""

    weight: torch.Tensor
    feature_weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, backbone: Backbone, stack: Stack) -> None:
        """Fold the stack into the head."""
        super().__init__()
        self.backbone = backbone
        self.register_buffer("weight", backbone.head.weight.detach().T.contiguous() * stack.slope)
        bias = backbone.head.bias.detach() * stack.slope + stack.intercept
        self.register_buffer("bias", bias)
        self.register_buffer("feature_weight", torch.tensor(stack.weights, dtype=torch.float32).reshape(-1, 1))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, features: torch.Tensor | None = None
    ) -> torch.Tensor:
        """P(good enough), float32 (n, 1)."""
        logit = self.backbone.pooled(input_ids, attention_mask) @ self.weight + self.bias
        if features is not None:
            logit = logit + features @ self.feature_weight
        return torch.sigmoid(logit)


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
        records: performance records with responses, or preference records with responses, mixed as they come.
            Those marked "test" are left out; those marked "val", where there are any, are held out.
        out: folder of the bundle; log and checkpoints go to ``<out>.training/``.
        config: settings.
        prior: a router whose score of the query becomes a feature. It must not have been trained on these queries:
            a score that already knows the answer would be trusted too much.
        pool: prices of models, by name.
        progress: show a progress bar on stderr.

    Returns:
        The bundle's folder, for `routelearn.load_verifier`.

    Raises:
        InputError: nothing to learn from, or a setting out of range.
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
    resume = config.resume and (checkpoints(out) / "run.json").is_file()
    with TrainingLog(folder, show_progress=progress and main, resume=resume) as log:
        path = _train(answers, out, config, prior, {model.name: model for model in pool}, log, main)
    wait_for_all()
    return path


def _train(
    answers: list[JudgedAnswer],
    out: Path,
    config: VerifierConfig,
    prior: Router | None,
    prices: Mapping[str, Model],
    log: TrainingLog,
    main: bool,
) -> Path:
    examples = answer_examples(answers)
    transformer, pooling, tokenizer_json = load_transformer(
        config.encoder, config.dropout, config.lora_rank, config.frozen_share
    )
    check_token_budget(transformer, config)
    pairs = PairEncoder.of(tokenizer_json, Truncation(max_tokens=config.max_tokens), config.query_tokens)
    ids = pairs.encode(examples.queries, [answer.answer for answer in answers])
    rows, folds = held_out(examples, answers, config)
    ranking = fit_ranking(examples, folds, log)
    network = Backbone(transformer, pooling, ranking.folds[0].bias, ranking.folds[0].offsets)
    # Keys over the answers as well: other answers to the same queries are other data.
    hashed = replace(examples, keys=_hashes(answers))
    fit_network(network, ids, hashed, folds, ranking, config, out, log, main)
    if not main:
        return out
    network.transformer = merged(network.transformer)

    names = (*config.features, *([PRIOR] if prior else []))
    held = [answers[row] for row in rows]
    features = _features(names, held, prior)
    utilities = predict(network, [ids[row] for row in rows])[0][:, 0].double().numpy()
    good = np.asarray([answer.good for answer in held])
    weight = np.asarray([answer.weight for answer in held])
    stack = fit_stack(utilities, features, good, weight)
    confidence = cross_fitted(utilities, features, good, weight, [answer.key for answer in held], config.seed)
    metrics = measured(confidence, good, [answer.model for answer in held])
    log.step(phase="done", **metrics)

    exported = VerifierNetwork(network, stack).eval()
    table = escalation_table(confidence)
    # Held-out answers alone where there are enough: of answers it was trained on the network is sure, and none flips.
    some = [*rows, *(np.flatnonzero(~folds[0]) if len(rows) < LEAST_GATE else [])][:GATE_QUERIES]
    compared = [ids[row] for row in some], _features(names, [answers[row] for row in some], prior)
    exact = _by_torch(exported, *compared)
    final: nn.Module = exported
    if config.quantise == "int8":
        few = [padded([row]) for row in ids[:CALIBRATION_QUERIES]]  # one by one: padding is no input of theirs
        some_features = torch.from_numpy(_features(names, answers[:CALIBRATION_QUERIES], prior)).split(1)
        pairs_and_features = list(zip(few, some_features, strict=True))
        final = quantised(exported, lambda network: [network(*one, row) for one, row in pairs_and_features])
    model = _export(final, names, config.query_tokens)
    session = Session(model, HuggingFaceBackend(tokenizer_json, False), config.max_tokens, threads=1)
    gate = check_verifier(
        session, exact, compared, [value for rate, value in table if 0 < rate < 1], config.quantise == "int8"
    )
    manifest = Manifest(
        kind=VERIFIER,
        pool=tuple(prices.get(name, Model(name)) for name in sorted({answer.model for answer in answers})),
        strong=config.strong or "",
        weak=config.weak or "",
        link="difference",
        truncation=pairs.truncation,
        calibration={"method": "stacking", **asdict(stack), "features": list(names)},
        threshold=float(np.interp(config.strong_share, [rate for rate, _ in table], [value for _, value in table])),
        threshold_table=tuple(table),
        novelty_bound=None,
        training={
            "config": asdict(config),
            "data_fingerprint": data_fingerprint(hashed),
            "records": len(answers),
            "queries": len(set(examples.keys)),
            "metrics": metrics,
            **gate,
        },
        golden=_golden(session, pairs, names),
        golden_tolerance=1e-4 if config.quantise == "none" else INT8_GOLDEN_TOLERANCE,
    )
    contents = {MODEL: model, TOKENIZER: tokenizer_json, CARD: verifier_card(manifest, out.name).encode()}
    path = save_bundle(out, manifest, contents)
    shutil.rmtree(checkpoints(out))
    return path


def held_out(
    examples: Examples, answers: Sequence[JudgedAnswer], config: VerifierConfig
) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.bool_]]]:
    """Which answers are not trained on.

    Returns:
        The rows that thresholds are picked from: of the first source, and of the weak model where one is named. And
        bool (n,), all rows of the same prompts: where one answer to a prompt is marked "val", none is trained on.

    Raises:
        InputError: too few of them are good, or too few are not, or they are of too few prompts.
    """
    fold = validation_folds(examples, config.folds, config.seed)[0]
    keys = {key for key, held in zip(examples.keys, fold, strict=True) if held}
    fold = np.asarray([key in keys for key in examples.keys])
    mine = [a.source == examples.sources[0] and config.weak in {None, a.model} for a in answers]
    rows = np.flatnonzero(fold & np.asarray(mine))
    good = sum(answers[int(row)].good for row in rows)
    prompts = len({answers[int(row)].key for row in rows})
    if min(good, len(rows) - good, prompts) < LEAST_HELD_OUT:
        raise InputError(
            f"of {len(rows)} held-out answers to {prompts} prompts {good} are good enough; thresholds need at least "
            f"{LEAST_HELD_OUT} of either kind and as many prompts: give more records, or hold out more (fewer folds)"
        )
    return rows, [fold]


def _features(names: Sequence[str], answers: Sequence[JudgedAnswer], prior: Router | None) -> Floats:
    priors = None
    if prior is not None:
        priors = prior.score([answer.query for answer in answers]).tolist()
    return feature_rows(names, [answer.answer for answer in answers], priors)


def _by_torch(network: nn.Module, ids: Sequence[npt.NDArray[np.int32]], features: Floats) -> Floats:
    """Confidence (n,), one pair at a time: what the graph must reproduce however it batches."""
    with torch.no_grad():
        rows = [network(*padded([row]), torch.from_numpy(f)[None])[0] for row, f in zip(ids, features, strict=True)]
    return torch.cat(rows).numpy()


def _export(network: nn.Module, names: Sequence[str], query_tokens: int) -> bytes:
    inputs = [torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64)]
    if names:
        inputs.append(torch.zeros(2, len(names)))
    hints = {
        "tokens_per_run": str(TOKENS_PER_RUN),
        "query_tokens": str(query_tokens),
        "features": ",".join(names),
    }
    return export_onnx(network, inputs, ["quality"], hints)


def _golden(session: Session, pairs: PairEncoder, names: Sequence[str]) -> list[Golden]:
    queries, answers = zip(*GOLDEN_PAIRS, strict=True)
    ids = pairs.encode(queries, answers)
    features = feature_rows(names, answers, [GOLDEN_PRIOR] * len(answers))
    found = confidence_by_session(session, ids, features)
    return [
        Golden({"query": query, "answer": answer}, row.tolist(), [float(value)])
        for query, answer, row, value in zip(queries, answers, ids, found, strict=True)
    ]


def _hashes(answers: Sequence[JudgedAnswer]) -> list[str]:
    return [
        hashlib.sha256(f"{answer.key}\n{answer.answer}".encode("utf-8", "surrogatepass")).hexdigest()
        for answer in answers
    ]
