"""Tells whether a file is opened, by whatever code: inotify sees what native libraries open, too."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_OPEN = 0x20


class OpenWatch:
    """Watches one file, as ``with OpenWatch(path) as watch: ...; watch.opened()`` (Linux only)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> OpenWatch:
        library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        added = library.inotify_add_watch(self._descriptor, os.fsencode(self._path), _OPEN)
        assert self._descriptor >= 0 and added >= 0, os.strerror(ctypes.get_errno())
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    def opened(self) -> bool:
        """Whether the file was opened since the last call."""
        try:
            return bool(os.read(self._descriptor, 1 << 16))
        except BlockingIOError:
            return False
