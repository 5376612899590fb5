"""`routelearn train`: one command a recipe, with a flag for each setting of the recipe's config."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

from ..data.parser import ReadOptions
from ..data.readers import RecordSet, read_many
from ..data.records import Record
from ..routers.base import Router
from ..routers.loading import load
from ..training.bert.config import BertConfig
from ..training.config import Config
from ..training.frozen.config import FrozenConfig
from ..training.general.config import GeneralConfig
from ..training.libraries import require_training
from ..training.matrix_factorization.config import MatrixFactorizationConfig
from ..training.similarity.config import SimilarityConfig
from ..training.verifier.config import VerifierConfig
from .flags import Flag, FlagsOf, Options, with_flags
from .input_files import read_pool, read_settings
from .options import DATA, OUTPUT, POOL, Reading
from .outputs import Overwrite
from .reading import bad_rows, columns_left_out, say
from .terminal import Console, on_interrupt

if TYPE_CHECKING:
    from ..training.general.train import GeneralPlan
    from ..training.pipeline import Plan
    from ..training.verifier.job import VerifierPlan

#: Settings of the configs that have no flag, and why.
WITHOUT_FLAG = {"models": "--models reads only the records of these models, so that no other model is learned about"}
_PANELS = {
    "strong": POOL,
    "weak": POOL,
    "models": POOL,
    "strong_share": OUTPUT,
    "escalation_rate": OUTPUT,
    "quantise": OUTPUT,
}


@dataclass(frozen=True)
class Run(Options):
    """What a training run reads and writes.

    Attributes:
        data: Files or hub ids of records. Can be repeated: the first file should hold queries like those that the
            router will get; the other files are extra training data. FILE@0.2 gives the records of a file the weight
            0.2.
        out: Folder of the bundle to write.
        pool: JSON or TOML file with name, input_price and output_price of each model, in USD per million tokens. The
            bundle keeps them.
        config: TOML file with settings of this command, one per line, such as rank = 16. A flag overrides the file.
        keep_anyway: End with exit code 0 even if the router or the verifier turns out to be no better than none: on
            held-out data, no better than one ranking of the models for all queries, or the same confidence for all
            answers. The bundle is written in any case; without this flag the exit code is then 3.
        dry_run: Read the data, check everything that training checks, say what would be trained, and stop.
    """

    HEADING: ClassVar[str] = OUTPUT

    data: Annotated[list[str], Flag(metavar="FILE", panel=DATA)]
    out: Annotated[Path, Flag(short="-o")]
    pool: Annotated[Path | None, Flag(panel=POOL)] = None
    config: Annotated[Path | None, Flag(panel="Training")] = None
    keep_anyway: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Prior(Options):
    """A router that helps the verifier.

    Attributes:
        prior: Folder of a router; the verifier also reads that router's score of the query. The router must not have
            been trained on these queries.
    """

    HEADING: ClassVar[str] = "Training"

    prior: Path | None = None


@dataclass(frozen=True)
class Recipe:
    """One command of `routelearn train`.

    Attributes:
        folder: folder of the recipe in training/; its train.py has the functions `train_` and `check_` of that name.
        config: the settings.
        text: what `--help` says.
        extra: the extra that brings the libraries of the recipe.
    """

    folder: str
    config: type[Config]
    text: str
    extra: str = "train"

    def command(self) -> Callable[..., None]:
        """The command, with a flag for each setting."""
        flags = FlagsOf(self.config, panels=_PANELS, without=tuple(WITHOUT_FLAG))

        def command(run: Run, settings: dict[str, Any], reading: Reading, overwrite: Overwrite) -> None:
            _train(self, run, settings, reading, overwrite)

        def verifier(run: Run, settings: dict[str, Any], reading: Reading, prior: Prior, overwrite: Overwrite) -> None:
            _train(self, run, settings, reading, overwrite, prior=load(prior.prior) if prior.prior else None)

        chosen: Callable[..., None] = command
        if self.config is VerifierConfig:
            chosen, flags = verifier, replace(flags, renamed={"models": "--answers"}, without=())
        chosen.__annotations__["settings"] = Annotated[dict[str, Any], flags]
        chosen.__doc__ = self.text
        return with_flags(chosen)


#: The recipes by the names of their commands.
RECIPES = {
    "mf": Recipe(
        "matrix_factorization",
        MatrixFactorizationConfig,
        """Train a matrix-factorization router, the one to start with: seconds to train, microseconds to score.

        Rows marked "test" are not used. Rows marked "val" are the validation data; if there are none, training
        cross-validates.

        Example: routelearn train mf --data battles.parquet --out router/ --strong gpt-4o --weak gpt-4o-mini
        """,
    ),
    "similarity": Recipe(
        "similarity",
        SimilarityConfig,
        """Train a router that looks up similar training queries; routelearn extend can add records to it later.

        Seconds to train. Scoring takes longer the more queries the index holds.

        Example: routelearn train similarity --data scores.parquet --out router/ --strong gpt-4o --weak gpt-4o-mini
        """,
    ),
    "frozen": Recipe(
        "frozen",
        FrozenConfig,
        """Train a router on the embeddings of a frozen transformer: better than mf, but slower.

        Minutes to train on two cores, milliseconds to score. A larger encoder gives a better router; docs/results.md
        compares several.

        Example: routelearn train frozen --data battles.parquet --out router/ --strong gpt-4o --weak gpt-4o-mini
        """,
        extra="transformers",
    ),
    "bert": Recipe(
        "bert",
        BertConfig,
        """Fine-tune a Hugging Face transformer as a router: for ten thousand queries or more.

        An hour to train on two cores, minutes on a GPU, milliseconds to score. To train with two GPUs, start the
        command with: torchrun --nproc-per-node 2 -m routelearn train bert ...

        Example: routelearn train bert --data battles.parquet --out router/ --strong gpt-4o --weak gpt-4o-mini
        """,
        extra="transformers",
    ),
    "general": Recipe(
        "general",
        GeneralConfig,
        """Train a router for any models, from the records of many sources and many models.

        The router that comes with routelearn was trained by this command, so most users do not need it; try
        routelearn route general "..." first. The records of a file are one source, unless a column names the source.

        Example: routelearn train general --data exams.parquet --data chats.parquet --out router/
        """,
    ),
    "verifier": Recipe(
        "verifier",
        VerifierConfig,
        """Fine-tune a verifier for a cascade: it reads a query with an answer, and says whether the answer is good
        enough.

        The records need responses: performance records with a response, or preference records with both responses.
        Thresholds are chosen on answers to queries that the verifier was not trained on.

        Example: routelearn train verifier --data answers.parquet --out verifier/ --answers gpt-4o-mini
        """,
        extra="transformers",
    ),
}


class _Recipes(TyperGroup):
    """The commands of `RECIPES`. Their many flags are made when one of them is asked for, not at every start."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands."""
        return list(RECIPES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, if any."""
        if cmd_name not in RECIPES:
            return None
        one = typer.Typer(add_completion=False)
        one.command(cmd_name)(RECIPES[cmd_name].command())
        return typer.main.get_command(one)


app = typer.Typer(
    cls=_Recipes,
    no_args_is_help=True,
    help="Train a router on your records, for a pool of models, and export it as a bundle.\n\n"
    "Start with mf. Use frozen if a better router is worth a few milliseconds per query, and bert if you have ten "
    "thousand queries and a GPU. Use similarity if you want to add records and models later without training again. "
    "A verifier is not a router: it judges answers in a cascade.\n\n"
    "Example: routelearn train mf --data battles.parquet --out router/ --strong gpt-4o --weak gpt-4o-mini",
)


def _train(
    recipe: Recipe, run: Run, typed: dict[str, Any], reading: Reading, overwrite: Overwrite, **more: Router | None
) -> None:
    """Train, or check what training would check, with the settings that were typed over those of the file.

    Args:
        recipe: how to train.
        run: what to read and to write.
        typed: the settings that were typed.
        reading: how to read the records.
        overwrite: whether a bundle that is there may be replaced.
        more: further arguments of the recipe's functions.
    """
    require_training(recipe.extra)
    overwrite.check(run.out)
    functions = import_module(f"..training.{recipe.folder}.train", __package__)
    check, train = (partial(getattr(functions, f"{verb}_{recipe.folder}"), **more) for verb in ("check", "train"))
    main = os.environ.get("RANK", "0") == "0"
    console = Console(stderr=True, quiet=not main)
    prices = read_pool(run.pool)
    configuration = recipe.config(**{**read_settings(run.config, recipe.config), **typed})
    records = read_and_describe(console, run.data, reading.options())
    if run.dry_run:
        plan = check(records, run.out, configuration, pool=prices)
        console.print(f"dry run: {_preview(plan)}. Nothing was written.", markup=False, highlight=False, soft_wrap=True)
        return
    kept = f"{run.out} is as it was" if run.out.exists() else f"{run.out} was not written"
    if hasattr(configuration, "resume"):
        kept += "; with --resume the same command goes on from its last checkpoint, if it got to one"
    with on_interrupt(kept):
        path = train(records, run.out, configuration, pool=prices, progress=main)
    if main:
        _say_end(console, path, run, configuration, records)


def _preview(plan: Plan | VerifierPlan | GeneralPlan) -> str:
    """What a planned run would learn from."""
    from ..training.general.train import GeneralPlan
    from ..training.pipeline import Plan

    examples = plan.examples
    held_out = sum(any(fold[row] for fold in plan.folds) for row in range(len(examples.queries)))
    if isinstance(plan, Plan):
        models = ", ".join(examples.models)
        return f"{len(examples.queries):,} queries to learn from, {held_out:,} of them held out; models {models}"
    if isinstance(plan, GeneralPlan):
        return (
            f"{len(examples.queries):,} queries of {len(examples.sources)} sources to learn from, {held_out:,} of them "
            f"held out to measure; {len(examples.models)} models"
        )
    models = ", ".join(sorted({answer.model for answer in plan.answers}))
    good = sum(answer.good for answer in plan.answers) / len(plan.answers)
    return (
        f"{len(plan.answers):,} answers to learn from, {held_out:,} of them held out, {good:.1%} good enough; "
        f"answers of {models}"
    )


def _say_end(console: Console, path: Path, run: Run, configuration: Any, records: list[Record]) -> None:
    from ..routers.bundle import GENERAL, read_manifest
    from ..training.summary import no_better, summary

    manifest = read_manifest(path)
    lines = [f"wrote {path}; log and curve in {path}.training/"]
    flips = manifest.training.get("flips")
    if flips is not None:
        lines.append(f"int8 changes {flips:.2%} of the decisions that float32 makes on held-out data.")
    lines += summary(
        manifest,
        run.out,
        data=run.data,
        has_test_rows=any(record.split == "test" for record in records),
        named_pair=manifest.kind == GENERAL or (configuration.strong is not None and configuration.weak is not None),
    )
    useless = no_better(manifest)
    for line in [*lines, *([useless] if useless else [])]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if useless and not run.keep_anyway:
        console.print(
            f"The bundle is in {path} all the same; this command ends with exit code 3 unless you give --keep-anyway.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(3)


def read_and_describe(console: Console, data: list[str], options: ReadOptions) -> list[Record]:
    """Read records from several sources, and say of each what it holds."""
    with console.status("reading"):
        sets = read_many(data, options)
    for records in sets:
        console.print(_description(records), markup=False, highlight=False, soft_wrap=True)
        say(console, columns_left_out(records))
        say(console, bad_rows(records.bad))
    return [record for records in sets for record in records.records]


def _description(records: RecordSet) -> str:
    line = f"{records.source}: {len(records.records):,} {records.kind} records from {records.rows:,} rows"
    if records.censored:
        line += f"; {records.censored:,} say only who did not win ({records.tie_share:.1%} taken for ties)"
    return line
