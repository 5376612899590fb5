"""Kill -9 a command while it writes: a process that has imported everything forks one child for each try."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

#: What changes a folder; opening a file counts when it is opened to write.
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate"}


class Forks:
    """Runs commands in forked children, which are killed at a step, or when so many bytes are written.

    A step is a change of a file or folder: one opened to write, made, renamed or removed. What is written between two
    steps may be in the file or still in a buffer, as at any kill.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "helpers.killed"],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def run(
        self, arguments: list[object], prefix: Path, *, kill_at: int | None = None, kill_beyond: int | None = None
    ) -> tuple[int, int]:
        """Run a command, and kill -9 it on the way or not at all.

        Args:
            arguments: what stands behind `routelearn` on the command line.
            prefix: changes of paths that begin like this are steps.
            kill_at: the step just before which the command is killed, from 0; None: at no step.
            kill_beyond: the command is killed when a file that begins like this has more bytes; None: never.

        Returns:
            The exit code (-9 of one that was killed), and how many steps it made.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        words = [str(argument) for argument in arguments]
        order = {"arguments": words, "prefix": str(prefix), "kill_at": kill_at, "kill_beyond": kill_beyond}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code, steps = json.loads(self._process.stdout.readline())
        return code, steps


def _run_and_count(arguments: list[str], prefix: str, kill_at: int | None, counts: int) -> None:
    from routelearn.cli.main import main

    def count(event: str, values: tuple[Any, ...]) -> None:
        changes = event in CHANGES or (event == "open" and bool(values[2] & (os.O_WRONLY | os.O_RDWR)))
        if not changes or not any(_begins(value, prefix) for value in values[:2]):
            return
        if os.fstat(counts).st_size == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(counts, b".")

    sys.addaudithook(count)
    sys.argv = ["routelearn", *arguments]
    main()


def _begins(path: object, prefix: str) -> bool:
    return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(prefix)


def _wait(child: int, prefix: Path, kill_beyond: int | None) -> int:
    """The status of a child that has ended; it is killed when a file has more bytes than it may."""
    while kill_beyond is not None and _largest(prefix) <= kill_beyond:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.001)
    if kill_beyond is not None:
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _largest(prefix: Path) -> int:
    sizes = [0]
    for path in prefix.parent.glob(prefix.name + "*"):
        with contextlib.suppress(FileNotFoundError):  # it may be renamed in the middle
            sizes.append(path.stat().st_size)
    return max(sizes)


def _serve() -> None:
    """Answer each line of stdin, a command, with its exit code and its steps."""
    for line in sys.stdin:
        order = json.loads(line)
        with Path("/dev/null").open("w") as nowhere:
            counts, modules = os.memfd_create("steps"), os.memfd_create("modules")
            child = os.fork()
            if child == 0:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
                code = 1
                try:
                    _run_and_count(order["arguments"], order["prefix"], order["kill_at"], counts)
                    code = 0
                except SystemExit as end:
                    code = int(end.code or 0)
                finally:
                    os.write(modules, "\n".join(sys.modules).encode())
                    os._exit(code)
            status = _wait(child, Path(order["prefix"]), order["kill_beyond"])
            sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), os.fstat(counts).st_size]) + "\n")
            sys.stdout.flush()
            # What the child imported, the next ones need too; importing starts no threads, which a fork would lose.
            for name in os.pread(modules, os.fstat(modules).st_size, 0).decode().split():
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
            os.close(counts)
            os.close(modules)


if __name__ == "__main__":
    _serve()
