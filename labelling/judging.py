"""Labels answers by judge models: first those that people labelled, then the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..data.records import Record
from ..data.writers import write_records
from ..routers.errors import InferenceError, InputError, require
from ..routers.query import prompt_key
from .agreement import Agreement, human_preferences, measure_agreement, oriented
from .answers import ModelAnswer
from .calls import Outcome, Progress
from .candidates import Candidate
from .estimate import Estimate, estimate_cost
from .journal import Journal, journal_of
from .judge_prompts import Method, rubric_text
from .pairwise import AnswerPair, OrderEffect, matchups, order_effect, pairs_of
from .question import Reply
from .scale import RatedAnswer
from .verdict_calls import Verdicts, ask_verdicts, judge_asks
from .verdicts import pair_verdict, scale_verdict

_JOB = "judge"
_READERS = {"pairs": pair_verdict, "scale": scale_verdict}


@dataclass(frozen=True, kw_only=True)
class JudgeReport:
    """How one judge did.

    Attributes:
        judge: name of the judge.
        verdicts: number of its verdicts.
        asked_again: number of prompts that it was asked a second time, because its reply ended with no verdict.
        malformed: those among them whose second reply ended with none either.
        refused: number of prompts that its service refused.
        order: how far the order of two answers decides; None: it rated single answers, or judged no pair.
    """

    judge: str
    verdicts: int
    asked_again: int
    malformed: int
    refused: int
    order: OrderEffect | None


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What `judge_answers` did.

    Attributes:
        records: the labels, in the order of the answers.
        outcome: how the calls ended.
        judges: how each judge did.
        without_judge: labels that needed no judge: no answer against one, or the same answer twice.
        unlabelled: pairs or answers that no judge gave a verdict on.
        unpaired: pairs of which one answer is missing.
        agreement: the judges compared with people; None: no labels of people were given.
        below: the agreement is below the least that was asked for; then the rest was not judged, and nothing written.
    """

    records: Sequence[Record]
    outcome: Outcome
    judges: Sequence[JudgeReport]
    without_judge: int = 0
    unlabelled: int = 0
    unpaired: int = 0
    agreement: Agreement | None = None
    below: bool = False


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """What judges are asked.

    Attributes:
        method: "pairs": which of two answers is better, in both orders; "scale": how good each answer is, from 1 to 10.
        models: for pairs, the models that are compared, as (model_a, model_b); None: the two that there are.
        rubric: what the judge is to look at; None: the rubric that comes with routelearn.
        with_reference: show the answer key to the judge where there is one.
    """

    method: Method = "pairs"
    models: Sequence[tuple[str, str]] | None = None
    rubric: str | None = None
    with_reference: bool = True


def judge_answers(
    answers: Sequence[ModelAnswer],
    judges: Sequence[Candidate],
    out: str | Path,
    settings: JudgeSettings | None = None,
    *,
    human: Sequence[Record] | None = None,
    least_agreement: float | None = None,
    max_usd: float | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    on_agreement: Callable[[Agreement], object] | None = None,
) -> Judging:
    """Ask judges about answers, and write the labels. A run that was stopped goes on, and pays nothing twice.

    Each verdict is on the disk, in ``<out>.journal``, as soon as it is there. Several judges count alike: a label is
    the mean of theirs. A judge is never told which model an answer comes from.

    Args:
        answers: the answers; see `read_answers`.
        judges: the judges; see `read_candidates`.
        out: the table of records to write: .parquet, .jsonl or .csv.
        settings: what they are asked; None: the defaults.
        human: labels of people on some of the same prompts and models. These pairs are judged first.
        least_agreement: judge the rest only if the agreement with people is at least this.
        max_usd: most USD to spend on this output, earlier runs included; None: no limit.
        on_progress: called after each call.
        on_agreement: called with the agreement, before the rest is judged.

    Returns:
        The labels: preference records for pairs, performance records for a scale.

    Raises:
        InputError: see `ask_all`; no label of people is about these answers; or the journal is another job's.
        InferenceError: a judge answers nothing.
        MissingExtraError: openai is not installed, or scipy, which the comparison with people needs.
    """
    job = _Job.of(answers, judges, settings or JudgeSettings())
    if least_agreement is not None and human is None:
        raise InputError("least_agreement is given, but no labels of people (human); expected both")
    people = None if human is None else _People.of(answers, human, job)
    agreement, below = None, False
    with Journal(journal_of(out), _JOB) as journal:
        verdicts = job.ask(job.items if people is None else people.items, journal, max_usd, on_progress)
        if people is not None:
            agreement = people.compare(job, verdicts)
            if agreement is not None and on_agreement is not None:
                on_agreement(agreement)
            below = agreement is not None and least_agreement is not None and agreement.agreement < least_agreement
            if not below and verdicts.outcome.stopped is None:
                verdicts = job.ask(job.items, journal, max_usd, on_progress)
    items = people.items if below and people is not None else job.items
    records = [record for item in items if (record := job.record(item, verdicts)) is not None]
    if records and not below:
        write_records(records, out)
    return Judging(
        records=records,
        outcome=verdicts.outcome,
        judges=[job.report(judge.name, items, verdicts) for judge in judges],
        without_judge=sum(item.known is not None for item in items),
        unlabelled=len(items) - len(records),
        unpaired=job.unpaired,
        agreement=agreement,
        below=below,
    )


