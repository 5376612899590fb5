"""Compares a judge with people: agreement, Cohen's kappa and AUROC, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.records import PerformanceRecord, PreferenceRecord, Record, record_key
from ..monitoring.limits import wilson
from ..training.fit.metrics import auroc, bootstrap_interval

Interval = tuple[float, float]
#: A pair of answers: the normalised prompt, and the two models in alphabetical order.
PairKey = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far a judge agrees with people on the same pairs of answers.

    The 95 % intervals are percentile bootstrap intervals over prompts. A figure that cannot be computed is NaN.

    Attributes:
        pairs: number of pairs.
        agreement: share of the pairs in which both say the same: a, b or a tie.
        agreement_interval: its interval.
        decided: number of pairs in which neither says "a tie".
        agreement_decided: share of these in which both say the same.
        kappa: Cohen's kappa (1960) of the three outcomes: the agreement beyond chance.
        kappa_interval: its interval.
        auroc: how well the judge's preference tells where people prefer a from where they prefer b.
        auroc_interval: its interval.

    Example:
        >>> from routelearn.labelling import measure_agreement
        >>> measure_agreement([1.0, 0.0, 0.5, 1.0], [1.0, 0.0, 0.5, 0.0], ["p1", "p2", "p3", "p4"]).agreement
        0.75
    """

    pairs: int
    agreement: float
    agreement_interval: Interval
    decided: int
    agreement_decided: float
    kappa: float
    kappa_interval: Interval
    auroc: float
    auroc_interval: Interval


def measure_agreement(
    judge: Sequence[float], human: Sequence[float], prompts: Sequence[str] | None = None, *, seed: int = 0
) -> Agreement:
    """Compare preferences of a judge with those of people.

    Args:
        judge: n preferences for the first answer: above 0.5 it is better, 0.5 is a tie.
        human: n preferences of people on the same pairs.
        prompts: the prompt of each pair: pairs of one prompt are resampled together; None: each pair has its own.
        seed: seed of the bootstrap.

    Raises:
        MissingExtraError: scipy is not installed.

    Example:
        >>> from routelearn.labelling import measure_agreement
        >>> measure_agreement([1, 0, 1, 0.5], [1, 0, 0, 0.5]).agreement
        0.75
    """
    of_judge, of_human = np.asarray(judge, np.float64), np.asarray(human, np.float64)
    ours, theirs = np.sign(of_judge - 0.5), np.sign(of_human - 0.5)
    _, groups = np.unique(np.arange(len(ours)) if prompts is None else prompts, return_inverse=True)
    groups = groups.astype(np.int64)

    def same(rows: npt.NDArray[np.int64]) -> float:
        return float((ours[rows] == theirs[rows]).mean())

    def kappa(rows: npt.NDArray[np.int64]) -> float:
        return _kappa(ours[rows], theirs[rows])

    def area(rows: npt.NDArray[np.int64]) -> float:
        decided = rows[theirs[rows] != 0]
        return auroc(of_judge[decided], theirs[decided] > 0) if len(decided) else math.nan

    rows = np.arange(len(ours))
    decided = (ours != 0) & (theirs != 0)
    return Agreement(
        pairs=len(ours),
        agreement=same(rows),
        agreement_interval=_not_of_one_value(
            bootstrap_interval(same, groups, seed=seed), int((ours == theirs).sum()), len(ours)
        ),
        decided=int(decided.sum()),
        agreement_decided=same(rows[decided]) if decided.any() else math.nan,
        kappa=kappa(rows),
        kappa_interval=bootstrap_interval(kappa, groups, seed=seed),
        auroc=area(rows),
        auroc_interval=bootstrap_interval(area, groups, seed=seed),
    )


def _not_of_one_value(interval: tuple[float, float], count: int, total: int) -> tuple[float, float]:
    """A bootstrap interval of a share, or Wilson's where all resamples gave the same: that is no certainty."""
    return interval if interval[0] < interval[1] else wilson(count, total)


def _kappa(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> float:
    observed = float((ours == theirs).mean())
    expected = sum(float((ours == value).mean() * (theirs == value).mean()) for value in (-1, 0, 1))
    return math.nan if expected == 1 else (observed - expected) / (1 - expected)


def pair_key(prompt: str, model_a: str, model_b: str) -> tuple[PairKey, bool]:
    """The key of a pair, and whether its models stand there the other way round."""
    first, second = sorted((model_a, model_b))
    return (prompt, first, second), first != model_a


def human_preferences(records: Sequence[Record]) -> dict[PairKey, float]:
    """The mean preference of people for the first model of each key.

    Args:
        records: preferences, or scores of single answers: the higher one is preferred.
    """
    found: dict[PairKey, list[float]] = {}
    scores: dict[str, dict[str, list[float]]] = {}
    for record in records:
        prompt = record_key(record)
        if isinstance(record, PreferenceRecord):
            key, turned = pair_key(prompt, record.model_a, record.model_b)
            found.setdefault(key, []).append(1 - record.preference if turned else record.preference)
        elif isinstance(record, PerformanceRecord):
            scores.setdefault(prompt, {}).setdefault(record.model, []).append(record.score)
    for prompt, by_model in scores.items():
        means = {model: float(np.mean(values)) for model, values in sorted(by_model.items())}
        for first, mean in means.items():
            for second, other in means.items():
                if first < second:
                    found.setdefault((prompt, first, second), []).append(float(0.5 + np.sign(mean - other) / 2))
    return {key: float(np.mean(values)) for key, values in found.items()}


def oriented(preferences: Mapping[PairKey, float], prompt: str, model_a: str, model_b: str) -> float | None:
    """The preference for model_a over model_b; None: people did not compare them."""
    key, turned = pair_key(prompt, model_a, model_b)
    if key not in preferences:
        return None
    return 1 - preferences[key] if turned else preferences[key]
