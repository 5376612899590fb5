"""From records with responses to judged answers: answers that are good enough or not, from which a verifier learns."""

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
        query: the query.
        answer: the model's answer.
        model: the model's name.
        good: whether the answer's score (of a preference: its win rate) is at least `good_at`.
        key: normalised prompt; all answers with one key go to the same side of a split.
        weight: weight of the record.
        split: "train", "val", "test" or None.
        source: source of the record; the first source is the primary one, which the verifier is for.
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
    """Take the answers of some models from records, and judge each answer by its score.

    With the default `good_at` a tie is good enough, even a tie between two bad answers. Use a higher `good_at` where
    that matters.

    Args:
        records: performance records (a response and its score) and preference records (two responses, a preference).
        models: the models whose answers count; None counts all.
        good_at: least score of an answer that is good enough. For preferences it is the least win rate over the other
            answer.

    Returns:
        The judged answers in the order of the records, two of a preference.

    Raises:
        InputError: no record has a response of these models, or one of them has no response.
    """
    judged: list[JudgedAnswer] = []
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
                judged.append(
                    JudgedAnswer(
                        query=record.query,
                        answer=response,
                        model=model,
                        good=score >= good_at,
                        key=key,
                        weight=record.weight,
                        split=record.split,
                        source=record.source,
                    )
                )
    if not judged:
        wanted = "" if models is None else f" of {list(models)}"
        raise InputError(
            f"none of {len(records)} records has a response{wanted}; a verifier learns from answers: "
            "expected a column response (or response_a and response_b)"
        )
    missing = sorted(set(models or ()) - {answer.model for answer in judged})
    if missing:
        raise InputError(
            f"no record has a response of {missing}; expected models among "
            f"{sorted({answer.model for answer in judged})}"
        )
    return judged


def answer_examples(answers: Sequence[JudgedAnswer]) -> Examples:
    """Turn answers into outcomes of one model named "good enough", so that the routers' losses and folds apply.

    Raises:
        InputError: all answers are good enough, or no answer is.
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
        queries=[answer.query for answer in answers],
        keys=[answer.key for answer in answers],
        splits=[answer.split for answer in answers],
        models=("good enough",),
        preferences=Outcomes(
            query=zeros[:0],
            model=np.zeros((0, 2), np.int64),
            target=np.zeros(0, np.float32),
            weight=np.zeros(0, np.float32),
            source=zeros[:0],
        ),
        performances=Outcomes(
            query=np.arange(count),
            model=zeros.reshape(-1, 1),
            target=good.astype(np.float32),
            weight=np.asarray([answer.weight for answer in answers], np.float32),
            source=numbers,
        ),
        sources=tuple(sources),
    )
