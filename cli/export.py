"""`routelearn export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from ..routers.errors import require
from .options import OUTPUT, Bundle


def export_command(
    router: Bundle,
    form: Annotated[
        Literal["text", "triton"],
        typer.Option(
            "--format",
            help="text: one ONNX file that takes a string, with the tokenizer in it. triton: a model folder for the "
            "Triton Inference Server.",
            rich_help_panel=OUTPUT,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write, which must not exist yet.", rich_help_panel=OUTPUT)
    ],
) -> None:
    """Write a router's graph for a runtime that is not Python: onnxruntime in another language, or Triton.

    Example: routelearn export router/ --format triton -o models/router
    """
    require("onnx", "train")
    from ..training.export.portable import export_portable

    path = export_portable(router, out, form)
    Console(stderr=True).print(f"wrote {path}: {', '.join(sorted(item.name for item in path.iterdir()))}", markup=False)
