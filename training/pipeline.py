"""What the recipes of routers share: the checks before training, and what follows from held-out utilities."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.records import Record, check_records
from ..policies.threshold import StrongShare
from ..routers.base import Link, sigmoid, win_rate
from ..routers.bundle import Manifest, Truncation, check_replaceable
from ..routers.decision import Floats, Model
from ..routers.errors import InputError
from ..routers.threshold_table import threshold_table
from .config import RouterConfig
from .encoders.general_part import GeneralPart
from .examples import Examples, enough_folds, examples_of, primary_outcomes, record_facts, validation_folds
from .export.publish import ExportedCompanion, Gate, publish
from .fit.calibration import Calibration, calibrate, calibrated_loss
from .fit.drift_reference import ReferenceSample, some_queries
from .fit.factorization import Array
from .fit.novelty import Vectors, novelty_bound
from .fit.ranking import check_held_out
from .general.prior import GeneralGuess
from .log import TrainingLog, check_training_folder, training_folder
from .summary import learned_little

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training run that was checked and has not begun.

    Attributes:
        kind: the kind of router.
        examples: what to learn from, n queries; records marked "test" are not in it.
        folds: bool (n,) each, the queries that each validation fold holds out.
        truncation: how much of a query is read.
        out: folder of the bundle.
        prices: models with prices, by name.
        records_read: number of records before any was left out.
    """

    kind: str
    examples: Examples
    folds: list[npt.NDArray[np.bool_]]
    truncation: Truncation
    out: Path
    prices: dict[str, Model]
    records_read: int


@dataclass(frozen=True, kw_only=True)
class Job(Plan):
    """A training run that has begun.

    Attributes:
        log: where metrics and progress go.
    """

    log: TrainingLog


def plan_training(
    records: Sequence[Record],
    out: str | Path,
    config: RouterConfig,
    pool: Sequence[Model],
    *,
    kind: str,
    truncation: Truncation,
    most_folds: int | None = None,
) -> Plan:
    """Check everything that can be checked before the expensive work; writes nothing.

    Records marked "test" are left out. The records' first source is the primary source, the one that the router is for:
    validation, calibration, thresholds and the exported pool use the primary source alone. Other sources help to learn,
    and may rank the models in their own way.

    Args:
        records: preference and performance records, mixed as they come.
        out: folder of the bundle.
        config: settings of the recipe.
        pool: models with prices.
        kind: the kind of router.
        truncation: how much of a query is read.
        most_folds: use at most so many of the validation folds.

    Raises:
        InputError: there is nothing to learn from or too little to hold out, no record mentions a model of the
            settings, or `out` cannot be written or holds something else.
    """
    out = Path(out)
    trainable = trainable_records(records, out)
    examples = examples_of(trainable, config.models)
    _check_pair(config, [examples.models[i] for i in examples.primary_models()])
    folds = enough_folds(examples, validation_folds(examples, config.folds, config.seed)[:most_folds])
    check_held_out(examples, folds)
    return Plan(
        kind=kind,
        examples=examples,
        folds=folds,
        truncation=truncation,
        out=out,
        prices={model.name: model for model in pool},
        records_read=len(records),
    )


def trainable_records(records: Sequence[Record], out: Path) -> list[Record]:
    """Check that a bundle can be written to `out`, and leave out the records marked "test".

    Raises:
        InputError: `out` cannot be written or holds something else, or all records are marked "test".
    """
    check_records(records)
    check_replaceable(out)
    check_training_folder(out)
    trainable = [record for record in records if record.split != "test"]
    if not trainable:
        raise InputError(
            f"no records to learn from: {len(records)} were given, and all are marked 'test'; expected others"
        )
    return trainable


