"""Records with responses, as answers that are good enough or not: what a verifier learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...data.records import PreferenceRecord, Record, record_key
from ...routers.errors import InputError
from ...routers.query import Query
from ..examples import Examples, Outcomes


@dataclass(frozen=True)
class JudgedAnswer:
    """One answer, and whether it is good enough.

    Attributes:
        query: what was asked.
        answer: the model's answer.
        model: its name.
        good: its score (of a preference: its win rate) is at least `good_at`.
        key: normalised prompt; answers of one key never straddle a split.
        weight: of the record.
        split: "train", "val", "test" or None.
        source: of the record; the first is the one that the verifier is for.
    """

    query: Query
    answer: str
    model: str
    good: bool
    key: str
    weight: float
    split: str | None
    source: str | None = None


def judged_answers(records: Sequence[Record], models: Sequence[str] | None, good_at: float) -> list[JudgedAnswer]:
    """The answers of some models that records hold, with their verdict.

    Args:
        records: performance records (a response and its score) and preference records (two responses, a preference).
        models: whose answers count; None for all.
        good_at: least score of an answer that is good enough; of preferences, the least win rate over the other.

    A tie is good enough by default, and so is one between two bad answers: use a higher `good_at` where that matters.

    Raises:
        InputError: no record has a response of these models, or of one of them.
    """
    found: list[JudgedAnswer] = []
    for record in records:
        if isinstance(record, PreferenceRecord):
            sides = [
                (record.model_a, record.response_a, record.preference),
                (record.model_b, record.response_b, 1 - record.preference),
            ]
        else:
            sides = [(record.model, record.response, record.score)]
        for model, response, score in sides:
            if response is not None and (models is None or model in models):
                key = record_key(record)
                good = score >= good_at
                found.append(
                    JudgedAnswer(record.query, response, model, good, key, record.weight, record.split, record.source)
                )
    if not found:
        wanted = "" if models is None else f" of {list(models)}"
        raise InputError(
            f"none of {len(records)} records has a response{wanted}; a verifier learns from answers: "
            "expected a column response (or response_a and response_b)"
        )
    missing = sorted(set(models or ()) - {answer.model for answer in found})
    if missing:
        raise InputError(f"no record has a response of {missing}; there are {sorted({a.model for a in found})}")
    return found


def answer_examples(answers: Sequence[JudgedAnswer]) -> Examples:
    """Answers as the outcomes of one model named "good enough", so that the routers' losses and folds apply.

    Raises:
        InputError: all answers are good, or none is.
    """
    good = np.asarray([answer.good for answer in answers])
    if good.all() or not good.any():
        raise InputError(
            f"{'all' if good.all() else 'none'} of {len(good)} answers are good enough; a verifier needs both"
        )
    count = len(answers)
    zeros = np.zeros(count, np.int64)
    sources: dict[str | None, int] = {}
    numbers = np.asarray([sources.setdefault(answer.source, len(sources)) for answer in answers], np.int64)
    return Examples(
        [answer.query for answer in answers],
        [answer.key for answer in answers],
        [answer.split for answer in answers],
        ("good enough",),
        Outcomes(zeros[:0], np.zeros((0, 2), np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32), zeros[:0]),
        Outcomes(
            np.arange(count),
            zeros.reshape(-1, 1),
            good.astype(np.float32),
            np.asarray([answer.weight for answer in answers], np.float32),
            numbers,
        ),
        tuple(sources),
    )
