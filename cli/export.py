"""`routelearn export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from ..routers.errors import require
from .flags import Flag, Options, with_flags
from .options import OUTPUT
from .terminal import Console


@dataclass(frozen=True)
class ExportOptions(Options):
    """What to write.

    Attributes:
        router: Folder of a router's bundle.
        form: With text: one ONNX file that takes a string, with the tokenizer in it. With triton: a model folder for
            the Triton Inference Server.
        out: Folder to write, which must not exist yet.
    """

    HEADING: ClassVar[str] = OUTPUT

    router: Annotated[Path, Flag(is_argument=True)]
    form: Annotated[Literal["text", "triton"], Flag("--format")]
    out: Annotated[Path, Flag(short="-o")]


@with_flags
def export_command(options: ExportOptions) -> None:
    """Write a router's graph for a runtime that is not Python: onnxruntime in another language, or Triton.

    Example: routelearn export router/ --format triton -o models/router
    """
    require("onnx", "train")
    from ..training.export.portable import export_portable

    path = export_portable(options.router, options.out, options.form)
    Console(stderr=True).print(f"wrote {path}: {', '.join(sorted(item.name for item in path.iterdir()))}", markup=False)
