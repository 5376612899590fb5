"""A training run of a verifier: the checks before training, the answers that are held out, and the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...cascade.verifier import PRIOR, feature_rows
from ...data.records import Record
from ...routers.base import Router
from ...routers.decision import Floats, Model
from ...routers.errors import InputError
from ..encoders.transformer import TokenIds
from ..examples import Examples, validation_folds
from ..log import TrainingLog
from ..pipeline import trainable_records
from .config import VerifierConfig
from .judged_answers import JudgedAnswer, answer_examples, judged_answers
from .network import Pairs

#: Fewest held-out answers of either kind, and fewest prompts, that thresholds can be picked from.
LEAST_HELD_OUT = 10


@dataclass(frozen=True, kw_only=True)
class VerifierPlan:
    """A training run of a verifier that was checked and has not begun.

    Attributes:
        config: settings.
        answers: the n answers to learn from; answers of records marked "test" are not among them.
        examples: the same answers as the outcomes of one model.
        rows: int64 (k,), rows of the held-out answers that thresholds are picked from.
        folds: one fold, bool (n,): the answers that are not trained on.
        out: folder of the bundle.
        prior: the router whose score of the query is a feature, or None.
        prices: models with prices, by name.
    """

    config: VerifierConfig
    answers: Sequence[JudgedAnswer]
    examples: Examples
    rows: npt.NDArray[np.int64]
    folds: list[npt.NDArray[np.bool_]]
    out: Path
    prior: Router | None
    prices: Mapping[str, Model]

    @property
    def models(self) -> list[str]:
        """Names of the models whose answers are learned from."""
        return sorted({answer.model for answer in self.answers})


@dataclass(frozen=True, kw_only=True)
class VerifierJob(VerifierPlan):
    """A training run of a verifier that has begun.

    Attributes:
        log: where metrics and progress go.
    """

    log: TrainingLog

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features that the verifier reads beside the text."""
        config = self.config
        return (*config.features, *([PRIOR] if self.prior else []))

    def features(self, rows: Sequence[int]) -> Floats:
        """Features of the answers at these rows, float32 (r, k)."""
        answers = [self.answers[row] for row in rows]
        priors = None if self.prior is None else self.prior.score([answer.query for answer in answers]).tolist()
        return feature_rows(self.feature_names, [answer.answer for answer in answers], priors)

    def pairs(self, ids: Sequence[TokenIds], rows: Sequence[int]) -> Pairs:
        """The pairs at these rows, from the token ids of all n pairs."""
        return Pairs([ids[row] for row in rows], self.features(rows))


def plan_verifier(
    records: Sequence[Record],
    out: str | Path,
    config: VerifierConfig,
    *,
    prior: Router | None,
    pool: Sequence[Model],
) -> VerifierPlan:
    """Check everything that can be checked before the expensive work; writes nothing.

    Args:
        records: records with responses, in any order and mixture. Records marked "test" are left out.
        out: folder of the bundle.
        config: settings.
        prior: a router whose score of the query becomes a feature, or None.
        pool: models with prices.

    Raises:
        InputError: there is no response to learn from, too few answers to hold out, no response of a model of the
            settings, or `out` cannot be written or holds something else.
    """
    out = Path(out)
    trainable = trainable_records(records, out)
    answers = judged_answers(trainable, config.models, config.good_at)
    names = sorted({answer.model for answer in answers})
    if config.weak is not None and config.weak not in names:
        raise InputError(f"no record has a response of {config.weak!r}, the weak model; expected one of {names}")
    examples = answer_examples(answers)
    rows, folds = held_out(examples, answers, config)
    return VerifierPlan(
        config=config,
        answers=answers,
        examples=examples,
        rows=rows,
        folds=folds,
        out=out,
        prior=prior,
        prices={model.name: model for model in pool},
    )


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
            f"{len(rows)} answers to {prompts} prompts are held out, and {good} of them are good enough; thresholds "
            f"need at least {LEAST_HELD_OUT} of either kind and as many prompts: give more records, or hold out more, "
            "with fewer folds"
        )
    return rows, [fold]
