"""Nothing is sent unasked: a process with a clean HOME, and without the variables by which libraries know a CI, writes
nothing there. (onnxruntime writes a device id and a queue of events, and sends them some 20 s later.)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "version-3"
KEPT = {"PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT"}


def files_written(home: Path, *command: str, **variables: str) -> list[str]:
    """What a Python process writes into a clean HOME."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT}
    environment = {**kept, "PYTHONDONTWRITEBYTECODE": "1", **variables, "HOME": str(home)}
    subprocess.run([sys.executable, *command], env=environment, check=True, capture_output=True, timeout=120)
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "command",
    [
        ("-c", f"import routelearn; routelearn.load({str(BUNDLE)!r}).score(['hi'])"),
        ("-c", f"from routelearn.routers.fallback import FallbackRouter; FallbackRouter({str(BUNDLE)!r}).route('hi')"),
        ("-c", f"import routelearn.routers.loading as m, onnxruntime; m.load({str(BUNDLE)!r})"),
        ("-m", "routelearn", "route", str(BUNDLE), "hi"),
        ("-m", "routelearn.cli", "route", str(BUNDLE), "hi"),
    ],
)
def test_a_clean_home_stays_empty(command: tuple[str, ...], tmp_path: Path) -> None:
    assert files_written(tmp_path, *command) == []


def test_who_asks_for_telemetry_gets_it(tmp_path: Path) -> None:
    code = "import os, routelearn; print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['RAY_USAGE_STATS_ENABLED'])"
    asked = {**os.environ, "ORT_DISABLE_TELEMETRY": "0", "RAY_USAGE_STATS_ENABLED": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=asked, check=True, capture_output=True, text=True)
    assert done.stdout == "0 1\n"
