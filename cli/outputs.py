"""What commands write: outputs that are there already, and cells of CSV files."""

from __future__ import annotations

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
