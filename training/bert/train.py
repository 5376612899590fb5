"""The BERT router: a transformer fine-tuned end to end, with one head for every model (RouteLLM, section 4.2).

Any Hugging Face encoder, or a decoder with last-token pooling (the LLM-based
router), by the same losses, calibration and gates as the other routers. RouteLLM
classifies which of two models wins; here every model has a utility of its own,
so that one router serves any pair and learns from scores as well as from battles.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers.trainer_utils import get_last_checkpoint

from ...data.records import Record
from ...routers.base import Floats, Model, win_rate
from ...routers.bundle import Manifest, Truncation
from ...routers.errors import InputError, require
from ...routers.session import Session
from ...routers.tokenizer import HuggingFaceBackend, encode
from ..config import RouterConfig, flag, number, one_of, text, whole
from ..encoders.finetune import (
    Precision,
    Settings,
    finetune,
    is_main_process,
    native_precision,
    padded,
    predict,
    wait_for_all,
)
from ..encoders.static import tokenize
from ..encoders.static_network import OUTPUTS, Outputs
from ..encoders.transformer import Backbone, load_transformer, merged
from ..examples import Examples, data_fingerprint
from ..export.gate import Gate, check_quantised, parity_gate, texts_of
from ..export.int8 import quantised
from ..export.to_onnx import export_onnx
from ..fit.drift_reference import Projection, projection_of
from ..fit.novelty import centroids_of, held_out_novelty
from ..fit.penalty_path import follow_path
from ..fit.ranking import Ranking, fit_ranking
from ..log import TrainingLog
from ..pipeline import Findings, Job, centred, finish, plan_training, settle, start_job, training_folder
from .kernel_machine import KernelHead, LandmarkKernel
from .vector_cache import cached_vectors

KIND = "bert"
#: Texts of the parity gate; a transformer takes some ten milliseconds for each.
PARITY_TEXTS = 300
#: Queries, beside the held-out ones, that the heads are first fitted to.
PROBE_QUERIES = 3000
#: Queries, beside the held-out ones, that novelty is learned from.
NOVELTY_QUERIES = 2000
#: Folds of a kernel machine: each is a path of its own.
KERNEL_FOLDS = 2
#: Queries that show the quantiser how large activations are.
CALIBRATION_QUERIES = 256
#: Queries, held-out ones first, that the quantised graph must route as the float network does.
GATE_QUERIES = 1000
#: One run of the graph: beyond this the activations leave the cache (measured on two cores).
TOKENS_PER_RUN = 768
#: What the checkpoints are of.
RUN = "run.json"
#: Settings that may differ when a run is resumed: training does not depend on them.
_EXPORT_SETTINGS = {"resume", "quantise", "strong_share", "link", "strong", "weak", "features"}
#: A quantised activation may round the other way on another processor.
INT8_GOLDEN_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class BertConfig(RouterConfig):
    """Settings of `train_bert`, beside those of `RouterConfig`; one of the folds validates.

    Attributes:
        last_share: share of the token budget that a query beyond it keeps of its end, where a long text asks what it
            asks; the rest is of its start.
        epochs: most passes over the queries; 0: the transformer stays as it is, and a kernel machine is fitted to its
            vectors, validated on `KERNEL_FOLDS` of the folds (`kernel_head.py`); settings of training steps
            then have no effect.
        landmarks: queries that the kernel machine compares with.
        vectors: an .npz file to keep the vectors in, and to take those from that are there; with epochs 0.
        kernel_scale: how fast it forgets with distance, 1 / (2 variance) of its Gaussian.
        batch_size: queries a step, over all processes.
        learning_rate: peak, of the transformer.
        head_learning_rate: peak, of the heads.
        weight_decay: of the weights.
        probe: fit the heads on the untouched transformer first, and fine-tune from there.
        dropout: of hidden states.
        layers: keep so many layers of the encoder, from the input on; None: all. Those in the middle tell how hard a
            query is better than the last ones, which were trained to tell what it is about.
        frozen_share: share of the layers, from the input on, that stay as they are: a fifth of the time saved.
        lora_rank: above 0, train low-rank updates only (extra `lora`).
        precision: "auto", "float32", "bfloat16" or "float16", of the training.
        quantise: "int8" exports 8-bit integers, "none" float32.
        evaluations: validations an epoch; the best one's weights are kept.
        patience: stop after this many validations without a lower log loss.
        resume: go on from the last checkpoint of an interrupted run with the same settings and data.
    """

    folds: int = 10
    max_tokens: int = 128
    last_share: Annotated[float, number(least=0, most=1)] = 0.6
    epochs: Annotated[int, whole(0)] = 1
    batch_size: Annotated[int, whole(1)] = 32
    learning_rate: Annotated[float, number(above=0, below=1)] = 6e-5
    head_learning_rate: Annotated[float, number(above=0, below=1)] = 1e-3
    weight_decay: Annotated[float, number(least=0)] = 0.01
    landmarks: Annotated[int, whole(8, 65_536)] = 2048
    kernel_scale: Annotated[float, number(above=0, most=100)] = 3.0
    vectors: Annotated[str | None, text().or_none()] = None
    probe: Annotated[bool, flag()] = True
    dropout: Annotated[float, number(least=0, below=1)] = 0.1
    layers: Annotated[int | None, whole(1).or_none()] = None
    frozen_share: Annotated[float, number(least=0, below=1)] = 1 / 3
    lora_rank: Annotated[int, whole(0)] = 0
    precision: Annotated[Precision, one_of("auto", "float32", "bfloat16", "float16")] = "auto"
    quantise: Annotated[Literal["none", "int8"], one_of("none", "int8")] = "none"
    evaluations: Annotated[int, whole(1)] = 3
    patience: Annotated[int, whole(1)] = 3
    resume: Annotated[bool, flag()] = False


class LinearHead(nn.Module):
    """Unit vectors (n, d) to utilities (n, m); not `nn.Linear`, which int8 would round."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Keep weight (d, m) and bias (m,)."""
        super().__init__()
        self.register_buffer("weight", weight.float().contiguous())
        self.register_buffer("bias", bias.float())

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return vectors @ self.weight + self.bias


