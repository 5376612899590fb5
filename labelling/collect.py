"""Asks every model of a pool for every prompt, and writes a table of the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..routers.errors import InputError
from .answers import ModelAnswer, write_answers
from .calls import Outcome, Progress, ask_all
from .candidates import Candidate
from .estimate import Estimate, estimate_cost, pilot_rows
from .journal import Journal, entries_of, journal_of
from .prompts import Prompt
from .question import Ask, Reply, key_of

_JOB = "collect"


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What `collect_answers` did.

    Attributes:
        answers: the answers that are there, prompt by prompt, each in the order of the models.
        outcome: how the calls ended.
        other_models: by candidate, the models that the service says answered in the place of the one that was asked.

    Example:
        >>> from routelearn.labelling import Collection, Outcome
        >>> outcome = Outcome(replies={}, missing=[], stopped=None, spent_usd=0.0, failed_calls=0, lost_calls=0)
        >>> Collection(answers=[], outcome=outcome, other_models={"small": ["smaller"]}).other_models
        {'small': ['smaller']}
    """

    answers: Sequence[ModelAnswer]
    outcome: Outcome
    other_models: dict[str, list[str]]


def collect_answers(
    prompts: Sequence[Prompt],
    candidates: Sequence[Candidate],
    out: str | Path,
    *,
    max_usd: float | None = None,
    pilot: int | None = None,
    seed: int = 0,
    on_progress: Callable[[Progress], object] | None = None,
) -> Collection:
    """Ask the models, and write the answers. A run that was stopped goes on where it ended, and pays nothing twice.

    Each answer is on the disk, in ``<out>.journal``, as soon as it is there. The table is written at the end, also
    where the budget ended the run.

    Args:
        prompts: what to ask; see `read_prompts`.
        candidates: the models; see `read_candidates`.
        out: the table to write: .parquet, .jsonl or .csv.
        max_usd: most USD to spend on this output, earlier runs included; None: no limit.
        pilot: ask only so many prompts, short and long ones, so that the price of the rest can be estimated; None: all.
        seed: of the choice of the pilot.
        on_progress: called after each answer.

    Raises:
        InputError: see `ask_all`; or the journal is another job's.
        InferenceError: a model answers nothing.
    """
    _check(prompts, candidates)
    chosen = [prompts[row] for row in pilot_rows([one.query for one in prompts], pilot, seed)] if pilot else prompts
    asks = _asks(chosen, candidates)
    with Journal(journal_of(out), _JOB) as journal:
        outcome = ask_all(asks, candidates, journal, max_usd=max_usd, on_progress=on_progress)
        answers = _answers(prompts, candidates, journal)
    if answers:
        write_answers(answers, out)
    return Collection(answers=answers, outcome=outcome, other_models=_other_models(answers, candidates))


def estimate_collect(prompts: Sequence[Prompt], candidates: Sequence[Candidate], out: str | Path) -> list[Estimate]:
    """What `collect_answers` will cost beyond the answers that are in the journal of `out`; asks nothing."""
    _check(prompts, candidates)
    entries = entries_of(out, _JOB)
    estimates = []
    for one in candidates:
        keys = [key_of(one, prompt.query) for prompt in prompts]
        answered = {row: Reply.from_entry(entries[key]) for row, key in enumerate(keys) if key in entries}
        estimates.append(estimate_cost(one, [prompt.query for prompt in prompts], answered))
    return estimates


def failed_models(answers: Sequence[ModelAnswer]) -> dict[str, str]:
    """The models of which no answer is any, and why: the service refused every question, or replied with no text."""
    found: dict[str, list[ModelAnswer]] = {}
    for answer in answers:
        found.setdefault(answer.model, []).append(answer)
    return {
        name: next((one.reply.error for one in of_model if one.reply and one.reply.error), None)
        or f"{len(of_model)} answers without a text"
        for name, of_model in found.items()
        if all(answer.status in {"failed", "empty", "refused"} for answer in of_model)
    }


def _check(prompts: Sequence[Prompt], candidates: Sequence[Candidate]) -> None:
    if not prompts or not candidates:
        raise InputError(f"there are {len(prompts)} prompts and {len(candidates)} models; expected one or more of each")


def _asks(prompts: Sequence[Prompt], candidates: Sequence[Candidate]) -> list[Ask]:
    return [Ask(key_of(one, prompt.query), one.name, prompt.query) for prompt in prompts for one in candidates]


def _answers(prompts: Sequence[Prompt], candidates: Sequence[Candidate], journal: Journal) -> list[ModelAnswer]:
    """Every answer of the journal to these prompts by these models."""
    found = []
    for prompt in prompts:
        for one in candidates:
            entry = journal.entries.get(key_of(one, prompt.query))
            if entry is not None:
                found.append(ModelAnswer.of(prompt, Reply.from_entry(entry)))
    return found


def _other_models(answers: Sequence[ModelAnswer], candidates: Sequence[Candidate]) -> dict[str, list[str]]:
    """Models that answered in the place of another; gpt-4o-2024-08-06, a dated version of gpt-4o, is no other."""
    asked = {one.name: one.served_as for one in candidates}
    found: dict[str, set[str]] = {}
    for answer in answers:
        served = None if answer.reply is None else answer.reply.served_model
        if served and not _same(served, asked[answer.model]):
            found.setdefault(answer.model, set()).add(served)
    return {name: sorted(others) for name, others in found.items()}


def _same(served: str, asked: str) -> bool:
    served, asked = (name.rsplit("/", maxsplit=1)[-1].casefold() for name in (served, asked))
    rest = served.removeprefix(asked)
    # What follows the name may be a date or a version, but no other model: "gpt-4o-mini" is not "gpt-4o".
    return served == asked or (rest != served and rest[:1] in "-@:" and rest[1:].replace("-", "").isdigit())
