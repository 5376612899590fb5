"""The command line's death: kill -9 leaves what was there, or all of the new, never a half."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from helpers.cli import COMMAND, QUERIES, run

from routelearn.data.sample import write_sample
from routelearn.routers.errors import BundleError
from routelearn.routers.learned import load


def kill_at(arguments: list[object], delay: float) -> float | None:
    """Start a command, kill -9 it after a delay; None, or the seconds it took if it ended before."""
    started = time.monotonic()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(delay)
        return time.monotonic() - started
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def kill_near_the_end(
    arguments: list[object], seconds: float, prepare: Callable[[int], object], check: Callable[[], object]
) -> None:
    """Kill a command that takes some seconds five times, prepared and checked each time."""
    killed = 0
    for step in range(5):
        prepare(step)
        # Dense at the end of the run, where the output is written.
        ended = kill_at(arguments, seconds * (0.5 + 0.11 * step))
        killed += ended is None
        seconds = ended or seconds  # it was too late: the machine was busier before
        check()
    assert killed >= 2


def test_kill_9_during_train_leaves_no_half_written_bundle(tiny_encoder: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "sample", 400, seed=2)
    out = tmp_path / "router"
    arguments: list[object] = ["train", "mf", "--data", tmp_path / "sample" / "performance.jsonl", "--out", out,
                               "--strong", "sim-max", "--weak", "sim-small", "--encoder", tiny_encoder]  # fmt: skip
    started = time.monotonic()
    assert run(*arguments).returncode == 0
    whole = time.monotonic() - started
    expected = load(out).score(QUERIES)

    def check() -> None:
        try:
            scores = load(out).score(QUERIES)
        except BundleError:
            assert not out.exists()
        else:
            assert np.array_equal(scores, expected)

    kill_near_the_end(arguments, whole, lambda step: step % 2 and shutil.rmtree(out, ignore_errors=True), check)


def test_kill_9_during_score_leaves_no_half_written_output(bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("".join(f"Prove lemma {i} step by step.\n" for i in range(150_000)))
    out = tmp_path / "out.jsonl"
    arguments: list[object] = ["score", bundle, source, "-o", out]
    started = time.monotonic()
    assert run(*arguments).returncode == 0
    whole = time.monotonic() - started
    expected = out.read_bytes()

    def check() -> None:
        assert not out.exists() or out.read_bytes() == expected

    kill_near_the_end(arguments, whole, lambda step: out.unlink(missing_ok=True), check)
