"""Read the files of a bundle's folder without trusting it, and replace the folder as a whole.

A file is opened without following a symbolic link and without waiting at a pipe, and its size is bounded. A folder is
written beside its final place, and then the two are exchanged, so that its name always holds one whole bundle. A file
system that cannot exchange takes two renames. Between them, and after a process that died there, the older folder lies
aside, and readers find it there.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from .errors import BundleCorruptError, BundleError, BundleMissingError

T = TypeVar("T")

#: How often a folder is read again when it was replaced meanwhile.
_TRIES = 20
#: Linux: paths are relative to the working directory; two names change places.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2

# The flags are 0 where the system lacks them.
_FLAGS: int = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_file(path: Path, most_bytes: int, *, follow_links: bool = False) -> bytes:
    """The bytes of a regular file.

    Args:
        path: the file.
        most_bytes: a larger file is refused, unread.
        follow_links: the file may be a symbolic link.

    Raises:
        BundleMissingError: there is no such file.
        BundleCorruptError: it is a symbolic link, it is not a regular file, it is too large, or it cannot be read.
    """
    path = path.resolve() if follow_links else path
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError as error:
        raise BundleMissingError(f"{path} is missing") from error
    except OSError as error:
        what = "is a symbolic link; a bundle holds its own files" if path.is_symlink() else f"cannot be read: {error}"
        raise BundleCorruptError(f"{path} {what}") from error
    status = os.fstat(descriptor)
    if path.is_symlink() or not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise BundleCorruptError(f"{path} is not a regular file; expected regular files only")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > most_bytes:
            raise BundleCorruptError(f"{path} has {status.st_size:,} bytes; expected at most {most_bytes:,}")
        try:
            # One byte more than there is tells a file that grows. (A buffer of most_bytes would be 2 GiB.)
            data = file.read(status.st_size + 1)
        except (OSError, MemoryError) as error:
            raise BundleCorruptError(f"{path} cannot be read: {error!r}") from error
        if len(data) > status.st_size:
            raise BundleCorruptError(f"{path} grew while it was read; expected a bundle that nobody writes to")
        return data


def read_whole(folder: Path, read: Callable[[Path], T]) -> T:
    """Read a folder that may be replaced at any time: all of the older one, or all of the newer one.

    Args:
        folder: the folder, as `write_folder` writes it.
        read: reads a folder; it raises a BundleError when the files do not belong together.

    Raises:
        BundleError: `read` raised it, and the folder was not replaced meanwhile.
    """
    for _ in range(_TRIES):
        before = _state(folder)
        aside = _set_aside(folder) if before is None else None
        try:
            return read(aside or folder)
        except BundleError:
            if aside is None and _state(folder) == before:
                raise
    return read(folder)


def _state(folder: Path) -> tuple[int, int, int] | None:
    """What another folder of this name would have otherwise; None: there is none."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _set_aside(folder: Path) -> Path | None:
    """Where the older folder lies between the two renames of a replacement; None: nowhere."""
    found = (aside / folder.name for aside in _asides(folder))
    return next((older for older in found if older.is_dir()), None)


def _asides(folder: Path) -> list[Path]:
    start, end = f".{folder.name}.", ".old"
    try:
        return sorted(path for path in folder.parent.iterdir() if path.name.startswith(start) and path.suffix == end)
    except OSError:
        return []


def write_folder(final: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder, which takes the place of the folder that is there, all files at once.

    Args:
        final: the folder; its parents are made.
        contents: the bytes of each file, by its name.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent))
    try:
        for name, data in contents.items():
            with (staging / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        staging.chmod(0o755)
        _replace(staging, final)
    finally:
        _remove(staging)
    for aside in _asides(final):  # of a process that died between its two renames
        _remove(aside)


def _replace(staging: Path, final: Path) -> None:
    """Let staging be at final; what was at final is at staging, or is removed."""
    if not os.path.lexists(final):
        staging.rename(final)
    elif not _exchange(staging, final):
        _swap(staging, final)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; return whether this system and this file system can."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # no Linux, or an old C library
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _swap(staging: Path, final: Path) -> None:
    """Rename staging to final. A folder with content cannot be overwritten, so that it moves aside first."""
    aside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".old", dir=final.parent))
    try:
        final.rename(aside / final.name)
        staging.rename(final)
    except BaseException:
        if not os.path.lexists(final):
            (aside / final.name).rename(final)
        raise
    finally:
        _remove(aside)


def _remove(path: Path) -> None:
    """Remove a folder with all that is in it, or a link."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
