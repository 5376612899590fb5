"""`routelearn next-labels`: choose which prompts to judge next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..data.parser import ReadOptions
from ..data.records import Record, record_key
from ..labelling.candidates import Candidate, read_candidates
from ..labelling.prompts import Prompt, read_prompts
from ..routers.base import Router
from ..routers.errors import DataError, InputError
from ..routers.general import GeneralRouter
from ..routers.loading import load
from ..training.libraries import require_training
from .flags import Flag, Options, with_flags
from .options import DATA, OUTPUT, POOL, QueryReading, table_console
from .outputs import Overwrite
from .reading import bad_rows, read_listed, say
from .terminal import Console

if TYPE_CHECKING:
    from ..labelling.learning_curve import LabelsForGuarantee, LearningCurve
    from ..labelling.next_labels import ChosenPrompts


@dataclass(frozen=True)
class ChoiceOptions(Options):
    """What to choose from, and how many.

    Attributes:
        prompts: Files or hub ids of prompts. A prompt that stands there twice counts twice as traffic. The columns
            task, split, reference and grader are kept; a column weight is the traffic of a prompt.
        out: The prompts to judge next: .jsonl, .parquet or .csv, for collect. The column weight makes them stand for
            all prompts.
        count: Choose so many prompts.
        budget_usd: Choose as many prompts as collect can ask all models of --models for, for so many USD.
        models: TOML file of the models with prices, as for collect; it is needed for --budget-usd.
        seed: Seed of the choice. The same seed chooses the same prompts.
    """

    prompts: Annotated[list[str], Flag(is_argument=True)]
    out: Annotated[Path, Flag(short="-o", panel=OUTPUT)]
    count: Annotated[int | None, Flag(least=1)] = None
    budget_usd: Annotated[float | None, Flag(least=0, metavar="USD")] = None
    models: Annotated[Path | None, Flag(panel=POOL)] = None
    seed: Annotated[int, Flag(least=0)] = 0

    def candidates(self) -> Sequence[Candidate]:
        """The models of --models.

        Raises:
            InputError: neither a count nor a budget was given, or no models for a budget.
        """
        if self.count is None and self.budget_usd is None:
            raise InputError("give the number of prompts with --count, or a budget with --budget-usd and --models")
        if self.budget_usd is not None and self.models is None:
            raise InputError("--budget-usd: the prices are not known; give the models with --models")
        return read_candidates(self.models) if self.models is not None else ()


@dataclass(frozen=True)
class LabelOptions(Options):
    """The labels that are there.

    Attributes:
        labels: Files of records that are there already; their prompts are left out. Can be repeated.
        router: Folder of the router so far, or the word general. The choice then leans to prompts where a label can
            change its decisions. Without it the choice is a plain spread.
        floor: Share of the choice that does not depend on the router, above 0 and at most 1. A small share makes
            unequal weights, and wider intervals.
    """

    HEADING: ClassVar[str] = DATA

    labels: Annotated[list[str] | None, Flag(metavar="FILE")] = None
    router: Path | None = None
    floor: float = 0.5


@dataclass(frozen=True)
class CurveOptions(Options):
    """What more labels would buy, from 60 labels on.

    Attributes:
        no_curve: Do not train routers on parts of the labels to see how they improve; it takes half a minute or more.
        strong: The strong model of the labels. The default is that of --router, or the better one of two.
        weak: The weak model of the labels. The default is that of --router, or the worse one of two.
        max_quality_loss: The loss that the number of labels for a guarantee is told for; see calibrate.
        confidence: The confidence of that guarantee.
    """

    HEADING: ClassVar[str] = "What more labels would buy"

    no_curve: bool = False
    strong: str | None = None
    weak: str | None = None
    max_quality_loss: float = 0.02
    confidence: float = 0.95


@with_flags
def next_labels_command(
    options: ChoiceOptions, given: LabelOptions, curve: CurveOptions, reading: QueryReading, overwrite: Overwrite
) -> None:
    """Choose which prompts to judge next, and say what more labels would buy.

    The prompts are spread over the clusters of all prompts in proportion to the traffic. With --router they lean to
    prompts where a label can change a decision. Every prompt has a known probability, and the column weight undoes it:
    evaluate and calibrate stay unbiased.

    Example: routelearn next-labels prompts.jsonl --out chosen.jsonl --count 200

    Example: routelearn next-labels prompts.jsonl -o more.jsonl --count 200 --labels labels.jsonl --router router/
    """
    require_training()
    from ..labelling.learning_curve import LEAST_FOR_CURVE
    from ..labelling.next_labels import choose_prompts, write_prompts

    if options.out.suffix.lower() not in {".parquet", ".jsonl", ".csv"}:
        raise InputError(f"{options.out}: expected a file that ends in .parquet, .jsonl or .csv")
    overwrite.check(options.out)
    candidates = options.candidates()
    console = Console(stderr=True)
    prompts = _read(options.prompts, reading, console)
    with console.status("reading"):
        labels = read_listed(console, given.labels or [], ReadOptions())
    router = None if given.router is None else _open(given.router, labels, curve)
    with console.status("choosing"):
        chosen = choose_prompts(
            prompts,
            options.count,
            labels=labels,
            router=router,
            budget_usd=options.budget_usd,
            candidates=candidates,
            floor=given.floor,
            seed=options.seed,
        )
    write_prompts(chosen.prompts, options.out)
    for line in _summary(chosen, options):
        console.print(line, soft_wrap=True)
    if curve.no_curve or len({record_key(record) for record in labels}) < LEAST_FOR_CURVE:
        return
    try:
        _show_curve(labels, router, curve, options.seed, console)
    except InputError as error:  # the prompts are chosen and written
        console.print(f"no learning curve: {error}", soft_wrap=True)


def _read(sources: list[str], reading: QueryReading, console: Console) -> list[Prompt]:
    """The prompts; the weight of each is its traffic."""
    bad: list[DataError] = []
    more: dict[str, float] = defaultdict(float)

    def add(prompt: Prompt) -> None:
        more[prompt.id] += prompt.weight

    with console.status("reading"):
        prompts = read_prompts(
            sources,
            reading.column_names(),
            on_bad=bad.append if reading.skip_bad else None,
            on_repeat=add,
            options=reading.source(),
        )
    say(console, bad_rows(bad))
    return [replace(prompt, weight=prompt.weight + more[prompt.id]) for prompt in prompts]


def _summary(chosen: ChosenPrompts, options: ChoiceOptions) -> list[str]:
    """What was chosen, in words."""
    count = len(chosen.prompts)
    left_out = f"; {chosen.labelled:,} have a label and are left out" if chosen.labelled else ""
    lines = [
        f"wrote {count:,} of {chosen.eligible:,} prompts to {options.out}, spread over {chosen.clusters} "
        f"clusters{left_out}"
    ]
    if options.count is not None and count < options.count:
        why = "there are no more" if count == chosen.eligible else "the budget pays for no more"
        lines.append(f"asked for {options.count:,} prompts, got {count:,}: {why}")
    if chosen.usd is not None:
        lines.append(f"asking the models of {options.models} for them: some {chosen.usd:.4f} USD; judging costs more")
    weights = [prompt.weight for prompt in chosen.prompts]
    effective = sum(weights) ** 2 / sum(weight**2 for weight in weights)
    if max(weights) > min(weights):
        lines.append(
            f"weights from {min(weights):.2f} to {max(weights):.2f}: figures on these labels are as certain as on "
            f"{effective:.0f} labels without weights"
        )
    return lines


def _show_curve(
    labels: Sequence[Record], router: Router | None, options: CurveOptions, seed: int, console: Console
) -> None:
    """Train on parts of the labels, and print the curve."""
    from ..labelling.learning_curve import labels_for_guarantee, measure_curve

    strong, weak = _pair(labels, router, options)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.redraws, transient=True) as progress:
        bar = progress.add_task("training on parts of the labels", total=None)
        curve = measure_curve(
            labels,
            strong,
            weak,
            seed=seed,
            on_step=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    needed = labels_for_guarantee(curve, options.max_quality_loss, options.confidence)
    table_console().print(_table(curve))
    for line in [*_gain_in_words(curve), _guarantee_in_words(needed, options, curve.losses.unit)]:
        table_console().print(line, highlight=False, soft_wrap=True)


def _open(path: Path, labels: Sequence[Record], options: CurveOptions) -> Router:
    """The router so far; a general one for the models of the options or of the labels, if they say which."""
    router = load(path)
    if not isinstance(router, GeneralRouter):
        return router
    strong, weak = options.strong, options.weak
    if (strong is None or weak is None) and labels:
        strong, weak = _pair(labels, None, options)
    return router.placed(strong=strong, weak=weak)


def _pair(labels: Sequence[Record], router: Router | None, options: CurveOptions) -> tuple[str, str]:
    """The strong and the weak model that the curve is about.

    Raises:
        InputError: the labels name more than two models, and neither the options nor a router say which two.
    """
    from ..labelling.learning_curve import pair_of_labels

    strong = options.strong or (router.strong if router is not None else None)
    weak = options.weak or (router.weak if router is not None else None)
    if strong is None or weak is None:
        better, worse = pair_of_labels(labels)
        strong = strong or (better if better != weak else worse)
        weak = weak or (worse if worse != strong else better)
    return strong, weak


def _table(curve: LearningCurve) -> Table:
    title = f"{curve.strong} over {curve.weak}: a router of so many labels, on prompts that it did not see"
    table = Table(title=title, title_justify="left")
    for heading in ("labels", "log loss", "95 % interval", "APGR", "95 % interval"):
        table.add_column(heading, justify="right")
    for point in curve.points:
        table.add_row(
            f"{point.labels:,}{'' if point.measured else ' (drawn on)'}",
            f"{point.log_loss:.4f}",
            "{:.4f} to {:.4f}".format(*point.log_loss_interval),
            f"{point.apgr:.3f}",
            "{:.3f} to {:.3f}".format(*point.apgr_interval),
        )
    return table


def _gain_in_words(curve: LearningCurve) -> list[str]:
    """What more labels would buy."""
    lines = []
    today = next(point for point in curve.points if not point.measured)
    for point in curve.points:
        if point.gain is not None and point.gain_interval is not None and point is not today:
            low, high = point.gain_interval
            lines.append(
                f"{point.labels:,} labels instead of {today.labels:,}: APGR {point.gain:+.3f} ({low:+.3f} to "
                f"{high:+.3f}), if the curve goes on as it did"
            )
    return lines


def _guarantee_in_words(needed: LabelsForGuarantee, options: CurveOptions, unit: str) -> str:
    """How many labels a guarantee needs."""
    bound = (
        f"a loss of at most {options.max_quality_loss:g} points of the {unit} with confidence {options.confidence:g}"
    )
    if needed.share > 0:
        return (
            f"for {bound} these {needed.labels:,} labels would do: it lets {needed.share:.1%} of the queries go to weak"
        )
    if needed.needed is None:
        return f"for {bound} no number of labels would do that anyone collects: allow a larger loss"
    return (
        f"for {bound} some {needed.needed:,} labels are needed, by a simulation from these {needed.labels:,}; the "
        "router must not be trained on them"
    )
