"""`routelearn collect`: ask every model of a pool for every prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from rich.table import Table

from ..labelling.candidates import Candidate, read_candidates
from ..labelling.collect import Collection, collect_answers, estimate_collect, failed_models
from ..labelling.estimate import Estimate
from ..labelling.journal import journal_of
from ..labelling.prompts import read_prompts
from ..routers.errors import DataError, InferenceError
from .flags import Flag, Options, with_flags
from .job_progress import job_progress, outcome_lines
from .options import OUTPUT, POOL, QueryReading, table_console
from .outputs import check_job_output
from .reading import bad_rows, say
from .terminal import Console, on_interrupt

COST = "What it may cost"


@dataclass(frozen=True)
class CollectOptions(Options):
    """What to ask, and whom.

    Attributes:
        prompts: Files or hub ids of prompts. The columns task, split, weight, reference (the answer key) and grader are
            kept where there are any.
        out: The table of answers to write: .parquet, .jsonl or .csv. The answers that are paid for also stand in
            OUT.journal, from which the same command goes on.
        models: TOML file of the models; docs/labels.md describes it. Each has a name, and where they are needed
            base_url, api_key_env, input_price, output_price, requests_per_minute, tokens_per_minute and parameters.
        only: Ask only this model of the file. Can be repeated.
    """

    prompts: Annotated[list[str], Flag(is_argument=True)]
    out: Annotated[Path, Flag(short="-o", panel=OUTPUT)]
    models: Annotated[Path, Flag(panel=POOL)]
    only: Annotated[list[str] | None, Flag(metavar="NAME", panel=POOL)] = None


@dataclass(frozen=True)
class CostOptions(Options):
    """What a job of paid calls may cost.

    Attributes:
        dry_run: Print what the job will cost, and ask nothing.
        budget_usd: Stop before the first call that would bring the cost of this output above so many USD. The calls in
            flight are still paid.
    """

    HEADING: ClassVar[str] = COST

    dry_run: bool = False
    budget_usd: Annotated[float | None, Flag(least=0, metavar="USD")] = None


@dataclass(frozen=True)
class PilotOptions(Options):
    """A pilot.

    Attributes:
        pilot: Ask only so many prompts, short and long ones, and then print what the rest will cost. The answers count:
            the same command without this flag goes on from them.
        seed: Seed of the choice of the pilot.
    """

    HEADING: ClassVar[str] = COST

    pilot: Annotated[int | None, Flag(least=1)] = None
    seed: Annotated[int, Flag(least=0)] = 0


@with_flags
def collect_command(options: CollectOptions, cost: CostOptions, pilot: PilotOptions, reading: QueryReading) -> None:
    """Ask every model of a pool for every prompt, at any OpenAI-compatible service.

    Each answer is on the disk as soon as it is there: after a kill, the same command goes on and pays nothing twice.
    The journal knows each question by its prompt, model and parameters, so that a changed parameter asks anew.

    Example: routelearn collect prompts.jsonl --models models.toml --out answers.parquet --dry-run
    """
    console = Console(stderr=True)
    check_job_output(options.out, options.prompts, journal_of(options.out))
    columns = reading.column_names()
    with console.status("reading"):
        bad: list[DataError] = []
        on_bad = bad.append if reading.skip_bad else None
        prompts = read_prompts(options.prompts, columns, on_bad=on_bad, options=reading.source())
    say(console, bad_rows(bad))
    candidates = read_candidates(options.models, options.only or ())
    console.print(f"{len(prompts):,} prompts, {len(candidates)} models")
    if cost.dry_run:
        print_estimates(estimate_collect(prompts, candidates, options.out))
        return
    paid = f"each answer that came is in {journal_of(options.out)}; the same command goes on from there"
    with on_interrupt(paid), job_progress(console, "asking") as show:
        done = collect_answers(
            prompts,
            candidates,
            options.out,
            max_usd=cost.budget_usd,
            pilot=pilot.pilot,
            seed=pilot.seed,
            on_progress=show,
        )
    for line in _summary(done, options.out, candidates):
        console.print(line, soft_wrap=True)
    if pilot.pilot:
        print_estimates(estimate_collect(prompts, candidates, options.out))
    elif done.outcome.missing and done.outcome.stopped is None:
        raise InferenceError(
            f"{len(done.outcome.missing)} questions have no answer, because every try failed; the same command tries "
            f"them again. The last error: {done.outcome.last_error}"
        )
    failed = failed_models(done.answers)
    if failed:
        raise InferenceError("; ".join(f"{name} answered nothing: {error}" for name, error in failed.items()))


def print_estimates(estimates: Sequence[Estimate], pilot: str | None = "--pilot 100 asks 100 prompts") -> None:
    """The table of a dry run, on stdout.

    Args:
        estimates: one for each model.
        pilot: how the command measures the lengths of answers; None: it does so by itself.
    """
    table = Table(title="what is still to be asked", title_justify="left")
    columns = ("model", "questions", "tokens in", "tokens out", "USD", "95 % interval", "at most", "known from")
    for name in columns:
        table.add_column(name, justify="left" if name in {"model", "known from"} else "right")
    for one in estimates:
        table.add_row(
            one.candidate,
            f"{one.questions:,}",
            f"{one.input_tokens:,.0f}",
            f"{one.output_tokens:,.0f}",
            _usd(one.usd),
            "not measured" if one.interval is None else f"{one.interval[0]:.4f} to {one.interval[1]:.4f}",
            "no limit" if one.most_usd is None else _usd(one.most_usd),
            one.basis,
        )
    console = table_console()
    console.print(table)
    known = [one.usd for one in estimates if one.usd is not None]
    paid = sum(one.paid_usd for one in estimates)
    whole = (
        ""
        if len(known) == len(estimates)
        else f" for {len(known)} of {len(estimates)} models, the others have no price"
    )
    console.print(f"{sum(known):.4f} USD{whole}, beside {paid:.4f} USD that are paid", soft_wrap=True)
    if any(one.interval is None and one.questions for one in estimates):
        how = "It is measured before the rest is asked." if pilot is None else f"{pilot}, and measures it."
        console.print(f"The length of some answers is not measured. {how}", soft_wrap=True)


def _usd(value: float | None) -> str:
    return "no price" if value is None else f"{value:.4f}"


def _summary(done: Collection, out: Path, candidates: Sequence[Candidate]) -> list[str]:
    outcome = done.outcome
    lines = []
    if done.answers:
        lines.append(f"wrote {len(done.answers):,} answers to {out}; {outcome.spent_usd:.4f} USD in all")
    unpriced = [one.name for one in candidates if one.cost(1, 1) is None]
    if unpriced:
        lines.append(f"no price is known for {unpriced}: their answers count as 0 USD")
    statuses = Counter((answer.model, answer.status) for answer in done.answers if answer.status != "ok")
    lines += [f"{name}: {count:,} answers are {status!r}" for (name, status), count in sorted(statuses.items())]
    estimated = Counter(answer.model for answer in done.answers if answer.reply is not None and answer.reply.estimated)
    for name, count in sorted(estimated.items()):
        lines.append(f"{name}: the service reported no tokens for {count:,} answers; they are estimated")
    for name, others in done.other_models.items():
        lines.append(f"warning: {name} was asked, but {', '.join(others)} answered")
    return lines + outcome_lines(outcome)
