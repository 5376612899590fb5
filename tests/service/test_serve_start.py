"""`routelearn serve` heeds an operator's signals also while it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers.serve import ROOT, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def starting(bundle: Path) -> Iterator[subprocess.Popen[str]]:
    """A service that loads its bundle for trial; it does not serve yet."""
    command = [sys.executable, "-m", "routelearn", "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        wait_for(psutil.Process(process.pid).children)
        yield process
        process.kill()


def test_a_service_that_starts_ends_on_sigterm_with_code_0(starting: subprocess.Popen[str]) -> None:
    """With a handler: the first process of a container, which the kernel spares without one, ends as well."""
    os.kill(starting.pid, signal.SIGTERM)
    _, log = starting.communicate(timeout=60)
    assert starting.returncode == 0, log
    assert "Traceback" not in log


def test_a_service_that_starts_outlives_sighup(starting: subprocess.Popen[str]) -> None:
    os.kill(starting.pid, signal.SIGHUP)
    assert starting.stderr is not None
    assert any("serving at http://" in line for line in starting.stderr)
    assert starting.poll() is None