class BertNetwork(nn.Module):
    """What is exported: ids and mask, int64 (n, length), to what `OUTPUTS` names."""

    centroids: torch.Tensor
    projection: torch.Tensor
    projection_offset: torch.Tensor

    def __init__(
        self, backbone: Backbone, head: nn.Module, centroids: npt.NDArray[np.float32], projection: Projection
    ) -> None:
        """Put a head for the exported models in the place of the backbone's own."""
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("centroids", torch.from_numpy(centroids))
        self.register_buffer("projection", projection[0])
        self.register_buffer("projection_offset", projection[1])

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Outputs:
        """Quality (n, m), novelty (n,) and vector (n, k)."""
        pooled = self.backbone.pooled(input_ids, attention_mask)
        quality, novelty = torch.sigmoid(self.head(pooled)), (1 - pooled @ self.centroids.T).amin(dim=1)
        return quality, novelty, pooled @ self.projection + self.projection_offset


def train_bert(
    records: Sequence[Record],
    out: str | Path,
    config: BertConfig | None = None,
    *,
    pool: Sequence[Model] = (),
    progress: bool = False,
) -> Path:
    """Fine-tune a transformer router and export it. Under ``torchrun`` every process calls this with the same records.

    Args:
        records: preference and performance records, mixed as they come; see `start_job` for their use.
        out: folder of the bundle; log, checkpoints and curve go to ``<out>.training/``.
        config: settings.
        pool: prices of models, by name.
        progress: show a progress bar on stderr.

    Returns:
        The bundle's folder, for `routelearn.load`; written by the first process alone, there when all return.

    Raises:
        InputError: nothing to learn from, a model that no record mentions, or a setting out of range.
        ExportError: the exported graph does not reproduce the network, or int8 routes otherwise.
        MissingExtraError: a library of the extra `train` or `lora` is missing.
    """
    require("accelerate", "train")
    config = config or BertConfig()
    if not config.epochs and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("epochs is 0: nothing is trained that processes could share; start one, without torchrun")
    main = is_main_process()
    resume = config.resume and (checkpoints(Path(out)) / RUN).is_file()
    plan = plan_training(
        records,
        out,
        config,
        pool,
        kind=KIND,
        truncation=Truncation(
            max_tokens=config.max_tokens,
            last_tokens=round(config.max_tokens * config.last_share),
            special_tokens=True,
        ),
        most_folds=1 if config.epochs else KERNEL_FOLDS,
    )
    job = start_job(plan, progress and main, None if main else "other-processes", resume)
    with job.log:
        path = _train(job, config, main)
    wait_for_all()
    return path


