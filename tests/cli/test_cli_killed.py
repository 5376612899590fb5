"""The command line's death: kill -9 leaves what was there, or all of the new, never a half."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import QUERIES
from helpers.killed import Forks

from routelearn.data.sample import write_sample
from routelearn.routers.errors import BundleError
from routelearn.routers.loading import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as running:
        yield running


def test_kill_9_during_train_leaves_no_half_written_bundle(forks: Forks, tiny_encoder: Path, tmp_path: Path) -> None:
    """At every step of writing the bundle, where there is an older one and, by turns, where there is none."""
    write_sample(tmp_path / "sample", 400, seed=2)
    (tmp_path / "mf.toml").write_text("path_steps = 2\n")
    out, staging = tmp_path / "router", tmp_path / ".router"
    arguments: list[object] = ["train", "mf", "--data", tmp_path / "sample" / "performance.jsonl", "--out", out,
                               "--strong", "sim-max", "--weak", "sim-small", "--encoder", tiny_encoder,
                               "--config", tmp_path / "mf.toml", "--force"]  # fmt: skip
    code, steps = forks.run(arguments, staging)
    assert (code, steps >= 4) == (0, True)
    expected = load(out).score(QUERIES)
    code, steps_of_replacing = forks.run(arguments, staging)
    assert (code, steps_of_replacing >= steps) == (0, True)
    older = shutil.copytree(out, tmp_path / "older")
    for step in range(steps_of_replacing):
        shutil.rmtree(out, ignore_errors=True)
        replaces = step % 2 == 0 or step >= steps
        if replaces:
            shutil.copytree(older, out)
        assert forks.run(arguments, staging, kill_at=step) == (-signal.SIGKILL, step)
        try:
            scores = load(out).score(QUERIES)
        except BundleError:
            assert not replaces and not out.exists()
        else:
            assert np.array_equal(scores, expected)


def test_kill_9_during_score_leaves_no_half_written_output(forks: Forks, bundle: Path, tmp_path: Path) -> None:
    """Before the output is opened, in the middle of it, and before it gets its name."""
    source = tmp_path / "in.txt"
    source.write_text("".join(f"Prove lemma {i} step by step.\n" for i in range(30_000)))
    out, staging = tmp_path / "out.jsonl", tmp_path / ".out.jsonl"
    arguments: list[object] = ["score", bundle, source, "-o", out, "--force"]
    code, steps = forks.run(arguments, staging)
    assert (code, steps >= 2) == (0, True)
    expected = out.read_bytes()
    for step in range(steps):
        assert forks.run(arguments, staging, kill_at=step) == (-signal.SIGKILL, step)
        assert out.read_bytes() == expected  # what was there before
    out.unlink()
    for tenths in (1, 4, 7):
        assert forks.run(arguments, staging, kill_beyond=len(expected) * tenths // 10)[0] == -signal.SIGKILL
        assert not out.exists()
