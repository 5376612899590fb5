"""A million rows scored from file to file: the rate, the memory, and whether the output survives ten kills.

Run: python benchmarks/batch.py [ROWS]

The prompts are human arena prompts and MMLU questions from $ROUTELEARN_DATA, each with a number behind it. The router
is the one that benchmarks/drift.py trains. The comparison "in memory" scores the same texts from a list, in the same
chunks, in one process.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from common import bundle, say, write_section
from routellm_tables import ROUTERS, battles
from speed import prompts
from tokenizers import Tokenizer

from routelearn.data.scoring.engine import ROWS_PER_CHUNK
from routelearn.routers.loading import load

ROUNDS = 3
KILLS = 10


def write_rows(path: Path, texts: list[str], rows: int) -> None:
    """Rows with an id and a prompt, in row groups as pandas and datasets write them."""
    schema = pyarrow.schema([("id", pyarrow.int64()), ("prompt", pyarrow.string())])
    generator = np.random.default_rng(0)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 50_000):
            ids = range(start, min(start + 50_000, rows))
            chosen = generator.integers(0, len(texts), len(ids))
            content = [f"{texts[place]} ({number})" for place, number in zip(chosen, ids, strict=True)]
            writer.write_table(pyarrow.table([list(ids), content], schema=schema))


def run(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident MB of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:  # ru_maxrss would count this process too, from between fork and exec
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        peak = max(peak, int(found[1]) / 1024 if found else 0.0)
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return time.perf_counter() - started, peak


def in_memory(router: Path, source: Path) -> float:
    """Rows a second of a list that is there already."""
    loaded = load(router)
    texts = pyarrow.parquet.read_table(source, columns=["prompt"]).column(0).to_pylist()
    loaded.assess(texts[:ROWS_PER_CHUNK])
    started = time.perf_counter()
    for start in range(0, len(texts), ROWS_PER_CHUNK):
        loaded.assess(texts[start : start + ROWS_PER_CHUNK])
    return len(texts) / (time.perf_counter() - started)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def killed(command: list[str], out: Path, start: float, seconds: float) -> int:
    """Kill the command at random moments, ten times, then let it end: how many kills hit it at work."""
    generator, kills = random.Random(0), 0
    for _ in range(KILLS):
        process = subprocess.Popen([*command, str(out)], stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(start + generator.uniform(0, 0.1) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    run([*command, str(out)])
    return kills


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    router = bundle("drift-arena-mf", lambda out: ROUTERS["mf"](battles("arena"), out, 0))
    source_name, texts = prompts(Tokenizer.from_file(str(router / "tokenizer.json")))
    command = [sys.executable, "-m", "routelearn", "score", str(router)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, empty = folder / "rows.parquet", folder / "empty.parquet"
        write_rows(source, texts, rows)
        write_rows(empty, texts, 1)
        memory, whole, start, peak = [], [], [], 0.0
        for turn in range(ROUNDS):
            memory.append(in_memory(router, source))
            seconds, most = run([*command, str(source), "-o", str(folder / f"out{turn}")])
            whole.append(seconds)
            peak = max(peak, most)
            start.append(run([*command, str(empty), "-o", str(folder / f"empty{turn}")])[0])
            say(f"{memory[-1]:,.0f} rows/s in memory; {seconds:.1f} s in all, {start[-1]:.1f} of them to start")
        expected = contents(folder / "out0")
        part = [*command, str(source), "--rows-per-part", "50000", "-o"]
        run([*part, str(folder / "parts")])
        kills = killed(part, folder / "killed", float(np.median(start)), float(np.median(whole)))
        same = contents(folder / "killed") == contents(folder / "parts")
        again = all(contents(folder / f"out{turn}") == expected for turn in range(ROUNDS))
    rates = [rows / (w - s) for w, s in zip(whole, start, strict=True)]
    verdict = {True: "equal", False: "DIFFER"}
    ratios = [rows / (w - s) / m for w, s, m in zip(whole, start, memory, strict=True)]
    with_start = [rows / w / m for w, m in zip(whole, memory, strict=True)]
    lines = [
        f"{rows:,} rows of {source_name}, parquet to parquet with all columns, mf router, two cores; median of "
        f"{ROUNDS} rounds that take turns (lowest to highest).",
        "",
        "| what | |",
        "|---|---|",
        f"| in memory, rows/s | {_spread(memory, ',.0f')} |",
        f"| file to file, rows/s, without the start of the command | {_spread(rates, ',.0f')} |",
        f"| ratio in the same round | {_spread(ratios, '.2f')}; with the start {_spread(with_start, '.2f')} |",
        f"| whole command, s | {_spread(whole, '.1f')}, of which {_spread(start, '.1f')} to start |",
        f"| peak resident memory, MB | {peak:,.0f} |",
        f"| SIGKILL at {kills} random moments, then run to its end: bytes of this and of one run | {verdict[same]} |",
        f"| bytes of {ROUNDS} runs | {verdict[again]} |",
    ]
    write_section("A million rows", "python benchmarks/batch.py", lines)


def _spread(values: list[float], form: str) -> str:
    return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
