"""A file to which each paid answer is added as it comes, so that a run that is killed loses nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ..routers.errors import InputError, require

_VERSION = 1


class Journal:
    """Lines of JSON, each with a key. The first line says what job they belong to.

    A line is on the disk when `add` returns. A run that is killed leaves at most one torn line, the last one, which
    the next run cuts off. Only one process at a time may write.

    Attributes:
        path: the file.
        entries: the lines that are there, by key; the last line of a key counts.

    Example:
        >>> from routelearn.labelling import Journal
        >>> with Journal("answers.journal", job="collect") as journal:
        ...     journal.add("a1", {"text": "144"})
        >>> with Journal("answers.journal", job="collect") as journal:
        ...     journal.entries["a1"]["text"]
        '144'
    """

    def __init__(self, path: str | Path, job: str) -> None:
        """Open a journal, or begin one.

        Args:
            path: the file.
            job: what the lines are; a journal of another job is refused.

        Raises:
            InputError: the file is another job's or no journal, or another process writes to it.
        """
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise InputError(f"{self.path.parent} is not a folder; expected an existing folder for {self.path.name}")
        self._lock = _locked(self.path)
        self._file = self.path.open("a+b", buffering=0)
        try:
            self.entries = dict(self._read(job))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, key: str, entry: Mapping[str, Any]) -> None:
        """Add a line and wait until the disk has it.

        Raises:
            OSError: the disk did not take it; the journal is as before.
        """
        content = {"key": key, **entry}
        self._write(content)
        self.entries[key] = content

    def close(self) -> None:
        """Close the file, and let other processes write."""
        self._file.close()
        self._lock.release()

    def _write(self, content: Mapping[str, Any]) -> None:
        # Escapes keep lone surrogates, which UTF-8 cannot hold.
        line = json.dumps(content, ensure_ascii=True).encode("ascii") + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) or 0 :]
            os.fsync(self._file.fileno())
        except OSError:  # a full disk took a part of the line, which must not stand before the next one
            self._file.truncate(end)
            raise

    def _read(self, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):  # the line that a killed run was writing
            self._file.truncate(whole)
        lines = content[:whole].splitlines()
        if not lines:
            self._write({"journal": job, "version": _VERSION})
            return
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                known = entry.get("journal") if number == 1 else entry["key"]
            except (ValueError, KeyError, TypeError, AttributeError):
                raise InputError(
                    f"{self.path}, line {number} is no line of a journal; expected a journal of routelearn {job}, or "
                    "no such file"
                ) from None
            if number > 1:
                yield known, entry
            elif known != job or entry.get("version") != _VERSION:
                raise InputError(
                    f"{self.path} is a journal of {known!r}, version {entry.get('version')!r}; expected one of "
                    f"{job!r}, version {_VERSION}, or another output"
                )


def _locked(path: Path) -> Any:
    """A lock that this process holds until it ends, however it ends.

    Raises:
        InputError: another process holds it.
    """
    filelock: Any = require("filelock", "labels")
    lock = filelock.FileLock(f"{path}.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise InputError(f"another process writes to {path}; expected one at a time") from None
    return lock


def entries_of(out: str | Path, job: str) -> dict[str, dict[str, Any]]:
    """The lines of the journal beside an output, by key; none where there is no journal yet, and none is begun.

    Raises:
        InputError: it is another job's, or another process writes to it.
    """
    path = journal_of(out)
    if not path.exists():
        return {}
    with Journal(path, job) as journal:
        return journal.entries


def journal_of(out: str | Path) -> Path:
    """The journal beside an output: "answers.parquet" has "answers.parquet.journal"."""
    return Path(f"{out}.journal")
