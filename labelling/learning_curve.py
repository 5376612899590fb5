"""What more labels would buy: how a router improves with the labels that are there, drawn on to four times as many."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.records import PreferenceRecord, Record, record_key
from ..evaluation.thresholds.guarantee import LEAST_SAVED, check_bound, labels_needed, lowest_cost_threshold
from ..evaluation.thresholds.losses import Losses, losses_of
from ..evaluation.thresholds.p_values import betting
from ..routers.errors import InputError
from ..routers.loading import load
from ..routers.query import prompt_key
from ..training.adaptation import LEAST_LABELS, adapt
from ..training.fit.metrics import Array, log_loss, percentile_interval, resamples, routing_curve, weighted_mean
from ..training.matrix_factorization.config import MatrixFactorizationConfig
from .curve_fit import EXPONENTS, extrapolated

#: Fewest labelled prompts that a curve is drawn from.
LEAST_FOR_CURVE = 60
#: How many times the labels of today the curve is drawn on to; the gain is told from the first.
AHEAD = (1, 2, 4)
_FOLDS = 5
#: A curve has at most so many sizes, each half of the next.
_MOST_SIZES = 4
#: Subsamples of each size below the whole.
_REPEATS = 2

#: A metric of a router: from its scores (n,) of all prompts and row numbers to a number.
Metric = Callable[[Array, npt.NDArray[np.int64]], float]


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """A router that is trained on so many labels.

    Attributes:
        labels: number of labelled prompts that it is trained on.
        log_loss: log loss (nats) of its win rate on other prompts.
        log_loss_interval: a 95 % interval of the log loss.
        apgr: APGR on other prompts; 0.5 is random.
        apgr_interval: a 95 % interval of the APGR.
        measured: whether it was trained; otherwise the curve is drawn on to it.
        gain: APGR less that with all labels of today; None where it was trained.
        gain_interval: a 95 % interval of the gain; None where it was trained.

    Example:
        >>> from routelearn.labelling import CurvePoint
        >>> intervals = {"log_loss_interval": (0.57, 0.66), "apgr_interval": (0.51, 0.66)}
        >>> CurvePoint(labels=80, log_loss=0.61, apgr=0.59, measured=True, **intervals).gain is None
        True
    """

    labels: int
    log_loss: float
    log_loss_interval: tuple[float, float]
    apgr: float
    apgr_interval: tuple[float, float]
    measured: bool
    gain: float | None = None
    gain_interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """How a router improves with the number of labels.

    Attributes:
        strong: the strong model.
        weak: the weak model.
        points: by rising number of labels; the last ones are not measured.
        losses: what is lost where weak answers, for each of the n labelled prompts.
        scores: (n,) the score of each of these prompts, by a router that was not trained on it.

    Example:
        >>> import numpy as np
        >>> from routelearn.evaluation import losses_of
        >>> from routelearn.labelling import LearningCurve, labels_for_guarantee
        >>> scores = {"sim-max": 1.0, "sim-small": 0.75}
        >>> labels = [
        ...     routelearn.PerformanceRecord(f"{n} + 2?", model, score)
        ...     for n in range(99)
        ...     for model, score in scores.items()
        ... ]
        >>> losses = losses_of(labels, *scores)
        >>> curve = LearningCurve(strong="sim-max", weak="sim-small", points=[], losses=losses, scores=np.full(99, 0.5))
        >>> labels_for_guarantee(curve, max_quality_loss=0.3).share  # all may go to weak
        1.0
    """

    strong: str
    weak: str
    points: Sequence[CurvePoint]
    losses: Losses
    scores: Array


@dataclass(frozen=True, kw_only=True)
class LabelsForGuarantee:
    """How many labels a bound on the loss needs.

    Attributes:
        labels: number of labels that are there.
        share: share of the queries that the bound would keep from strong with these labels; 0: none.
        needed: number of labels that would do nine times out of ten; None: more than anyone would collect.

    Example:
        >>> from routelearn.labelling import LabelsForGuarantee
        >>> found = LabelsForGuarantee(labels=100, share=0.0, needed=400)
        >>> found.needed - found.labels
        300
    """

    labels: int
    share: float
    needed: int | None


def measure_curve(
    labels: Sequence[Record],
    strong: str,
    weak: str,
    *,
    router: str | Path = "general",
    bootstrap: int = 300,
    seed: int = 0,
    on_step: Callable[[int, int], object] = lambda done, total: None,
) -> LearningCurve:
    """Train routers on parts of the labels, measure each on labels that it did not see, and draw the curve on.

    The general router is adapted to subsamples of the labels (`adapt`). The log loss and the APGR of prompts that were
    held out are fitted by ``limit + b · n ** -c``. The intervals come from resampled prompts, several exponents, and
    how much two routers of one size differ.

    Args:
        labels: records of 60 prompts or more, with scores of both models or preferences between them.
        strong: the strong model.
        weak: the weak model.
        router: the general router that is adapted.
        bootstrap: number of resamples.
        seed: of the folds, the subsamples and the resamples.
        on_step: called before each training with the number of those that are done, and with the number of all.

    Raises:
        InputError: there are too few labelled prompts, or they do not compare the two models.
    """
    losses = losses_of(labels, strong, weak)
    if len(losses) < LEAST_FOR_CURVE:
        raise InputError(f"{len(losses)} prompts have a label; expected {LEAST_FOR_CURVE} or more for a curve")
    position = {prompt_key(query): row for row, query in enumerate(losses.queries)}
    by_row: list[list[Record]] = [[] for _ in losses.queries]
    for record in labels:
        row = position.get(record_key(record))
        if row is not None and {strong, weak}.issuperset(record.models):
            by_row[row].append(replace(record, split=None))
    config = MatrixFactorizationConfig(strong=strong, weak=weak, seed=seed)
    with tempfile.TemporaryDirectory() as folder, _no_warnings():

        def score(trained: npt.NDArray[np.int64]) -> Array:
            records = [record for row in trained.tolist() for record in by_row[row]]
            path = adapt(router, records, Path(folder) / "router", config)
            return np.asarray(load(path).score(losses.queries), np.float64)

        sizes, scores, centred = _held_out_scores(len(losses), seed, score, on_step)
    points = _points(sizes, scores, centred, losses, bootstrap, seed)
    return LearningCurve(strong=strong, weak=weak, points=points, losses=losses, scores=scores[-1][0])


def pair_of_labels(labels: Sequence[Record]) -> tuple[str, str]:
    """The better and the worse of two models, by their mean score or win rate.

    Raises:
        InputError: the labels name more or fewer than two models.
    """
    outcomes: dict[str, list[float]] = {}
    for record in labels:
        if isinstance(record, PreferenceRecord):
            outcomes.setdefault(record.model_a, []).append(record.preference)
            outcomes.setdefault(record.model_b, []).append(1 - record.preference)
        else:
            outcomes.setdefault(record.model, []).append(record.score)
    if len(outcomes) != 2:
        raise InputError(
            f"the labels name the models {sorted(outcomes)}; expected two, or the strong and the weak one of them"
        )
    strong, weak = sorted(outcomes, key=lambda name: -float(np.mean(outcomes[name])))
    return strong, weak


@contextmanager
def _no_warnings() -> Iterator[None]:
    """That a router of few labels has learned little is what the curve shows: no training need say it."""
    logger = logging.getLogger("routelearn.training.pipeline")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def labels_for_guarantee(
    curve: LearningCurve, max_quality_loss: float = 0.02, confidence: float = 0.95
) -> LabelsForGuarantee:
    """How many labels `calibrate` would need to bound the loss, by the scores and gaps of a curve.

    Args:
        curve: the curve; its scores are those of routers that did not see the prompt.
        max_quality_loss: the largest expected loss against always-strong.
        confidence: of the bound.

    Raises:
        InputError: an argument is out of range.
    """
    losses, delta = curve.losses, 1 - confidence
    check_bound(losses, max_quality_loss, confidence)
    gaps, alpha = losses.weighted_gap / losses.largest_weighted, max_quality_loss / losses.largest_weighted
    threshold = lowest_cost_threshold(curve.scores, gaps, alpha, delta, betting)
    share = float(weighted_mean(curve.scores < threshold, losses.weight))
    if share >= LEAST_SAVED:
        return LabelsForGuarantee(labels=len(losses), share=share, needed=len(losses))
    needed = labels_needed(curve.scores, gaps, alpha, delta, "betting")
    return LabelsForGuarantee(
        labels=len(losses), share=0.0, needed=None if needed is None else max(needed, len(losses))
    )


def _held_out_scores(
    count: int,
    seed: int,
    score: Callable[[npt.NDArray[np.int64]], Array],
    on_step: Callable[[int, int], object],
) -> tuple[list[int], list[Array], list[Array]]:
    """Sizes, rising, and for each the scores (r, n) of every prompt by routers of that size which did not see it.

    The scores stand a second time, each less the mean score of its router. A router that was trained without the
    prompts that need strong scores all prompts lower: ranked over the folds, this would count against it.

    Args:
        count: number n of prompts.
        seed: of the folds.
        score: from the rows to train on to the scores (n,) of all prompts.
        on_step: shows progress.
    """
    order = np.random.default_rng(seed).permutation(count)
    folds = np.array_split(order, _FOLDS)
    whole = count - max(map(len, folds))
    sizes = [whole >> step for step in range(_MOST_SIZES) if whole >> step >= LEAST_LABELS + 2][::-1]
    repeats = [1 if size == whole else _REPEATS for size in sizes]
    scores, centred = ([np.zeros((number, count)) for number in repeats] for _ in range(2))
    done, total = 0, _FOLDS * sum(repeats)
    for fold in folds:
        rest = order[~np.isin(order, fold)]
        for size, raw, level in zip(sizes, scores, centred, strict=True):
            for repeat in range(len(raw)):
                on_step(done, total)
                found = score(rest[repeat * size :][:size])  # subsamples of one size share no prompt
                raw[repeat, fold], level[repeat, fold] = found[fold], found[fold] - found.mean()
                done += 1
    on_step(done, total)
    return sizes, scores, centred


def _points(
    sizes: list[int], scores: list[Array], centred: list[Array], losses: Losses, bootstrap: int, seed: int
) -> list[CurvePoint]:
    """The measured points, and those that the curve is drawn on to."""
    target = 0.5 + losses.gap / losses.largest / 2
    weight = losses.weight

    def mean_log_loss(one: Array, rows: npt.NDArray[np.int64]) -> float:
        return float(weighted_mean(log_loss(one[rows], target[rows]), None if weight is None else weight[rows]))

    def apgr_of(one: Array, rows: npt.NDArray[np.int64]) -> float:
        of_rows, gap = None if weight is None else weight[rows], losses.gap[rows]
        return routing_curve(one[rows], gap, np.zeros(len(gap)), of_rows).apgr

    ahead = [len(losses) * times for times in AHEAD]
    drawn = list(resamples(np.arange(len(losses)), bootstrap, seed))
    loss, drawn_loss = _with_future(sizes, scores, mean_log_loss, drawn, ahead, falls=True)
    apgr, drawn_apgr = _with_future(sizes, centred, apgr_of, drawn, ahead, falls=False)
    today = len(sizes)
    points = []
    for i, labels in enumerate([*sizes, *ahead]):
        drawn_on = i >= today
        points.append(
            CurvePoint(
                labels=labels,
                log_loss=loss[i],
                log_loss_interval=percentile_interval(drawn_loss[:, i]),
                apgr=apgr[i],
                apgr_interval=percentile_interval(drawn_apgr[:, i]),
                measured=not drawn_on,
                gain=apgr[i] - apgr[today] if drawn_on else None,
                gain_interval=percentile_interval(drawn_apgr[:, i] - drawn_apgr[:, today]) if drawn_on else None,
            )
        )
    return points


def _with_future(
    sizes: list[int],
    scores: list[Array],
    metric: Metric,
    drawn: Sequence[npt.NDArray[np.int64]],
    ahead: list[int],
    *,
    falls: bool,
) -> tuple[list[float], npt.NDArray[np.float64]]:
    """The metric at each size and where its curve goes: (k,), and on each resample (b, k)."""
    every = np.arange(scores[0].shape[1])
    by_repeat = [[metric(one, every) for one in of_size] for of_size in scores]
    # How much the metric differs from one choice of labels to the next, at the sizes that were trained twice.
    squares = [np.var(values, ddof=1) for values in by_repeat if len(values) > 1]
    chance = [float(np.sqrt(np.mean(squares) / len(values))) if squares else 0.0 for values in by_repeat]
    random = np.random.default_rng(0)

    def through(values: Sequence[float], exponents: Sequence[float]) -> list[float]:
        return [*values, *extrapolated(sizes, values, ahead, falls=falls, exponents=exponents)]

    resampled = []
    for number, rows in enumerate(drawn):
        values = [float(np.mean([metric(one, rows) for one in of_size])) for of_size in scores]
        noisy = (np.array(values) + np.array(chance) * random.standard_normal(len(values))).tolist()
        # Few sizes tell little of the exponent: over the resamples each one counts alike.
        resampled.append(through(noisy, (EXPONENTS[number % len(EXPONENTS)],)))
    return through([float(np.mean(values)) for values in by_repeat], EXPONENTS), np.array(resampled)
