"""The command line, in this process or in one of its own, and queries for it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from unittest.mock import patch

from routelearn.cli.main import main

QUERIES = ["Prove it step by step.", "Say hello to Ana.", "", "Translate 'library' into Dutch.", "🙂 \x85 naïve"]
COMMAND = [sys.executable, "-m", "routelearn"]


def run(*arguments: object, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What the installed command does, in this process: importing torch once, not for every command.

    Args:
        arguments: what stands behind `routelearn` on the command line.
        stdin: what the command reads from its standard input.
        cwd: the folder that the command runs in.

    Returns:
        The exit code and what was written, as of a process.
    """
    words = ["routelearn", *map(str, arguments)]
    read = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    code: object = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(sys, "argv", words))
        stack.enter_context(patch.object(sys, "stdin", read))
        stack.enter_context(patch.dict(os.environ))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.callback(os.chdir, Path.cwd())
        for number in (signal.SIGTERM, signal.SIGHUP):  # `serve` handles them before it refuses a bundle
            stack.callback(signal.signal, number, signal.getsignal(number))
        os.chdir(cwd or Path.cwd())
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except Exception:  # noqa: BLE001 - as the interpreter does: a traceback, and the code 1
            traceback.print_exc()
            code = 1
    written = []
    for stream in (out, err):
        stream.flush()
        written.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(words, code if isinstance(code, int) else 1, *written)


def run_process(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, for what the process itself matters to: pipes, exit codes, tracebacks."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=300, check=False
    )
