"""Opens the files of request logs: rotated decision logs, folders of one file a request, compressed files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..monitoring.log_rows import OUTCOMES, rotated_files
from ..routers.errors import DataError, InputError
from .log_formats import LoggedLine, is_decision_log, parse_line
from .log_line import LogFields
from .raw_source import STANDARD, RawSource, Row, SourceOptions, format_of
from .rows import open_table


def read_lines(
    logs: Sequence[str | Path], fields: LogFields, options: SourceOptions
) -> Iterator[LoggedLine | DataError | None]:
    """What the lines of logs say. A file is read once, also where several of the logs are parts of one.

    Args:
        logs: files, folders, or "-" for standard input.
        fields: where lines hold what the formats do not fix.
        options: encoding and format of the files.

    Returns:
        The lines; an error in the place of a bad line, and None in the place of a broken line of a decision log.

    Raises:
        InputError: there is no such file.
    """
    read: set[Path] = set()
    for log in logs:
        if str(log) == STANDARD:
            yield from _lines(STANDARD, fields, options, is_ours=False)
            continue
        for file, is_ours in _files(Path(log), options):
            if file.resolve() not in read:
                read.add(file.resolve())
                yield from _lines(file, fields, options, is_ours=is_ours)


def _files(log: Path, options: SourceOptions) -> list[tuple[Path, bool]]:
    """The files of a log, oldest first, each with whether it is of a decision log of routelearn.

    Raises:
        InputError: there are none.
    """
    if log.is_dir():
        files = sorted(file for file in log.rglob("*") if file.is_file() and not file.name.startswith("."))
        if not files:
            raise InputError(f"{log} is an empty folder; expected files of logs")
        return [(file, _is_ours([file], options)) for file in files]
    files = rotated_files(log)
    if not files:
        raise InputError(f"{log}: no such file; expected a request log, or a folder of them")
    if not _is_ours(files, options):
        return [(file, False) for file in ([log] if log.is_file() else files)]
    others = [] if log.name.endswith(OUTCOMES) else rotated_files(f"{log}{OUTCOMES}")
    return [(file, True) for file in [*files, *others]]


def _is_ours(files: Sequence[Path], options: SourceOptions) -> bool:
    first = next((row for file in reversed(files) for row in _good_rows(file, options)), None)
    return first is not None and is_decision_log(first)


def _good_rows(file: Path, options: SourceOptions) -> Iterator[Row]:
    return (row for _, row in open_table(file, _format(file, options)).rows if not isinstance(row, DataError))


def _lines(
    file: str | Path, fields: LogFields, options: SourceOptions, *, is_ours: bool
) -> Iterator[LoggedLine | DataError | None]:
    table = open_table(file, _format(file, options))
    try:
        for number, row in table.rows:
            if isinstance(row, DataError):
                yield None if is_ours else row
            else:
                yield _parsed(table.name, number, row, fields)
    except DataError as error:  # the rest of the file cannot be read
        yield error


def _parsed(name: str, number: int, row: Row, fields: LogFields) -> LoggedLine | DataError:
    try:
        return parse_line(name, number, row, fields)
    except DataError as error:
        return error


def _format(file: str | Path, options: SourceOptions) -> SourceOptions:
    """The options with the format: most logs are JSON lines, whatever their suffix; a .json file may be one, too."""
    if options.format is not None:
        return options
    if str(file) == STANDARD:
        return replace(options, format="jsonl")
    kind = format_of(Path(file))
    if kind == "json":
        first = next((line for line in RawSource(str(file), Path(file), options).lines("\n") if line.strip()), "")
        with contextlib.suppress(ValueError, RecursionError):
            kind = "jsonl" if isinstance(json.loads(first), dict) else kind
    return replace(options, format="jsonl" if kind in (None, "txt") else kind)