def _train(job: Job, config: BertConfig, main: bool) -> Path:
    examples, log = job.examples, job.log
    transformer, pooling, tokenizer_json = load_transformer(
        config.encoder, config.dropout, config.lora_rank, config.frozen_share, config.layers
    )
    check_token_budget(transformer, config)
    truncation, folds = job.truncation, job.folds
    flat, lengths = tokenize(examples.queries, HuggingFaceBackend(tokenizer_json, True), truncation)
    ids = np.split(flat, np.cumsum(lengths)[:-1])
    ranking = fit_ranking(examples, folds, log)
    network = Backbone(transformer, pooling, ranking.folds[0].bias, ranking.folds[0].offsets)
    if config.epochs:
        fit_network(network, ids, examples, folds, ranking, config, job.out, log, main)
    if not main:
        return job.out
    network.transformer = merged(network.transformer)
    fitted = (_finetuned if config.epochs else _frozen)(network, ids, folds, ranking, job, config)
    findings, rows = fitted.findings, fitted.rows
    vectors = fitted.vectors.numpy()
    held_out = (folds[0] & examples.primary_queries())[rows]
    projection = projection_of(fitted.vectors[torch.from_numpy(held_out)])
    exported = BertNetwork(network, fitted.head, centroids_of(vectors, config.seed), projection).eval()
    backend = HuggingFaceBackend(tokenizer_json, True)
    reference = _reference(exported, backend, truncation)
    gate = parity_gate(reference, examples.queries, truncation, PARITY_TEXTS)
    if config.quantise == "int8":
        gate = _int8_gate(reference, examples, folds[0], truncation, findings)
        few = [padded([row]) for row in ids[:CALIBRATION_QUERIES]]  # one by one: padding is no input of theirs
        exported = quantised(exported, lambda network: [network(*one) for one in few])
    # Two tensors: of one passed twice the exporter makes one input.
    inputs = [torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64)]
    path = finish(
        job,
        config,
        findings,
        model=export_onnx(exported, inputs, OUTPUTS, {"tokens_per_run": str(TOKENS_PER_RUN)}),
        tokenizer_json=tokenizer_json,
        gate=gate,
        novelties=held_out_novelty(vectors, folds[0][rows], config.seed),
        unfitted=folds[0],
        scores=fitted.scores,
        golden_tolerance=1e-4 if config.quantise == "none" else INT8_GOLDEN_TOLERANCE,
    )
    if config.epochs:
        shutil.rmtree(checkpoints(job.out))
    return path


@dataclass(frozen=True)
class Fitted:
    """What follows from training.

    Attributes:
        head: vectors (n, d) to calibrated utilities of the exported models.
        settled: what held-out queries say.
        rows: int64 (k,), queries whose vectors are known, those of the first fold among them.
        vectors: (k, d), theirs.
        scores: of held-out queries by what was fitted without them; None: the graph itself has not seen those.
    """

    head: nn.Module
    findings: Findings
    rows: npt.NDArray[np.int64]
    vectors: torch.Tensor
    scores: Floats | None


def _finetuned(
    network: Backbone,
    ids: list[npt.NDArray[np.int32]],
    folds: list[npt.NDArray[np.bool_]],
    ranking: Ranking,
    job: Job,
    config: BertConfig,
) -> Fitted:
    """The heads that were fine-tuned, calibrated on the fold."""
    rows = _some_rows(folds[0], NOVELTY_QUERIES, config.seed)
    found, vectors = predict(network, [ids[row] for row in rows], _precision(config))
    utilities = torch.zeros(len(ids), found.shape[1], dtype=torch.float64)
    utilities[torch.from_numpy(rows)] = found.double()
    findings = settle(job, config, utilities, folds[0], ranking.overall.bias, ranking.loss)
    job.log.curve("step", f"{KIND}: {findings.strong} over {findings.weak}", baseline=ranking.loss)
    kept, calibration = findings.columns, findings.calibration
    weight = calibration.slope * network.head.weight.detach().T[:, kept]
    bias = calibration.slope * network.head.bias.detach()[kept] + calibration.intercept
    head = LinearHead(centred(weight, job.examples), centred(bias, job.examples))
    return Fitted(head, findings, rows, vectors, None)


