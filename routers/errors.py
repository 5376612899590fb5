"""The exceptions of routelearn.

::

    RoutelearnError
    +-- InputError (ValueError)      a query, an argument or a setting is not usable
    |   +-- DataError                a row of a data file is not usable; names file, row, column
    |   +-- LeakError                a training prompt also stands in the evaluation data
    +-- BundleError                  a bundle cannot be trusted
    |   +-- BundleMissingError       the folder, or a file of it, is not there
    |   +-- BundleVersionError       written by a newer routelearn
    |   +-- BundleCorruptError       a hash, the manifest or the graph is not what it was
    |   +-- GoldenScoreError         the graph runs, but not to the scores it was exported with
    +-- ExportError                  the exported graph does not reproduce the trained network
    +-- InferenceError               a loaded router failed while scoring
    +-- CascadeError                 no tier of a cascade gave an answer (in `cascade.tiers`)
    +-- MissingExtraError (ImportError)  an optional dependency is not installed

The command line exits with 2 for `InputError`, `BundleError` and
`MissingExtraError` (the caller can mend it), with 1 for everything else.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class RoutelearnError(Exception):
    """Base of every error that routelearn raises on purpose."""


class InputError(RoutelearnError, ValueError):
    """A query, an argument or a setting is not usable."""


class DataError(InputError):
    """A row of a data file is not usable.

    Attributes:
        file: the file or hub id, as the user named it.
        row: 1-based row number (for text formats: data rows, the header not counted), or None.
        column: the column, or None when the whole row is meant.
        expected: what would have been right.
    """

    def __init__(self, file: str, row: int | None, column: str | None, problem: str, expected: str) -> None:
        """Compose the one-line message from the place, the problem and the expectation."""
        place = file
        if row is not None:
            place += f", row {row}"
        if column is not None:
            place += f", column {column!r}"
        super().__init__(f"{place}: {problem}; expected {expected}")
        self.file = file
        self.row = row
        self.column = column
        self.problem = problem
        self.expected = expected


class LeakError(InputError):
    """Prompts stand in the training data and in the evaluation data."""


class BundleError(RoutelearnError):
    """A bundle cannot be trusted."""


class BundleMissingError(BundleError):
    """The bundle folder, or a file that its manifest lists, is not there."""


class BundleVersionError(BundleError):
    """The bundle has a format version that this routelearn does not know."""


class BundleCorruptError(BundleError):
    """A hash, the manifest, the tokenizer or the graph is not what was written."""


class GoldenScoreError(BundleError):
    """The graph runs here, but its golden queries do not get the scores they were exported with."""


class ExportError(RoutelearnError):
    """The exported graph does not reproduce the trained network."""


class InferenceError(RoutelearnError):
    """A loaded router failed while scoring."""


class MissingExtraError(RoutelearnError, ImportError):
    """An optional dependency is not installed; the message holds the install line."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say how to install it.

    Args:
        module: the dotted module name.
        extra: the extra of routelearn that brings it.

    Raises:
        MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        message = f"{module} is not installed. Install it with: pip install 'routelearn[{extra}]'"
        raise MissingExtraError(message) from error
