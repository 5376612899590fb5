"""Labels answers by judge models: first those that people labelled, then the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.records import Record
from ..data.writers import write_records
from ..routers.errors import InputError
from .agreement import Agreement
from .answers import ModelAnswer
from .calls import Outcome, Progress
from .candidates import Candidate
from .estimate import Estimate, estimate_cost
from .journal import Journal, entries_of, journal_of
from .judge_job import Item, JudgeJob, JudgeReport, JudgeSettings
from .people import LabelsOfPeople
from .question import Reply
from .verdict_calls import Verdicts, judge_asks

_JOB = "judge"


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

    Example:
        >>> from routelearn.labelling import Judging, Outcome
        >>> outcome = Outcome(replies={}, missing=[], stopped=None, spent_usd=0.0, failed_calls=0, lost_calls=0)
        >>> Judging(records=[], outcome=outcome, judges=[], unlabelled=2).below
        False
    """

    records: Sequence[Record]
    outcome: Outcome
    judges: Sequence[JudgeReport]
    without_judge: int = 0
    unlabelled: int = 0
    unpaired: int = 0
    agreement: Agreement | None = None
    below: bool = False


def judge_answers(
    answers: Sequence[ModelAnswer],
    judges: Sequence[Candidate],
    out: str | Path,
    settings: JudgeSettings | None = None,
    *,
    human: Sequence[Record] | None = None,
    least_agreement: float | None = None,
    pilot: int | None = None,
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
        pilot: judge only so many pairs or answers, short and long ones, so that the price of the rest can be estimated;
            None: all.
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
    if least_agreement is not None and human is None:
        raise InputError("least_agreement is given, but no labels of people (human); expected both")
    if pilot is not None and human is not None:
        raise InputError("pilot and labels of people (human) are given; expected one of them: both judge a part first")
    job = JudgeJob.of(answers, judges, settings or JudgeSettings())
    job = job if pilot is None else job.part(pilot)
    people = None if human is None else LabelsOfPeople.of(answers, human, job)
    agreement, below = None, False
    with Journal(journal_of(out), _JOB) as journal:
        verdicts = job.ask(job.items if people is None else people.items, journal, max_usd, on_progress)
        if people is not None:
            agreement = people.compare(job, verdicts)
            if agreement and on_agreement:
                on_agreement(agreement)
            below = agreement is not None and least_agreement is not None and agreement.agreement < least_agreement
            if not below and verdicts.outcome.stopped is None:
                verdicts = job.ask(job.items, journal, max_usd, on_progress)
    done = _judging(job, people.items if below and people is not None else job.items, verdicts, agreement, below=below)
    if done.records and not below:
        write_records(done.records, out)
    return done


def _judging(
    job: JudgeJob, items: Sequence[Item], verdicts: Verdicts, agreement: Agreement | None, *, below: bool
) -> Judging:
    records = [record for item in items if (record := job.record(item, verdicts)) is not None]
    return Judging(
        records=records,
        outcome=verdicts.outcome,
        judges=[job.report(judge.name, items, verdicts) for judge in job.judges],
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
    job = JudgeJob.of(answers, judges, settings or JudgeSettings())
    entries = entries_of(out, _JOB)
    estimates = []
    for judge in judges:
        asks = judge_asks(job.prompts(job.items), [judge])
        answered = {row: Reply.from_entry(entries[ask.key]) for row, ask in enumerate(asks) if ask.key in entries}
        estimates.append(estimate_cost(judge, [ask.query for ask in asks], answered))
    return estimates