def _frozen(
    network: Backbone,
    ids: list[npt.NDArray[np.int32]],
    folds: list[npt.NDArray[np.bool_]],
    ranking: Ranking,
    job: Job,
    config: BertConfig,
) -> Fitted:
    """A kernel machine on the vectors of all queries, of the penalty that the folds choose."""
    examples, log = job.examples, job.log
    phase = log.phase("vectors", len(ids))
    precision, file = _precision(config), None if config.vectors is None else Path(config.vectors)

    def compute(some: Sequence[npt.NDArray[np.int32]]) -> torch.Tensor:
        return predict(network, some, precision, on_batch=lambda count: log.advance(phase, count))[1]

    vectors = cached_vectors(file, network.transformer, ids, compute)
    log.advance(phase, done=True)
    # A landmark that a fold holds out adds nothing to it: with every query a landmark, the solution lies in the span of
    # those that are fitted (the representer theorem).
    kernel = LandmarkKernel(vectors, config.landmarks, config.kernel_scale, config.seed)
    whitening = kernel.whitening()
    features = kernel(vectors).double() @ whitening
    middle = features.mean(dim=0)  # what all share is the bias, which is not penalised as a weight is
    path = follow_path(
        features - middle, examples, folds, ranking, log, rank=32, l2=None, steps=25, patience=3, seed=config.seed
    )
    final = path.fit_all()
    held_out = np.logical_or.reduce(folds)
    findings = settle(job, config, path.held_out, held_out, final.bias, ranking.loss)
    log.curve("l2", f"{KIND}: {findings.strong} over {findings.weak}", baseline=ranking.loss)
    kept, calibration = findings.columns, findings.calibration
    weight = calibration.slope * (whitening @ final.weight[:, kept])
    bias = calibration.slope * (final.bias - middle @ final.weight)[kept] + calibration.intercept
    head = KernelHead(kernel, centred(weight, examples), centred(bias, examples))
    return Fitted(head, findings, np.arange(len(ids)), vectors, findings.scores[examples.primary_queries()[held_out]])


def check_token_budget(transformer: nn.Module, config: BertConfig) -> None:
    """Refuse a budget that the transformer has no positions for.

    Raises:
        InputError: it exceeds them.
    """
    settings: Any = transformer.config
    limit = getattr(settings, "max_position_embeddings", config.max_tokens)
    if config.max_tokens > limit:
        raise InputError(f"max_tokens is {config.max_tokens}; {config.encoder} reads at most {limit}")


def fit_network(
    network: Backbone,
    ids: list[npt.NDArray[np.int32]],
    examples: Examples,
    folds: list[npt.NDArray[np.bool_]],
    ranking: Ranking,
    config: BertConfig,
    out: Path,
    log: TrainingLog,
    main: bool,
) -> None:
    """Probe the heads, then fine-tune everything, in place; checkpoints go below the bundle's training folder.

    Args:
        network: where to start.
        ids: token ids of the n queries.
        examples: their outcomes.
        folds: one validation fold, bool (n,).
        ranking: what was fitted without the queries.
        config: settings.
        out: folder of the bundle.
        log: gets a line a validation.
        main: this process writes.
    """
    folder = checkpoints(out)
    _prepare_checkpoints(folder, config, examples, main)
    if config.probe and not (config.resume and get_last_checkpoint(str(folder))):
        _probe(network, ids, examples, folds, ranking, config, log)
    settings = {name: getattr(config, name) for name in Settings.__dataclass_fields__}
    finetune(network, ids, examples, folds[0], Settings(**settings), folder, log)


