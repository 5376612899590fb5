"""Read the files of a bundle's folder without trusting it, and replace the folder as a whole.

A file is opened without following a symbolic link and without waiting at a pipe, and its size is bounded. A folder is
written beside its final place and renamed, so that its name never holds half of a bundle.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .errors import BundleCorruptError, BundleMissingError

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
        _swap(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap(staging: Path, final: Path) -> None:
    """Rename staging to final. A folder with content cannot be overwritten, so that it moves aside first."""
    if not final.exists():
        staging.rename(final)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".old", dir=final.parent))
    final.rename(aside / final.name)
    try:
        staging.rename(final)
    except OSError:
        (aside / final.name).rename(final)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
