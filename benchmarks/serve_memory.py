"""Memory of the HTTP service with a bundle: at rest, under load, and while it loads the bundle again.

Run: python benchmarks/serve_memory.py BUNDLE ...
The figures are PSS (what the processes would free) of the service and of the process that tries a bundle, in MB: the
largest of looks every 10 ms. Load is 8 callers, who send 1,024 short queries or 10 queries of 90,000 characters. It
needs Linux.
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from common import ROOT, say

from routelearn.data.sample import generate_sample

sys.path.insert(0, str(ROOT / "tests"))
from helpers.serve import ADMIN, Server

SHORT = [query for query in generate_sample(1500, seed=0).queries if isinstance(query, str)][:1024]
LONG = [" ".join(SHORT * 20)[:90_000]] * 10
REQUESTS, CALLERS, RELOADS = 64, 8, 5


class Peak:
    """The largest PSS of a process and its children in each phase, bytes."""

    def __init__(self, process: int) -> None:
        self.phase, self.most = "", dict[str, int]()
        self._process = psutil.Process(process)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            total = 0
            for one in [self._process, *self._process.children()]:
                try:
                    total += one.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):  # a trial that has ended meanwhile
                    continue
            self.most[self.phase] = max(self.most.get(self.phase, 0), total)


def measure(bundle: Path) -> dict[str, float]:
    """MB in each phase."""
    with Server(bundle, ROUTELEARN_ADMIN_TOKEN=ADMIN) as server:
        time.sleep(1)
        peak = Peak(server.process.pid)
        peak.phase = "rest"
        time.sleep(1)
        peak.phase = "load"
        with ThreadPoolExecutor(CALLERS) as pool:
            bodies = [{"queries": LONG if number % 2 else SHORT} for number in range(REQUESTS)]
            statuses = {status for status, _ in pool.map(lambda body: server.ask("/v1/route", body), bodies)}
        if statuses != {200}:
            raise RuntimeError(f"the service answered {statuses}")
        for number in range(RELOADS):
            peak.phase = f"reload {number + 1}"
            server.ask("/v1/reload", method="POST", token=ADMIN)
        peak.phase = "after reloads"
        time.sleep(1)
        peak.end()
        return {phase: round(most / 1e6) for phase, most in peak.most.items() if phase}


for name in sys.argv[1:]:
    size = sum(file.stat().st_size for file in Path(name).iterdir()) / 1e6
    say(f"{name}, {size:.1f} MB on disk: {measure(Path(name))}")