def _probe(
    network: Backbone,
    ids: list[npt.NDArray[np.int32]],
    examples: Examples,
    folds: list[npt.NDArray[np.bool_]],
    ranking: Ranking,
    config: BertConfig,
    log: TrainingLog,
) -> None:
    """Start the heads at the best linear fit to some queries, so that fine-tuning need not distort features to find it.

    Linear probing, then fine-tuning (Kumar et al. 2022). The fit is the matrix factorization's.
    """
    rows = _some_rows(folds[0], PROBE_QUERIES, config.seed)
    features = torch.zeros(len(ids), network.head.in_features, dtype=torch.float64)
    features[torch.from_numpy(rows)] = predict(network, [ids[row] for row in rows], _precision(config))[1].double()
    kept = np.zeros(len(ids), np.bool_)
    kept[rows] = True
    some = replace(
        examples,
        preferences=examples.preferences.of_queries(kept),
        performances=examples.performances.of_queries(kept),
    )
    path = follow_path(features, some, folds, ranking, log, rank=32, l2=None, steps=25, patience=3, seed=config.seed)
    with torch.no_grad():
        network.head.weight.copy_(path.folds[0].weight.T)
        network.head.bias.copy_(path.folds[0].bias)


def _precision(config: BertConfig) -> Precision:
    """What hidden states are computed in where a thousandth does not matter."""
    return native_precision() if config.precision == "auto" else config.precision


def _some_rows(held_out: npt.NDArray[np.bool_], others: int, seed: int) -> npt.NDArray[np.int64]:
    """Rows of all held-out queries, and of at most so many others."""
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(~held_out))[:others]
    return np.concatenate([np.flatnonzero(held_out), drawn])


def checkpoints(out: Path) -> Path:
    """Where the checkpoints of a bundle in training are."""
    return training_folder(out) / "checkpoints"


def _prepare_checkpoints(folder: Path, config: BertConfig, examples: Examples, main: bool) -> None:
    """Keep the checkpoints of an interrupted run only to resume that very run.

    Raises:
        InputError: asked to resume a run with other settings or data.
    """
    marker = folder / RUN
    settings = {name: value for name, value in asdict(config).items() if name not in _EXPORT_SETTINGS}
    run = json.loads(json.dumps({**settings, "data": data_fingerprint(examples)}))
    if config.resume and marker.is_file():
        before = json.loads(marker.read_text())
        changed = sorted(name for name in run if run[name] != before.get(name))
        if changed:
            raise InputError(f"cannot resume the run in {folder}: {changed} differ; train without --resume")
        return
    if main:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        marker.write_text(json.dumps(run))


def _reference(
    network: BertNetwork, backend: HuggingFaceBackend, truncation: Truncation
) -> Callable[[list[str]], Floats]:
    """Texts to quality (n, m) by torch, one text at a time: what the graph must reproduce however it batches."""

    def quality(texts: list[str]) -> Floats:
        rows = []
        with torch.no_grad():
            for text in texts:
                ids = truncation.kept(encode(backend, [text])[0])
                rows.append(network(*padded([ids]))[0].numpy())
        return np.concatenate(rows)

    return quality


def _int8_gate(
    reference: Callable[[list[str]], Floats],
    examples: Examples,
    held_out: npt.NDArray[np.bool_],
    truncation: Truncation,
    findings: Findings,
) -> Gate:
    """A gate on the decisions for `GATE_QUERIES` queries: see `check_quantised`."""
    rows = np.concatenate([np.flatnonzero(held_out), np.flatnonzero(~held_out)])[:GATE_QUERIES]
    texts = texts_of([examples.queries[row] for row in rows], truncation)
    strong, weak = (findings.columns[column] for column in findings.manifest.columns)
    part = examples.performances
    answers = np.full((2, len(examples.queries)), np.nan)
    for line, column in enumerate((strong, weak)):
        found = part.model[:, 0] == column if len(part) else np.zeros(0, np.bool_)
        answers[line, part.query[found]] = part.target[found]

    def gate(session: Session, manifest: Manifest) -> dict[str, float]:
        a, b = manifest.columns
        exact, rounded = reference(texts), session.run(texts)[0]["quality"]
        scores = [win_rate(quality[:, a], quality[:, b], manifest.link) for quality in (exact, rounded)]
        thresholds = [value for share, value in manifest.threshold_table if 0 < share < 1]
        return check_quantised(scores[0], scores[1], thresholds, (answers[0, rows], answers[1, rows]))

    return gate