def _check_pair(config: RouterConfig, names: Sequence[str]) -> None:
    for role, name in (("strong", config.strong), ("weak", config.weak)):
        if name is not None and name not in names:
            raise InputError(f"no record mentions {name!r}, the {role} model; expected one of {list(names)}")
    if len(names) < 2:
        raise InputError(f"the records of the primary source name only one model, {list(names)}; expected two or more")
    if len(names) > 2 and (config.strong is None or config.weak is None):
        raise InputError(
            f"strong is {config.strong!r} and weak is {config.weak!r}; name the strong and the weak model, "
            f"because the records name more than two: {list(names)}"
        )


def start_job(plan: Plan, progress: bool, log_folder: str | None = None, resume: bool = False) -> Job:
    """Open the log of a planned run.

    Args:
        plan: the run.
        progress: show the progress on stderr: a bar on a terminal, else a line every few seconds.
        log_folder: a folder below the training folder for the log of a process that only helps.
        resume: go on with the log that is there.
    """
    folder = training_folder(plan.out) / (log_folder or "")
    return Job(**vars(plan), log=TrainingLog(folder, show_progress=progress, resume=resume))


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What held-out utilities say of a fit.

    Attributes:
        columns: the exported models, as columns of all models of the examples.
        calibration: to be folded into the graph.
        scores: float32, scores of the held-out queries, in their order.
        manifest: the manifest of the bundle as far as it is known: `finish` fills in the rest.
        general: what a general router adds to the exported models; None: nothing.
    """

    columns: list[int]
    calibration: Calibration
    scores: Floats
    manifest: Manifest
    general: GeneralPart | None = None

    @property
    def strong(self) -> str:
        """The strong model."""
        return self.manifest.strong

    @property
    def weak(self) -> str:
        """The weak model."""
        return self.manifest.weak


def settle(
    job: Job,
    config: RouterConfig,
    utilities: Array,
    held_out: npt.NDArray[np.bool_],
    bias: Array,
    ranking_loss: float,
    general: GeneralGuess | None = None,
) -> Findings:
    """Calibrate, choose the pair and the thresholds, and measure, all on queries that the fit did not see.

    Args:
        job: the run.
        config: its settings.
        utilities: float64 (n, m); only the rows of held-out queries are read.
        held_out: bool (n,).
        bias: (m,), query-independent utilities, which rank the models.
        ranking_loss: held-out log loss (nats) of the global ranking.
        general: what a general router expects of the queries; None: it does not take part.
    """
    examples = job.examples
    outcomes = primary_outcomes(examples, held_out)
    calibration = calibrate(utilities, outcomes, config.seed)
    # Only models of the primary source are exported: nobody knows how the primary source would rank the others.
    columns = examples.primary_models()
    names = [examples.models[i] for i in columns]
    strong, weak = _pair(names, config, bias[columns])
    link: Link = config.link or examples.link()
    calibrated = calibration.slope * utilities[np.flatnonzero(held_out)[:, None], columns] + calibration.intercept
    quality = sigmoid(centred(calibrated, examples)).astype(np.float32)
    loss, part = calibrated_loss(utilities, outcomes, calibration), None
    if general is not None:
        part, quality, loss = general.blended(quality, np.flatnonzero(held_out), columns, outcomes)
    scores = win_rate(quality[:, names.index(strong)], quality[:, names.index(weak)], link)
    primary = examples.primary_queries()[held_out]
    table = threshold_table(scores[primary])
    weight = float(sum(part.weight.sum() for part in outcomes))
    metrics = {
        "held-out queries": int(primary.sum()),
        "held-out outcomes": int(weight) if weight.is_integer() else weight,
        "log loss": loss,
        "log loss of the global ranking": ranking_loss,
    }
    _warn_of_little_gain(metrics)
    job.log.step(phase="done", calibration=calibration.method, **metrics)
    manifest = Manifest(
        kind=job.kind,
        pool=tuple(job.prices.get(name, Model(name)) for name in names),
        strong=strong,
        weak=weak,
        link=link,
        truncation=job.truncation,
        calibration=asdict(calibration),
        threshold=StrongShare(config.strong_share).threshold_in(table),
        threshold_table=tuple(table),
        training={"metrics": metrics, **({} if general is None or part is None else general.facts(part, columns))},
    )
    return Findings(columns=columns, calibration=calibration, scores=scores, manifest=manifest, general=part)


def _warn_of_little_gain(metrics: dict[str, Any]) -> None:
    if learned_little(metrics):
        logger.warning(
            "the queries tell little of who wins: log loss %.4f, of the global ranking %.4f; "
            "expect this router to choose about as well as one model for all",
            metrics["log loss"],
            metrics["log loss of the global ranking"],
        )


def finish(
    job: Job,
    config: RouterConfig,
    findings: Findings,
    *,
    model: bytes,
    tokenizer_json: bytes,
    gate: Gate,
    novelties: Vectors,
    unfitted: npt.NDArray[np.bool_] | None = None,
    scores: Floats | None = None,
    golden_tolerance: float = 1e-4,
    l2: float | None = None,
    encoder_fingerprint: str | None = None,
    index: dict[str, Any] | None = None,
    records: bytes | None = None,
    companion: ExportedCompanion | None = None,
) -> Path:
    """Publish the exported graph with everything that is known of it; see `publish`.

    Args:
        job: the run.
        config: its settings.
        findings: what held-out utilities say.
        model: the exported graph.
        tokenizer_json: bytes of the tokenizer.
        gate: refuses a graph that is not what was trained.
        novelties: of the queries of the first fold, in their order.
        unfitted: bool (n,), the queries that the encoder was not fitted to; None: it was fitted to none.
        scores: scores of queries as if each were new, for the reference; None: the graph scores those `unfitted`.
        golden_tolerance: largest |difference| of a golden quality that still passes at load.
        l2: the penalty that validation chose.
        encoder_fingerprint: names the static encoder.
        index: what a similarity router needs to be extended.
        records: as in `publish`.
        companion: as in `publish`.
    """
    examples = job.examples
    primary, bound = examples.primary_queries(), novelty_bound(novelties)
    rows = primary if unfitted is None else primary & unfitted
    sample = ReferenceSample(
        queries=some_queries(examples.queries, rows, config.seed),
        scores=scores,
        novelties=novelties[primary[job.folds[0]]],
        novelty_bound=bound,
    )
    training = _training_facts(job, config, findings.manifest)
    training["config"] |= {} if l2 is None else {"l2": l2}
    training |= {} if encoder_fingerprint is None else {"encoder_fingerprint": encoder_fingerprint}
    training |= {} if index is None else {"index": index}
    return publish(
        job.out,
        replace(findings.manifest, novelty_bound=bound, golden_tolerance=golden_tolerance, training=training),
        model=model,
        tokenizer_json=tokenizer_json,
        gate=gate,
        reference=sample.reference,
        records=records,
        companion=companion,
    )


def _training_facts(job: Job, config: RouterConfig, manifest: Manifest) -> dict[str, Any]:
    """The manifest's account of the training: settings as they were used, counts, and metrics."""
    return {
        "config": {**asdict(config), "strong": manifest.strong, "weak": manifest.weak, "link": manifest.link},
        **record_facts(job.examples, job.records_read),
        **manifest.training,
    }


def centred(values: Array, examples: Examples) -> Array:
    """Utilities (..., m); where there are only preferences, minus their mean over the models.

    Preferences do not tell the level that the utilities of a query share. Quality then means the win rate over the
    pool's average.
    """
    if len(examples.performances):
        return values
    return np.asarray(values - values.mean(axis=-1, keepdims=True))


def _pair(names: Sequence[str], config: RouterConfig, bias: Array) -> tuple[str, str]:
    ranked = [names[int(i)] for i in np.argsort(-bias, kind="stable")]
    strong = config.strong or next(name for name in ranked if name != config.weak)
    return strong, config.weak or next(name for name in reversed(ranked) if name != strong)
