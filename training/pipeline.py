"""What every trainer shares: settings, the records it may use, and what follows from held-out utilities."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..data.records import Record
from ..policies.threshold import StrongShare
from ..routers.base import Floats, Link, Model, win_rate
from ..routers.bundle import Truncation, check_replaceable
from ..routers.errors import InputError
from ..routers.session import Session
from ..routers.threshold_table import threshold_table
from .config import RouterConfig
from .examples import Examples, data_fingerprint, examples_of
from .export.publish import Description, publish
from .fit.calibration import Calibration, calibrate
from .fit.drift_reference import Known, some_queries
from .fit.factorization import Batch
from .fit.novelty import Vectors, novelty_bound
from .fit.ranking import mean_loss, own_outcomes
from .log import TrainingLog

logger = logging.getLogger(__name__)

#: Nats over all held-out records: a gain below this over the global ranking is within chance.
LEAST_GAIN = 4.0


@dataclass(frozen=True)
class Job:
    """One training run.

    Attributes:
        examples: what to learn from; records marked "test" are not in it.
        out: folder of the bundle.
        prices: models with prices, by name.
        records_read: records before any was left out.
        log: where metrics and progress go.
    """

    examples: Examples
    out: Path
    prices: dict[str, Model]
    records_read: int
    log: TrainingLog

    @property
    def outcomes(self) -> list[Batch]:
        """Preferences and performances as tensors, those that there are."""
        return [Batch.of(part) for part in (self.examples.preferences, self.examples.performances) if len(part)]


def training_folder(out: Path) -> Path:
    """Where the log, the curve and the checkpoints of a bundle go."""
    return out.with_name(out.name + ".training")


def start_job(
    records: Sequence[Record],
    out: str | Path,
    config: RouterConfig,
    pool: Sequence[Model],
    progress: bool,
    log_folder: str | None = None,
    resume: bool = False,
) -> Job:
    """Check everything that can be checked before the expensive work.

    Records marked "test" are left out. The records' first source is the one that the
    router is for: validation, calibration, thresholds and the exported pool use it
    alone; other sources help to learn, and rank the models in their own way.

    Args:
        records: mixed as they come.
        out: folder of the bundle; the log goes to ``<out>.training/``.
        config: settings.
        pool: prices of models, by name.
        progress: show a progress bar on stderr.
        log_folder: a folder below that for the log, of processes that only help.
        resume: go on with the log that is there.

    Raises:
        InputError: nothing to learn from, a model that no record mentions, or a path that holds something else.
    """
    out = Path(out)
    check_replaceable(out)
    trainable = [record for record in records if record.split != "test"]
    if not trainable:
        raise InputError(f"no records to learn from ({len(records)} are marked 'test')")
    examples = examples_of(trainable, config.models)
    names = [examples.models[i] for i in examples.own_models()]
    for name in (config.strong, config.weak):
        if name is not None and name not in names:
            raise InputError(f"no record mentions {name!r}; the records know {list(names)}")
    if len(names) > 2 and (config.strong is None or config.weak is None):
        raise InputError(f"name the strong and the weak model; the records know {list(names)}")
    log = TrainingLog(training_folder(out) / (log_folder or ""), show_progress=progress, resume=resume)
    return Job(examples, out, {model.name: model for model in pool}, len(records), log)


@dataclass(frozen=True)
class Settled:
    """What held-out utilities say of a fit.

    Attributes:
        columns: the exported models, as columns of all models of the examples.
        names: their names.
        strong: the strong model.
        weak: the weak model.
        link: how a score follows from two qualities.
        calibration: to be folded into the graph.
        threshold: the default threshold.
        threshold_table: (strong share, threshold) pairs.
        scores: of the held-out queries, in their order.
        metrics: of the held-out queries.
    """

    columns: list[int]
    names: list[str]
    strong: str
    weak: str
    link: Link
    calibration: Calibration
    threshold: float
    threshold_table: list[tuple[float, float]]
    scores: Floats
    metrics: dict[str, Any] = field(default_factory=dict)


def settle(
    job: Job,
    config: RouterConfig,
    utilities: torch.Tensor,
    held_out: npt.NDArray[np.bool_],
    bias: torch.Tensor,
    ranking_loss: float,
) -> Settled:
    """Calibrate, choose the pair and the thresholds, and measure, all on queries that the fit did not see.

    Args:
        job: the run.
        config: its settings.
        utilities: float64 (n, m); only the rows of held-out queries are read.
        held_out: bool (n,).
        bias: (m,), query-independent utilities, which rank the models.
        ranking_loss: held-out log loss of the global ranking.
    """
    examples = job.examples
    own = own_outcomes(examples, held_out)
    calibration = calibrate(utilities, own, config.seed)
    # Only models of the first source are exported: of the others nobody knows how it would rank them.
    kept = examples.own_models()
    names = [examples.models[i] for i in kept]
    strong, weak = _pair(names, config, bias[kept])
    link: Link = config.link or examples.link()
    calibrated = calibration.slope * utilities + calibration.intercept
    quality = torch.sigmoid(centred(calibrated[torch.from_numpy(held_out)][:, kept], examples)).float().numpy()
    scores = win_rate(quality[:, names.index(strong)], quality[:, names.index(weak)], link)
    table = threshold_table(scores)
    loss = mean_loss(own, calibrated)
    metrics = {
        "held-out queries": int(held_out.sum()),
        "log loss": loss,
        "log loss of the global ranking": ranking_loss,
    }
    if (ranking_loss - loss) * sum(float(batch.weight.sum()) for batch in own) < LEAST_GAIN:
        logger.warning(
            "the queries tell little of who wins: log loss %.4f, of the global ranking %.4f; "
            "expect this router to choose about as well as one model for all",
            loss,
            ranking_loss,
        )
    job.log.step(phase="done", calibration=calibration.method, **metrics)
    threshold = StrongShare(config.strong_share).threshold_in(table)
    return Settled(kept, names, strong, weak, link, calibration, threshold, table, scores, metrics)


def finish(
    job: Job,
    config: RouterConfig,
    settled: Settled,
    *,
    kind: str,
    model: bytes,
    tokenizer_json: bytes,
    truncation: Truncation,
    gate: Callable[[Session, Description], Mapping[str, Any]],
    fold: npt.NDArray[np.bool_],
    novelties: Vectors,
    unfitted: npt.NDArray[np.bool_] | None = None,
    scores: Floats | None = None,
    golden_tolerance: float = 1e-4,
    **training: Any,
) -> Path:
    """Publish the exported graph with everything that is known of it; see `publish`.

    Args:
        job: the run.
        config: its settings.
        settled: what held-out utilities say.
        kind: of router.
        model: the exported graph.
        tokenizer_json: bytes of the tokenizer.
        truncation: how much of a query is read.
        gate: see `publish`.
        fold: bool (n,), the queries whose novelty was measured.
        novelties: theirs, in order.
        unfitted: bool (n,), the queries that the encoder was not fitted to; None: it was fitted to none.
        scores: of queries as if each were new, for the reference; None: what the graph says of those `unfitted`.
        golden_tolerance: see `Description`.
        training: more to keep of the training.
    """
    examples = job.examples
    own, bound = examples.own_queries(), novelty_bound(novelties)
    rows = own if unfitted is None else own & unfitted
    known = Known(some_queries(examples.queries, rows, config.seed), scores, novelties[own[fold]], bound)
    records = len(examples.preferences) + len(examples.performances)
    return publish(
        job.out,
        Description(
            kind=kind,
            pool=[job.prices.get(name, Model(name)) for name in settled.names],
            strong=settled.strong,
            weak=settled.weak,
            link=settled.link,
            truncation=truncation,
            calibration=asdict(settled.calibration),
            threshold=settled.threshold,
            threshold_table=settled.threshold_table,
            novelty_bound=bound,
            golden_tolerance=golden_tolerance,
            training={
                "config": {**asdict(config), "strong": settled.strong, "weak": settled.weak, "link": settled.link},
                "data_fingerprint": data_fingerprint(examples),
                "records": records,
                "preference_records": len(examples.preferences),
                "performance_records": len(examples.performances),
                "records_left_out": job.records_read - records,
                "queries": len(examples.queries),
                "sources": [str(source) for source in examples.sources],
                "metrics": settled.metrics,
                **training,
            },
        ),
        model=model,
        tokenizer_json=tokenizer_json,
        gate=gate,
        reference=known.reference,
    )


def centred(values: torch.Tensor, examples: Examples) -> torch.Tensor:
    """Utilities (..., m), less their mean over the models where there are only preferences.

    Preferences say nothing of a query's common utility: quality then means the win rate over the pool's average.
    """
    if len(examples.performances):
        return values
    return values - values.mean(dim=-1, keepdim=True)


def _pair(names: Sequence[str], config: RouterConfig, bias: torch.Tensor) -> tuple[str, str]:
    ranked = [names[int(i)] for i in torch.argsort(bias, descending=True)]
    strong = config.strong or next(name for name in ranked if name != config.weak)
    return strong, config.weak or next(name for name in reversed(ranked) if name != strong)
