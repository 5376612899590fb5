"""A real `routelearn label` in its own process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from helpers.quick import refuse_unless_slow
from helpers.serve import ROOT


class LabelServer:
    """`routelearn label` on a free port; it ends with the `with` block.

    Attributes:
        url: the address of the page.
        process: the process.
        log: the lines that the process wrote to stderr.
    """

    def __init__(self, answers: Path, out: Path, *options: str) -> None:
        refuse_unless_slow("starts a server")
        command = [sys.executable, "-m", "routelearn", "label", str(answers), "-o", str(out), *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ), cwd=ROOT)
        self.url = ""
        self.log: list[str] = []
        self._there = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._there.wait(60) or not self.url:
            self.process.kill()
            raise RuntimeError(f"the page does not start: {''.join(self.log)}")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            match = re.search(r"open (http://\S+)", line)
            if match:
                self.url = match[1]
                self._there.set()
        self._there.set()

    def __enter__(self) -> LabelServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal and wait: the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(10)
        return code
