"""`routelearn export`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..routers.errors import require


class Form(str, Enum):
    """For which runtime."""

    text = "text"
    triton = "triton"


def export_command(
    router: Annotated[Path, typer.Argument(help="A bundle folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder that is not there yet.")],
    form: Annotated[Form, typer.Option("--format", help="text: one string in, one row out; triton: a model folder.")],
) -> None:
    """Write a bundle's graph for another runtime: with the tokenizer in it, or as a model of Triton.

    Example: routelearn export router/ --format triton -o models/router
    """
    require("onnx", "train")
    from ..training.export.portable import export_portable

    path = export_portable(router, out, form.value)
    Console(stderr=True).print(f"wrote {path}: {', '.join(sorted(item.name for item in path.iterdir()))}", markup=False)
