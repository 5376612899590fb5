"""What commands write: outputs that are there already, and cells of CSV files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..routers.bundle import MANIFEST
from ..routers.errors import InputError
from .flags import Options
from .options import OUTPUT


@dataclass(frozen=True)
class Overwrite(Options):
    """Whether an output that is there already may be replaced.

    Attributes:
        force: Replace outputs that are there already. By default the command refuses to.
    """

    HEADING: ClassVar[str] = OUTPUT

    force: bool = False

    def check(self, *outputs: str | Path | None) -> None:
        """Refuse outputs that are there already, before anything is computed.

        Args:
            outputs: files, or folders of bundles. None and what is no file, such as a pipe, is nobody's loss.

        Raises:
            InputError: an output is there, and --force was not given.
        """
        for output in outputs:
            if output is None or self.force:
                continue
            if Path(output).is_file() or (Path(output) / MANIFEST).is_file():
                raise InputError(f"{output} is there already; choose another output, or give --force to replace it")


def check_raw(raw: bool, output: str | None) -> None:
    """Refuse --raw where no CSV file is written.

    Raises:
        InputError: the output is no .csv file.
    """
    if raw and (output is None or Path(output).suffix.lower() != ".csv"):
        raise InputError(
            f"--raw was given with the output {output or '-'}; expected a .csv file, no other has formulas"
        )


def check_job_output(out: Path, inputs: Sequence[str], journal: Path | None) -> None:
    """Refuse an output of paid calls that cannot be written, or in whose place something else stands, before any call.

    Args:
        out: the table to write: .parquet, .jsonl or .csv.
        inputs: what the command reads.
        journal: where the output may be there already, because the same command goes on from this journal; None: it may
            not be there.

    Raises:
        InputError: it cannot be written.
    """
    if out.suffix.lower() not in {".parquet", ".jsonl", ".csv"}:
        raise InputError(f"{out}: expected a file that ends in .parquet, .jsonl or .csv")
    if out.is_dir():
        raise InputError(f"{out} is a folder; expected the path of a file")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is not a folder; expected an existing folder for {out.name}")
    if any(Path(one).is_file() and Path(one).resolve() == out.resolve() for one in inputs):
        raise InputError(f"{out} is what the command reads; expected another file to write")
    if out.exists() and (journal is None or not journal.exists()):
        raise InputError(f"{out} is there already, and this command did not begin it; expected another output")
