"""`routelearn extend`."""

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
from .terminal import Console
from .train import read_and_describe


@dataclass(frozen=True)
class ExtendOptions(Options):
    """What to add to what.

    Attributes:
        router: Folder of a bundle that train similarity wrote.
        data: Files or hub ids of new records. Can be repeated.
        pool: JSON or TOML file with name, input_price and output_price of each new model, in USD per million tokens.
        out: Folder of the extended bundle. By default the bundle itself is replaced.
    """

    router: Annotated[Path, Flag(is_argument=True)]
    data: Annotated[list[str], Flag(metavar="FILE", panel=DATA)]
    pool: Annotated[Path | None, Flag(panel=POOL)] = None
    out: Annotated[Path | None, Flag(short="-o", panel=OUTPUT)] = None


@with_flags
def extend_command(options: ExtendOptions, reading: Reading, overwrite: Overwrite) -> None:
    """Add new records, and new models that they name, to a similarity router without training it again.

    Example: routelearn extend router/ --data new.parquet
    """
    require_training()
    overwrite.check(options.out)
    from ..training.similarity.extend import extend_similarity

    console = Console(stderr=True)
    records = read_and_describe(console, options.data, reading.options())
    with console.status("extending"):
        path = extend_similarity(options.router, records, options.out, pool=read_pool(options.pool))
    training = read_manifest(path).training
    last = training["extended"][-1]
    added = last["queries"] - last["merged_queries"]
    console.print(
        f"wrote {path}: {added:,} queries and {len(last['new_models'])} models added; "
        f"{last['merged_queries']:,} queries were there and got more records; "
        f"{training['index']['queries']:,} queries in the index",
        markup=False,
    )
    if last["moved"]:
        console.print(
            f"The qualities of models without new records moved as well: {last['moved']}.", markup=False, soft_wrap=True
        )
