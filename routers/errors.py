"""The exceptions that routelearn raises.

::

    RoutelearnError
    +-- InputError (ValueError)      a query, an argument or a setting cannot be used
    |   +-- DataError                a row of a data file cannot be used; the message names file, row, column
    |   +-- LeakError                the evaluation data holds a prompt of the training data
    +-- BundleError                  a bundle cannot be trusted
    |   +-- BundleMissingError       the folder, or a file in it, does not exist
    |   +-- BundleVersionError       a newer routelearn wrote the bundle
    |   +-- BundleCorruptError       a hash, the manifest or the graph differs from what was exported
    |   +-- GoldenScoreError         the graph runs, but gives other scores than at export
    +-- ExportError                  the exported graph does not reproduce the trained network
    +-- InferenceError               a loaded router failed while scoring
    +-- CascadeError                 no tier of a cascade gave an answer (in `cascade.tiers`)
    +-- MissingExtraError (ImportError)  an optional dependency is not installed

The command line exits with 2 for `InputError`, `BundleError` and
`MissingExtraError` (the caller can mend these), and with 1 for every other error.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class RoutelearnError(Exception):
    """The base class of every error that routelearn raises on purpose."""


class InputError(RoutelearnError, ValueError):
    """A query, an argument or a setting cannot be used; the message says what was expected."""


class DataError(InputError):
    """A row of a data file cannot be used.

    Attributes:
        file: the file or hub id, as the user named it.
        row: the row's number, counted from 1 without the header line; None when the whole file is meant.
        column: the column's name; None when the whole row is meant.
        problem: what is wrong.
        expected: what would have been right.
    """

    def __init__(self, file: str, row: int | None, column: str | None, problem: str, expected: str) -> None:
        """Compose the message from file, row, column, problem and expectation."""
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

    @property
    def cause(self) -> str:
        """The column, and what was expected in it: the same for all rows that are bad in the same way."""
        place = "the row" if self.column is None else f"column {self.column!r}"
        return f"{place}: expected {self.expected}"


class LeakError(InputError):
    """The same prompts are in the training data and in the evaluation data."""


class BundleError(RoutelearnError):
    """A bundle cannot be trusted."""


class BundleMissingError(BundleError):
    """The bundle folder, or a file that its manifest lists, does not exist."""


class BundleVersionError(BundleError):
    """A newer routelearn wrote the bundle; this one cannot read its format version."""


class BundleCorruptError(BundleError):
    """A hash, the manifest, the tokenizer or the graph differs from what was exported."""


class GoldenScoreError(BundleError):
    """The graph runs here, but gives the golden queries other scores than at export."""


class ExportError(RoutelearnError):
    """The exported graph does not reproduce the trained network."""


class InferenceError(RoutelearnError):
    """A loaded router failed while scoring."""


class MissingExtraError(RoutelearnError, ImportError):
    """An optional dependency is not installed; the message says how to install it."""


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
        raise missing_extra(module, extra) from error


def missing_extra(module: str, extra: str) -> MissingExtraError:
    """The error that says how to install an optional dependency."""
    return MissingExtraError(f"{module} is not installed. Install it with: pip install 'routelearn[{extra}]'")
