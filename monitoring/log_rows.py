"""Reads a decision log: its rows, and what was written of them later."""

from __future__ import annotations

import gzip
import json
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..routers.checks import as_number
from ..routers.errors import InputError

logger = logging.getLogger("routelearn.monitoring")

#: What the name of the second file adds to the path: it holds what was written of decisions of other processes.
OUTCOMES = ".outcomes"


def read_log(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read the rows of a log, oldest first, rotated files included, also where they were compressed (path.1.gz).

    The last outcome that was written for a request is the "outcome" of its row, also one in PATH.outcomes; outcomes of
    other ids are left out. What the calls of a request used is the list "usage" of its row. Broken lines (the process
    was killed while it wrote them) are left out, and their number is logged.

    Args:
        path: the path that `DecisionLog` was given.

    Raises:
        InputError: there is no such log.
    """
    files = rotated_files(path)
    if not files:
        raise InputError(f"there is no decision log at {path}")
    ids = {row["id"] for row in _rows(files) if _is_decision(row)}
    outcomes: list[dict[str, Any]] = []
    usage: dict[str, list[Any]] = {}
    for row in _rows([*rotated_files(f"{path}{OUTCOMES}"), *files]):
        if row["id"] not in ids:
            continue
        if "outcome" in row:
            outcomes.append(row)
        elif isinstance(row.get("usage"), Mapping):
            usage.setdefault(row["id"], []).append(row["usage"])
    return _joined(files, last_outcomes(outcomes), usage)


def rotated_files(path: str | Path) -> list[Path]:
    """The files of a rotated file that exist, oldest first: path.2, path.1, path; also path.2.gz."""
    path = Path(path)
    name = re.compile(re.escape(path.name) + r"\.([0-9]+)(\.gz)?")
    numbered = [
        (int(match[1]), file) for file in path.parent.glob("*") if (match := name.fullmatch(file.name)) is not None
    ]
    return [file for _, file in sorted(numbered, reverse=True)] + ([path] if path.is_file() else [])


def last_outcomes(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The outcome of each request: the last that was written, by its time; rows of equal times in their order.

    Args:
        rows: lines of outcomes, each with "id" and "outcome", mostly with "time".
    """
    return {row["id"]: row["outcome"] for row in sorted(rows, key=lambda row: as_number(row.get("time")))}


def _is_decision(row: Mapping[str, Any]) -> bool:
    return "outcome" not in row and "usage" not in row


def _joined(files: Sequence[Path], outcomes: Mapping[str, Any], usage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row in _rows(files, log_broken=True):
        if _is_decision(row):
            found = {name: of[row["id"]] for name, of in (("outcome", outcomes), ("usage", usage)) if row["id"] in of}
            yield {**row, **found}


def _rows(files: Sequence[Path], log_broken: bool = False) -> Iterator[dict[str, Any]]:
    broken = 0
    for file in files:
        for line in _lines(file, log_broken):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                broken += bool(line.strip())
                continue
            if isinstance(row, dict) and isinstance(row.get("id"), str):
                yield row
            else:
                broken += 1
    if broken and log_broken:
        logger.warning("%d broken lines of the decision log were left out", broken)


def _lines(file: Path, log_broken: bool) -> Iterator[str]:
    """The lines of a file; of a compressed file that is broken, those before the break."""
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8", errors="replace") as lines:
            yield from lines
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        if log_broken:
            logger.warning("%s is broken, and the rest of it is left out: %s", file, error)
