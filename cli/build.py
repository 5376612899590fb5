"""`routelearn build`: from a file of prompts to a router with a proof."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ..labelling.build import LEAST_PROMPTS, build_router, work_folder
from ..labelling.build_settings import BuildSettings
from ..labelling.candidates import read_candidates
from ..labelling.collect import estimate_collect
from ..labelling.prompts import read_prompts
from ..routers.bundle import MANIFEST
from ..routers.errors import InputError
from ..training.libraries import require_training
from .collect import COST, print_estimates
from .flags import Flag, Options, with_flags
from .job_progress import job_progress
from .options import OUTPUT, POOL, QueryReading
from .outputs import Overwrite
from .terminal import Console, on_interrupt

_LABELS, _PROOF = "Labels", "Proof"


@dataclass(frozen=True)
class BuildOptions(Options):
    """What to build, and of what.

    Attributes:
        prompts: Files or hub ids of prompts. Their column reference may hold the answer key, their column split may say
            test for the prompts that the router is proved on.
        out: Folder of the router. Answers, records and the report are in OUT.build/, from where the same command goes
            on.
        models: TOML file of the models, as collect reads it.
        strong: The strong model of the file.
        weak: The weak model of the file.
        judge: The model of the file that compares the answers. Without it, the answer keys decide.
        grader: How an answer is compared with its answer key, as judge knows it: exact, multiple-choice, number, ...
        budget_usd: Spend at most so many USD in all; the calls in flight may exceed it. The command asks 30 prompts,
            and then as many as the budget pays for.
        dry_run: Print what asking strong and weak for all prompts would cost, and ask nothing.
        max_quality_loss: Largest loss of quality against strong alone that is acceptable, in points of the score or the
            win rate.
        held_out: Share of the labelled prompts that the router is proved on.
        seed: Seed of all random choices.
    """

    prompts: Annotated[list[str], Flag(is_argument=True)]
    out: Annotated[Path, Flag(short="-o", panel=OUTPUT)]
    models: Annotated[Path, Flag(panel=POOL)]
    strong: Annotated[str, Flag(panel=POOL)]
    weak: Annotated[str, Flag(panel=POOL)]
    judge: Annotated[str | None, Flag(metavar="NAME", panel=_LABELS)] = None
    grader: Annotated[str | None, Flag(metavar="NAME", panel=_LABELS)] = None
    budget_usd: Annotated[float | None, Flag(least=0, metavar="USD", panel=COST)] = None
    dry_run: Annotated[bool, Flag(panel=COST)] = False
    max_quality_loss: Annotated[float, Flag(panel=_PROOF)] = 0.05
    held_out: Annotated[float, Flag(panel=_PROOF)] = 0.3
    seed: Annotated[int, Flag(least=0)] = 0


@with_flags
def build_command(options: BuildOptions, reading: QueryReading, overwrite: Overwrite) -> None:
    """Build a router of prompts without labels: ask two models, judge, train, prove, and say whether to deploy it.

    The command chooses as many prompts as the budget pays for, keeps a part of them for the proof, and adapts the
    general router to the others. After a kill, the same command goes on and pays nothing twice. Each step is a command
    of its own: next-labels, collect, judge, adapt, evaluate, calibrate.

    Example: routelearn build prompts.jsonl --strong gpt-5 --weak gpt-5-mini --models models.toml --judge gpt-5
    --budget-usd 5 --out router/
    """
    require_training()
    console = Console(stderr=True)
    if (options.out / MANIFEST).is_file() and not work_folder(options.out).is_dir():
        overwrite.check(options.out)
    if options.judge and options.grader:
        raise InputError("--judge and --grader were both given; expected one of them")
    with console.status("reading"):
        prompts = read_prompts(options.prompts, reading.column_names(), options=reading.source())
    names = [options.strong, options.weak, *([options.judge] if options.judge else [])]
    candidates = read_candidates(options.models, list(dict.fromkeys(names)))
    console.print(f"{len(prompts):,} prompts")
    if options.dry_run:
        print_estimates(estimate_collect(prompts, candidates[:2], work_folder(options.out) / "answers.jsonl"), None)
        if options.judge:
            console.print(
                f"The price of {options.judge} as the judge comes on top: it reads both answers of a pair twice, which "
                "mostly costs more than the answers do. The first 30 prompts tell it.",
                soft_wrap=True,
            )
        return
    if options.budget_usd is None:
        raise InputError(
            f"no budget is given; expected --budget-usd USD, from the price of some {LEAST_PROMPTS} prompts on, or "
            "--dry-run for the price of asking"
        )
    settings = BuildSettings(
        strong=options.strong,
        weak=options.weak,
        judge=options.judge,
        grader=options.grader,
        max_usd=options.budget_usd,
        max_quality_loss=options.max_quality_loss,
        held_out=options.held_out,
        seed=options.seed,
    )
    kept = f"what was paid for is in {work_folder(options.out)}; the same command goes on from there"
    with on_interrupt(kept), job_progress(console, "calls") as show:
        done = build_router(prompts, candidates, options.out, settings, on_step=console.print, on_progress=show)
    if done.stopped is not None:
        console.print(f"stopped early: {done.stopped}", soft_wrap=True)
    console.print(f"wrote {done.router}, and the report to {done.work / 'report' / 'report.html'}", soft_wrap=True)
    console.print(
        f"{done.prompts:,} prompts, {done.spent_usd:.4f} USD; trained on {done.training:,}, proved on "
        f"{done.held_out:,}",
        soft_wrap=True,
    )
    Console().print(str(done.verdict), soft_wrap=True)
    if done.verdict.labels_needed is not None:
        needed = done.verdict.labels_needed / max(done.held_out, 1) * (done.training + done.held_out)
        console.print(
            f"With the same share of held-out prompts that is some {needed:,.0f} prompts in all.", soft_wrap=True
        )
