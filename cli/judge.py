"""`routelearn judge`: label answers, by an answer key or by judge models."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from ..data.readers import read_all
from ..data.records import Record
from ..data.writers import write_records
from ..labelling.answers import ModelAnswer, read_answers
from ..labelling.candidates import Candidate, read_candidates
from ..labelling.graders import Grader, function_of, grade_answers, grader_of
from ..labelling.journal import journal_of
from ..labelling.judge_job import JudgeSettings
from ..labelling.judge_prompts import Method, rubric_text
from ..labelling.judging import estimate_judging, judge_answers
from ..labelling.pairwise import matchups
from ..routers.errors import DataError, InferenceError, InputError
from .collect import COST, CostOptions, print_estimates
from .flags import Flag, Options, with_flags
from .job_progress import job_progress
from .judge_lines import agreement_lines, judging_lines
from .options import OUTPUT, QueryReading
from .outputs import check_job_output
from .reading import bad_rows, say
from .terminal import Console, on_interrupt

_JUDGES, _PAIRS, _PEOPLE = "Judge models", "Pairs", "Labels of people"


@dataclass(frozen=True)
class JudgeOptions(Options):
    """What to label, and how.

    Attributes:
        answers: Tables of answers, as collect writes them: with the columns prompt, model and response, and where there
            are any task, split, weight, reference (the answer key) and grader.
        out: The table of records to write: .parquet, .jsonl or .csv. The verdicts that are paid for also stand in
            OUT.journal, from which the same command goes on.
        grader: Compare each answer with the answer key: exact, multiple-choice, number, json, regex, regex:PATTERN,
            json-schema, json-schema:SCHEMA, or a Python function of an answer, as module:function. Without this flag
            and without judges, the column grader tells; a column names no functions.
    """

    answers: Annotated[list[str] | None, Flag(is_argument=True)] = None
    out: Annotated[Path | None, Flag(short="-o", panel=OUTPUT)] = None
    grader: Annotated[str | None, Flag(panel="Answer keys", metavar="NAME")] = None


@dataclass(frozen=True)
class JudgeModels(Options):
    """Who judges, and by what.

    Attributes:
        judges: TOML file of judge models, as the file of models of collect. Each of them judges everything, and a label
            is the mean of theirs.
        models: TOML file of models, of which --judge names the judges.
        judge: A judge among --models. Can be repeated.
        scale: Rate each answer on a scale from 1 to 10, instead of comparing pairs.
        rubric: Text file that says what the judges look at. By default the text that --print-rubric prints.
        print_rubric: Print the default rubric (with --scale that of the scale), and do nothing else.
        no_reference: Do not show the answer key to the judges.
        pilot: Judge only so many pairs or answers, short and long ones, and then print what the rest will cost. The
            verdicts count: the same command without this flag goes on from them.
    """

    HEADING: ClassVar[str] = _JUDGES

    judges: Annotated[Path | None, Flag(metavar="FILE")] = None
    models: Annotated[Path | None, Flag(metavar="FILE")] = None
    judge: Annotated[list[str] | None, Flag(metavar="NAME")] = None
    scale: bool = False
    rubric: Annotated[Path | None, Flag(metavar="FILE")] = None
    print_rubric: bool = False
    no_reference: bool = False
    pilot: Annotated[int | None, Flag(least=1, panel=COST)] = None

    @property
    def method(self) -> Method:
        """Pairs or the scale."""
        return "scale" if self.scale else "pairs"

    def read(self) -> list[Candidate]:
        """The judges; none where no file was given.

        Raises:
            InputError: the flags contradict each other, or the file is not as `read_candidates` describes it.
        """
        if self.judges is not None and (self.models or self.judge):
            raise InputError("--judges was given with --models or --judge; expected --judges, or --models with --judge")
        if (self.models is None) != (not self.judge):
            raise InputError("expected --models FILE with --judge NAME, or --judges FILE, all models of which judge")
        if self.judges is not None:
            return read_candidates(self.judges)
        return read_candidates(self.models, self.judge or ()) if self.models is not None else []


@dataclass(frozen=True)
class PairOptions(Options):
    """Which models are compared.

    Attributes:
        strong: Compare the answers of this model with those of --weak. By default the two models that there are.
        weak: See --strong.
        against: Compare every other model with this one.
    """

    HEADING: ClassVar[str] = _PAIRS

    strong: Annotated[str | None, Flag(metavar="NAME")] = None
    weak: Annotated[str | None, Flag(metavar="NAME")] = None
    against: Annotated[str | None, Flag(metavar="NAME")] = None

    def models(self, answers: Sequence[ModelAnswer]) -> list[tuple[str, str]]:
        """The pairs of models."""
        return matchups(answers, self.strong, self.weak, self.against)


@dataclass(frozen=True)
class PeopleOptions(Options):
    """Labels of people, which the judges are compared with.

    Attributes:
        human: Records of some of the same prompts and models that people labelled, such as label writes. The judges
            judge these first, and the agreement is printed before the rest is paid for. Can be repeated.
        least_agreement: Judge the rest only if the share of these pairs in which judges and people say the same is at
            least this. Otherwise the command ends with the exit code 3 and writes no records.
    """

    HEADING: ClassVar[str] = _PEOPLE

    human: Annotated[list[str] | None, Flag(metavar="FILE")] = None
    least_agreement: Annotated[float | None, Flag(least=0, most=1)] = None


@with_flags
def judge_command(
    options: JudgeOptions,
    by: JudgeModels,
    pairs: PairOptions,
    people: PeopleOptions,
    cost: CostOptions,
    reading: QueryReading,
) -> None:
    """Label answers: by their answer keys, or by judge models that compare two answers or rate one.

    Judges see each pair in both orders; where the orders disagree it is a tie. They are not told which model wrote an
    answer. A reply that ends with no verdict is asked for once more, then counted and left out.

    Examples: routelearn judge answers.parquet --grader number -o records.parquet;
    routelearn judge answers.parquet --judges judges.toml --human labels.jsonl -o records.parquet --dry-run
    """
    if by.print_rubric:
        sys.stdout.write(rubric_text(by.method) + "\n")
        return
    if not options.answers or options.out is None:
        raise InputError("expected a table of answers, and --out for the records")
    console = Console(stderr=True)
    judges = by.read()
    check_job_output(options.out, options.answers, journal_of(options.out) if judges else None)
    _check(options, by, pairs, people, judges)
    grader = _grader(options.grader)
    with console.status("reading"):
        bad: list[DataError] = []
        on_bad = bad.append if reading.skip_bad else None
        answers = read_answers(options.answers, reading.column_names(), on_bad=on_bad, options=reading.source())
    say(console, bad_rows(bad))
    if not judges:
        _grade(console, answers, grader, options.out, dry_run=cost.dry_run)
        return
    settings = JudgeSettings(
        method=by.method,
        models=None if by.scale else pairs.models(answers),
        rubric=rubric_text(by.method, by.rubric),
        with_reference=not by.no_reference,
    )
    say(console, _own_answers(judges, answers))
    if cost.dry_run:
        print_estimates(estimate_judging(answers, judges, options.out, settings), "--pilot 100 judges 100 of them")
        return
    human = read_all(people.human) if people.human else None
    _judge(
        console,
        answers,
        judges,
        settings,
        options.out,
        human=human,
        least_agreement=people.least_agreement,
        pilot=by.pilot,
        max_usd=cost.budget_usd,
    )
    if by.pilot:
        print_estimates(estimate_judging(answers, judges, options.out, settings), "--pilot 100 judges 100 of them")


def _own_answers(judges: Sequence[Candidate], answers: Sequence[ModelAnswer]) -> list[str]:
    """Warnings of judges whose own answers are among those that they judge."""
    models = {answer.model for answer in answers}
    own = [judge.name for judge in judges if {judge.name, judge.served_as} & models]
    return [f"warning: {name} judges its own answers, which judges tend to prefer" for name in own]


def _check(
    options: JudgeOptions, by: JudgeModels, pairs: PairOptions, people: PeopleOptions, judges: Sequence[Candidate]
) -> None:
    """Refuse flags that would do nothing."""
    if judges and options.grader:
        raise InputError("--grader was given with judges; expected one of them")
    of_pairs = {"--strong": pairs.strong, "--weak": pairs.weak, "--against": pairs.against}
    given = [flag for flag, value in of_pairs.items() if value]
    if by.scale and given:
        raise InputError(f"{', '.join(given)} was given with --scale, which rates every answer; expected one of them")
    if by.pilot and people.human:
        raise InputError("--pilot was given with --human; expected one of them: both judge a part first")
    if people.least_agreement is not None and not people.human:
        raise InputError("--least-agreement was given without --human; expected labels of people")
    of_judges: dict[str, object] = {
        "--scale": by.scale,
        "--rubric": by.rubric,
        "--no-reference": by.no_reference,
        "--pilot": by.pilot,
        "--human": people.human,
    }
    given += [flag for flag, value in of_judges.items() if value]
    if not judges and given:
        raise InputError(f"{', '.join(given)} was given without judges; expected --judges, or --models with --judge")


def _grader(spec: str | None) -> str | Grader | None:
    """The grader that the command line names; a function may be in the current folder."""
    name, colon, _ = (spec or "").partition(":")
    if spec is None or not colon or name in {"regex", "json-schema"}:
        if spec is not None:
            grader_of(spec)  # before anything is read
        return spec
    sys.path.insert(0, str(Path.cwd()))
    try:
        return function_of(spec)
    finally:
        sys.path.pop(0)


def _grade(
    console: Console, answers: Sequence[ModelAnswer], grader: str | Grader | None, out: Path, *, dry_run: bool
) -> None:
    if grader is None and not any(answer.prompt.grader for answer in answers):
        raise InputError(
            "nothing says how to label the answers; expected --grader, a column grader, --judges, or --models with "
            "--judge"
        )
    if dry_run:
        console.print(f"{len(answers):,} answers are graded by their keys, which costs nothing")
        return
    done = grade_answers(answers, grader)
    write_records(done.records, out)
    means: dict[str, list[float]] = {}
    for record in done.records:
        means.setdefault(record.model, []).append(record.score)
    lines = [f"wrote {len(done.records):,} records to {out}"]
    lines += [f"{name}: mean score {sum(scores) / len(scores):.4f}" for name, scores in means.items()]
    for (name, status), count in sorted(done.unusual.items()):
        graded = "graded as they are" if status == "cut" else "worth 0"
        lines.append(f"{name}: {count:,} answers are {status!r}, {graded}")
    say(console, lines)


def _judge(
    console: Console,
    answers: Sequence[ModelAnswer],
    judges: Sequence[Candidate],
    settings: JudgeSettings,
    out: Path,
    *,
    human: Sequence[Record] | None,
    least_agreement: float | None,
    pilot: int | None,
    max_usd: float | None,
) -> None:
    paid = f"each verdict that came is in {journal_of(out)}; the same command goes on from there"
    with on_interrupt(paid), job_progress(console, "judging") as show:
        done = judge_answers(
            answers,
            judges,
            out,
            settings,
            human=human,
            least_agreement=least_agreement,
            pilot=pilot,
            max_usd=max_usd,
            on_progress=show,
            on_agreement=lambda found: say(console, agreement_lines(found)),
        )
    say(console, judging_lines(done, judges, settings, out))
    if done.below:
        console.print(
            f"stopped: the judges agree with people in less than {least_agreement:g} of the pairs; nothing was "
            f"written, and the verdicts are in {journal_of(out)}",
            soft_wrap=True,
        )
        raise typer.Exit(3)
    if done.outcome.missing and done.outcome.stopped is None:
        raise InferenceError(
            f"{len(done.outcome.missing)} questions have no reply, because every try failed; the same command tries "
            f"them again. The last error: {done.outcome.last_error}"
        )
    if not done.records and done.outcome.stopped is None:
        raise InferenceError(
            f"no reply of {', '.join(one.name for one in judges)} ended with a verdict; nothing was written"
        )
