"""A file of lines that is rotated by size, and that survives whatever others do to it."""

from __future__ import annotations

import logging
import logging.handlers
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger("routelearn.monitoring")


class RotatedFile(logging.handlers.RotatingFileHandler):
    """A rotated file that only its owner can read, and that is opened again when somebody moves or removes it.

    `write` takes the place of `emit`, which makes a record for each line: 40 us a line.
    """

    def __init__(self, path: Path, max_bytes: int, backups: int, flush_every: int, delay: bool = False) -> None:
        self._flush_every, self._torn = flush_every, False
        self._held: list[bytes] = []
        self.written = self.failed = 0
        super().__init__(path, maxBytes=max_bytes, backupCount=backups, delay=delay)

    def _open(self) -> Any:
        # Without a buffer: what a failed write did not bring to the disk must not come there later.
        stream = open(self.baseFilename, "ab", buffering=0, opener=_private)  # noqa: SIM115 - the handler closes it
        found = os.fstat(stream.fileno())
        self._size, self._identity = found.st_size, (found.st_dev, found.st_ino)
        return stream

    def write(self, line: str) -> None:
        """Append a line of ASCII text."""
        self._held.append(f"{line}\n".encode("ascii"))
        if len(self._held) >= self._flush_every:
            self.flush()

    def flush(self) -> None:
        """Write the lines that are held, and count them."""
        lines, self._held = self._held, []
        if not lines:
            return
        first, before = not self.failed, self.written
        try:
            self._find()
            start, size = 0, self._size
            for number, line in enumerate(lines):
                if size and size + len(line) > self.maxBytes:
                    self._append(lines[start:number])
                    start = number
                    self.doRollover()
                    size = 0
                size += len(line)
            self._append(lines[start:])
        except OSError:
            self.failed += len(lines) - (self.written - before)
            if first:
                logger.exception("the decision log cannot be written; requests go on, failures are counted")

    def _find(self) -> None:
        """Open the file at the path, unless it is the open one still: it may have been moved or removed."""
        if self.stream is not None:
            try:
                found = os.stat(self.baseFilename)  # noqa: PTH116 - half the time of Path.stat
            except FileNotFoundError:
                found = None
            if found is not None and (found.st_dev, found.st_ino) == self._identity:
                self._size = found.st_size  # it may have been truncated
                return
            self.stream.close()
            self.stream, self._torn = None, False
        self.stream = self._open()

    def _append(self, lines: Sequence[bytes]) -> None:
        # A failed write may have left half a line, which must not spoil the next line.
        data = b"\n" * self._torn + b"".join(lines)
        self._torn = True
        if self.stream is None:  # after a rotation
            self.stream = self._open()
        stream: Any = self.stream
        while data:
            data = data[stream.write(data) :]
        self._torn = False
        self.written += len(lines)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
