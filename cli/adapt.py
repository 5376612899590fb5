"""`routelearn adapt`: adapt a router to labels of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ..routers.bundle import read_manifest
from ..training.libraries import require_training
from .flags import Flag, Options, with_flags
from .input_files import read_pool
from .options import DATA, OUTPUT, POOL, Reading
from .outputs import Overwrite
from .terminal import Console, on_interrupt
from .train import read_and_describe


@dataclass(frozen=True)
class AdaptOptions(Options):
    """What to adapt, and to what.

    Attributes:
        router: Folder of a bundle, or the name general for the router that comes with routelearn.
        data: Files or hub ids of labels, from 20 labels on. Can be repeated.
        out: Folder of the new bundle.
        strong: The strong model. With two models in the records the default is the better one.
        weak: The weak model. With two models in the records the default is the other one.
        pool: JSON or TOML file with name, input_price and output_price of each model, in USD per million tokens.
        seed: Seed of all random choices. The same seed and labels give the same bundle.
    """

    router: Annotated[Path, Flag(is_argument=True)]
    data: Annotated[list[str], Flag(metavar="FILE", panel=DATA)]
    out: Annotated[Path, Flag(short="-o", panel=OUTPUT)]
    strong: Annotated[str | None, Flag(panel=POOL)] = None
    weak: Annotated[str | None, Flag(panel=POOL)] = None
    pool: Annotated[Path | None, Flag(panel=POOL)] = None
    seed: int | None = None


@with_flags
def adapt_command(options: AdaptOptions, reading: Reading, overwrite: Overwrite) -> None:
    """Adapt a router to labels of your own, from 20 labels on.

    The general router becomes a router of your models: few labels correct it, many labels replace it. A router that you
    trained gets the new models of the labels, without being trained again; its other models stay as they are.

    Example: routelearn adapt general --data labels.csv --out mine/ --strong gpt-4o --weak gpt-4o-mini
    """
    require_training()
    overwrite.check(options.out)
    from ..training.adaptation import adapt
    from ..training.matrix_factorization.config import MatrixFactorizationConfig

    console = Console(stderr=True)
    records = read_and_describe(console, options.data, reading.options())
    given = {name: getattr(options, name) for name in ("strong", "weak", "seed")}
    settings = {name: value for name, value in given.items() if value is not None}
    config = MatrixFactorizationConfig(**settings) if settings else None
    kept = f"{options.out} is as it was" if options.out.exists() else f"{options.out} was not written"
    with on_interrupt(kept):
        path = adapt(options.router, records, options.out, config, pool=read_pool(options.pool), progress=True)
    console.print("\n".join([f"wrote {path}", *_what(path)]), markup=False, highlight=False, soft_wrap=True)


def _what(path: Path) -> list[str]:
    """What the adapted bundle says of the labels."""
    training = read_manifest(path).training
    if "placed" in training:
        return [f"{name} is placed from {count} labels" for name, count in training["placed"].items()]
    general, metrics = training.get("general"), training["metrics"]
    lines = []
    if general is not None:
        abilities = ", ".join(f"{name} {value:.2f}" for name, value in general["abilities"].items())
        lines.append(f"abilities by the labels: {abilities}")
        lines.append(f"the general router counts {general['share']:.0%} for familiar queries, up to 100 % for others")
    lines.append(
        f"log loss of {metrics['held-out queries']} held-out queries: {metrics['log loss']:.4f}; "
        f"of one ranking for all queries: {metrics['log loss of the global ranking']:.4f}"
    )
    return lines
