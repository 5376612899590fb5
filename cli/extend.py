"""`routelearn extend`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..routers.bundle import read_manifest
from .flags import with_flags
from .input_files import read_pool
from .options import DATA, OUTPUT, Pool, Reading
from .train import read_and_describe, require_training


@with_flags
def extend_command(
    router: Annotated[Path, typer.Argument(help="Folder of a bundle that train similarity wrote.")],
    data: Annotated[
        list[str],
        typer.Option(metavar="FILE", help="Files or hub ids of new records. Can be repeated.", rich_help_panel=DATA),
    ],
    reading: Reading,
    pool: Pool = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the extended bundle. Without it: the bundle itself is replaced.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:
    """Add new records, and new models that they name, to a similarity router without training it again.

    Example: routelearn extend router/ --data new.parquet
    """
    require_training()
    from ..training.similarity.extend import extend_similarity

    console = Console(stderr=True)
    records = read_and_describe(console, data, reading.options())
    with console.status("extending"):
        path = extend_similarity(router, records, out, pool=read_pool(pool))
    training = read_manifest(path).training
    last = training["extended"][-1]
    console.print(
        f"wrote {path}: {last['queries']:,} queries and {len(last['new_models'])} models added, "
        f"{training['index']['queries']:,} queries in the index",
        markup=False,
    )