def estimate_judging(
    answers: Sequence[ModelAnswer], judges: Sequence[Candidate], out: str | Path, settings: JudgeSettings | None = None
) -> list[Estimate]:
    """What `judge_answers` will cost beyond the verdicts that are in the journal of `out`; asks nothing.

    Questions that are asked again because a reply ended with no verdict are not counted.
    """
    job = _Job.of(answers, judges, settings or JudgeSettings())
    path = journal_of(out)
    entries = {}
    if path.exists():
        with Journal(path, _JOB) as journal:
            entries = journal.entries
    estimates = []
    for judge in judges:
        asks = judge_asks(job.prompts(job.items), [judge])
        answered = {row: Reply.from_entry(entries[ask.key]) for row, ask in enumerate(asks) if ask.key in entries}
        estimates.append(estimate_cost(judge, [ask.query for ask in asks], answered))
    return estimates


_Item = AnswerPair | RatedAnswer


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What is judged, by whom, and how."""

    items: Sequence[_Item]
    unpaired: int
    judges: Sequence[Candidate]
    settings: JudgeSettings
    rubric: str

    @classmethod
    def of(cls, answers: Sequence[ModelAnswer], judges: Sequence[Candidate], settings: JudgeSettings) -> _Job:
        if not answers or not judges:
            raise InputError(f"there are {len(answers)} answers and {len(judges)} judges; expected one or more of each")
        if settings.method not in _READERS:
            raise InputError(f"method is {settings.method!r}; expected one of {list(_READERS)}")
        rubric = rubric_text(settings.method) if settings.rubric is None else settings.rubric
        items: Sequence[_Item] = [RatedAnswer(answer) for answer in answers]
        unpaired = 0
        if settings.method == "pairs":
            items, unpaired = pairs_of(answers, settings.models or matchups(answers))
            if not items:
                raise InputError("no prompt has answers of both models; expected at least one")
        return cls(items=items, unpaired=unpaired, judges=judges, settings=settings, rubric=rubric)

    def prompts_of(self, item: _Item) -> list[str]:
        """What a judge reads about one item."""
        return item.prompts(self.rubric, with_reference=self.settings.with_reference)

    def prompts(self, items: Sequence[_Item]) -> list[str]:
        """What a judge reads about all items; both orders of a pair stand side by side."""
        return [prompt for item in items for prompt in self.prompts_of(item)]

    def ask(
        self,
        items: Sequence[_Item],
        journal: Journal,
        max_usd: float | None,
        on_progress: Callable[[Progress], object] | None,
    ) -> Verdicts:
        """The verdicts of all judges on some items."""
        read = _READERS[self.settings.method]
        prompts = self.prompts(items)
        return ask_verdicts(prompts, self.judges, journal, read, max_usd=max_usd, on_progress=on_progress)

    def verdicts_of(self, judge: str, item: _Item, verdicts: Verdicts) -> list[float] | None:
        """The verdicts of one judge on one item; None: it lacks one."""
        found = [verdicts.of.get((judge, prompt)) for prompt in self.prompts_of(item)]
        return None if not found or None in found else [value for value in found if value is not None]

    def values(self, item: _Item, verdicts: Verdicts) -> dict[str, float]:
        """The label of each judge that has one."""
        found = {judge.name: self.verdicts_of(judge.name, item, verdicts) for judge in self.judges}
        return {name: item.value(given) for name, given in found.items() if given is not None}

    def record(self, item: _Item, verdicts: Verdicts) -> Record | None:
        """The label of an item; None: no judge has one."""
        known = item.known
        values = {judge.name: known for judge in self.judges} if known is not None else self.values(item, verdicts)
        if not values:
            return None
        return item.record(float(np.mean(list(values.values()))), f"judge {' + '.join(values)}")

    def report(self, judge: str, items: Sequence[_Item], verdicts: Verdicts) -> JudgeReport:
        """How one judge did."""
        both: list[tuple[float, float]] = []
        prompts = []
        for item in items:
            found = self.verdicts_of(judge, item, verdicts) if isinstance(item, AnswerPair) else None
            if isinstance(item, AnswerPair) and found is not None:
                both.append((found[0], found[1]))
                prompts.append(item.a.prompt.id)
        return JudgeReport(
            judge=judge,
            verdicts=sum(name == judge for name, _ in verdicts.of),
            asked_again=verdicts.asked_again.get(judge, 0),
            malformed=verdicts.malformed.get(judge, 0),
            refused=verdicts.refused.get(judge, 0),
            order=order_effect(prompts, both),
        )


@dataclass(frozen=True, kw_only=True)
class _People:
    """The labels of people, and the items that they are about."""

    pairs: Sequence[AnswerPair]
    preferences: Sequence[float]
    items: Sequence[_Item] = field(default_factory=list)

    @classmethod
    def of(cls, answers: Sequence[ModelAnswer], human: Sequence[Record], job: _Job) -> _People:
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

    def compare(self, job: _Job, verdicts: Verdicts) -> Agreement | None:
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


def _judged_preference(pair: AnswerPair, job: _Job, verdicts: Verdicts) -> float | None:
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
