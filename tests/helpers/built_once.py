"""What is slow to make is made once, by the first process that asks for it; the others wait for it."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path


def built_once(folder: Path, build: Callable[[Path], object], key: str = "") -> Path:
    """The folder, after `build` has filled it once for all processes.

    A process that is killed while it builds leaves no mark, so the next one starts from nothing.

    Args:
        folder: what is built; every process names the same one. It lies in a folder of its own, so that what training
            leaves beside a bundle lies there too.
        build: gets `folder`, which does not exist, and makes it.
        key: what the folder is made from; a folder made from something else is built anew.
    """
    home = folder.parent
    mark = home.with_name(home.name + ".built")
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name(home.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (mark.is_file() and mark.read_text() == key):
            mark.unlink(missing_ok=True)
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            build(folder)
            mark.write_text(key)
    return folder
