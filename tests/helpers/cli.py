"""The command line in a second process, and queries for it."""

from __future__ import annotations

import subprocess
import sys

QUERIES = ["Prove it step by step.", "Say hello to Ana.", "", "Translate 'library' into Dutch.", "🙂 \x85 naïve"]
COMMAND = [sys.executable, "-c", "from routelearn.cli.main import main; main()"]


def run(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=300, check=False
    )
