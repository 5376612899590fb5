"""Labels of people on some of the answers, which judges are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.records import Record
from ..routers.errors import InferenceError, InputError, require
from ..routers.query import prompt_key
from .agreement import Agreement, human_preferences, measure_agreement, oriented
from .answers import ModelAnswer
from .judge_job import Item, JudgeJob
from .pairwise import AnswerPair, pairs_of
from .scale import RatedAnswer
from .verdict_calls import Verdicts


@dataclass(frozen=True, kw_only=True)
class LabelsOfPeople:
    """The labels of people, and what a judge has to see to be compared with them.

    Attributes:
        pairs: n pairs of answers.
        preferences: n preferences of people for the first answer.
        items: the pairs, or for a scale their answers.
    """

    pairs: Sequence[AnswerPair]
    preferences: Sequence[float]
    items: Sequence[Item]

    @classmethod
    def of(cls, answers: Sequence[ModelAnswer], human: Sequence[Record], job: JudgeJob) -> LabelsOfPeople:
        """The labels that are about pairs of the job.

        Raises:
            InputError: none is.
            MissingExtraError: scipy is not installed.
        """
        require("scipy", "train")  # before a judge is paid
        known = human_preferences(human)
        if job.settings.method == "pairs":
            every = [item for item in job.items if isinstance(item, AnswerPair)]
        else:
            models = list(dict.fromkeys(answer.model for answer in answers))
            every, _ = pairs_of(answers, [(a, b) for row, a in enumerate(models) for b in models[row + 1 :]])
        pairs, preferences = [], []
        for pair in every:
            preference = oriented(known, prompt_key(pair.a.prompt.query), pair.a.model, pair.b.model)
            if preference is not None and pair.known is None:
                pairs.append(pair)
                preferences.append(preference)
        if not pairs:
            raise InputError(
                f"none of the {len(known):,} pairs that people labelled is about these prompts and models; expected "
                "labels of the same prompts and models"
            )
        if job.settings.method == "pairs":
            return cls(pairs=pairs, preferences=preferences, items=pairs)
        rated = {(answer.prompt.id, answer.model): answer for pair in pairs for answer in (pair.a, pair.b)}
        return cls(pairs=pairs, preferences=preferences, items=[RatedAnswer(answer) for answer in rated.values()])

    def compare(self, job: JudgeJob, verdicts: Verdicts) -> Agreement | None:
        """The agreement of the mean of the judges with people; None: the budget ended before the first verdict.

        Raises:
            InferenceError: the judges were asked, and gave no verdict.
        """
        judged, human, prompts = [], [], []
        for pair, preference in zip(self.pairs, self.preferences, strict=True):
            found = _judged_preference(pair, job, verdicts)
            if found is not None:
                judged.append(found)
                human.append(preference)
                prompts.append(pair.a.prompt.id)
        if not judged and verdicts.outcome.stopped is None:
            raise InferenceError(f"no judge gave a verdict on the {len(self.pairs):,} pairs that people labelled")
        return measure_agreement(judged, human, prompts) if judged else None


def _judged_preference(pair: AnswerPair, job: JudgeJob, verdicts: Verdicts) -> float | None:
    """The judges' preference for a; of ratings, from the difference of the two scores."""
    if job.settings.method == "pairs":
        values = job.values(pair, verdicts)
        return float(np.mean(list(values.values()))) if values else None
    scores = []
    for answer in (pair.a, pair.b):
        values = job.values(RatedAnswer(answer), verdicts)
        if not values:
            return None
        scores.append(float(np.mean(list(values.values()))))
    return 0.5 + (scores[0] - scores[1]) / 2
