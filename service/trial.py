"""Loads a bundle for trial, in a process of its own with limits, before a service loads it.

A graph is a program, and a tokenizer holds regular expressions: both can take for ever, fill the memory, or end the
process that loads them. In the process of the trial this harms nobody.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from ..routers import errors
from ..routers.base import Router
from ..routers.errors import BundleError, InputError
from ..routers.golden import GOLDEN_QUERIES

#: The address space of a trial: so many bytes, and so many times the size of the bundle.
BASE_BYTES, TIMES_SIZE = 2 << 30, 8
#: Seconds that starting a process may take beyond the limit.
_START_S = 5
#: One thread for each library, and few arenas: threads that a trial does not need would take address space.
_FEW_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


class BundleTrial:
    """Loads the bundle at a path, and routes fixed queries, in a process of its own.

    Example:
        >>> from routelearn.service.trial import BundleTrial
        >>> trial = BundleTrial("router/", timeout_s=60)
        >>> trial.run()  # doctest: +SKIP
    """

    def __init__(self, path: str | Path, *, timeout_s: float) -> None:
        """Set what is tried.

        Args:
            path: a bundle folder.
            timeout_s: seconds that a trial may take.

        Raises:
            InputError: timeout_s is not above 0.
        """
        if not (timeout_s > 0 and math.isfinite(timeout_s)):
            raise InputError(f"the time limit for loading a bundle is {timeout_s}; expected seconds above 0")
        self._path = str(path)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    def start(self) -> None:
        """Start a trial; `run` waits for it."""
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "routelearn.service.trial", self._path, str(self._timeout_s)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**os.environ, **_FEW_THREADS},
                )

    def run(self) -> None:
        """Wait for the trial that was started, or for a new one.

        Raises:
            BundleError: the bundle does not load, takes too long, or ends its process.
            InputError: it is not a router's bundle.
        """
        self.start()
        process = self._process
        assert process is not None
        try:
            said, complaints = process.communicate(timeout=self._timeout_s + _START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            said, complaints = b"", b""
        finally:
            self._process = None
        if process.returncode == 0:
            return
        raise self._error(process.returncode, said, complaints)

    def stop(self) -> None:
        """End the trial that runs, if one does."""
        process = self._process
        if process is not None:
            process.kill()

    def _error(self, code: int, said: bytes, complaints: bytes) -> Exception:
        if said:
            name, message = json.loads(said)
            kind = getattr(errors, name, None)
            if isinstance(kind, type) and issubclass(kind, (BundleError, InputError)):
                return kind(message)
            return BundleError(f"{self._path} does not load: {name}: {message}")
        if code in {-signal.SIGKILL, -signal.SIGALRM}:
            return BundleError(
                f"{self._path} did not load within {self._timeout_s:g} s; expected a bundle that loads sooner"
            )
        last = complaints.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return BundleError(f"loading {self._path} ended its process ({ended}{f': {last}' if last else ''})")


def _limit(path: str, timeout_s: float) -> None:
    """Limit this process: by the clock, also when its parent died, and by its address space."""
    import resource

    signal.setitimer(
        signal.ITIMER_REAL, timeout_s
    )  # without a handler, it ends the process in the middle of native code
    try:
        size = sum(file.stat().st_size for file in Path(path).iterdir())
    except OSError:  # loading says what is wrong
        size = 0
    most = BASE_BYTES + TIMES_SIZE * size
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    adjustment = Path("/proc/self/oom_score_adj")
    if adjustment.exists():  # when memory ends all the same, this process ends first
        adjustment.write_text("1000")


def _load(path: str) -> Router:
    from ..routers.loading import load

    router = load(path)
    router.route_batch(GOLDEN_QUERIES)
    return router


def main() -> int:
    """Load the bundle that the command line names; on an error print its type and message as JSON."""
    path, timeout_s = sys.argv[1], float(sys.argv[2])
    if sys.platform != "win32":
        _limit(path, timeout_s)
    try:
        _load(path)
    except Exception as error:  # noqa: BLE001 - whatever a stranger's bundle makes fail
        sys.stdout.write(json.dumps([type(error).__name__, str(error)]))
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # at once: no library gets to tidy up
