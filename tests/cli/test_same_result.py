"""The same command gives the same bytes, whatever the hash seed and the number of threads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from routelearn.data.sample import generate_sample
from routelearn.data.writers import write_records

PAIR = ("--strong", "sim-max", "--weak", "sim-small")
CHECKED = ("--data", "test.jsonl", "--train", "train.jsonl", "--drop-leaks")
#: What a run measures of the machine, not of the data.
MACHINE = re.compile(r'"(seconds|modified_ns|date|at|manifest_sha256)": [^,\n}]+|\d+\.\d ms for each answer')
SCRIPT = """
import json, sys
from routelearn.cli.main import app
for command in json.load(sys.stdin):
    print("$", *command, flush=True)
    app(command, standalone_mode=False)
"""


def commands(encoder: Path, verifier: Path) -> list[list[str]]:
    train = ["--data", "train.jsonl", *PAIR, "--encoder", str(encoder)]
    return [
        ["data", "sample", "sample", "--queries", "300"],
        ["data", "validate", "test.jsonl"],
        ["data", "convert", "train.jsonl", "preferences.jsonl.csv", "--dedupe"],
        ["train", "mf", *train, "-o", "mf", "--config", "mf.toml"],
        ["train", "similarity", *train, "-o", "similarity"],
        ["extend", "similarity", "--data", "more.jsonl", "-o", "extended"],
        ["inspect", "mf"],
        ["evaluate", "mf", "similarity", "rules", *CHECKED, "--bootstrap", "20", "-o", "report"],
        ["calibrate", "mf", "--data", "sample/queries.txt", "--strong-share", "0.3", "-o", "share"],
        ["calibrate", "mf", *CHECKED, "--max-quality-loss", "0.2", "-o", "loss", "--report", "calibration"],
        ["score", "mf", "sample/queries.txt", "-o", "scored.csv", "--strong-share", "0.3"],
        ["score", "mf", "sample/queries.txt", "-o", "parts"],
        ["route", "mf", "Prove that the square root of 2 is irrational."],
        ["cascade-plan", "--verifier", str(verifier), "--router", "mf", *CHECKED, "--prices", "sample/pool.json",
         "--bootstrap", "10", "-o", "plan"],
    ]  # fmt: skip


@pytest.mark.slow
def test_no_command_depends_on_the_hash_seed_or_the_threads(
    tiny_encoder: Path, verifier_bundle: Path, tmp_path: Path
) -> None:
    sample = generate_sample(500, seed=7)
    tested = [record for record in sample.performances if record.split == "test"]
    trained = [record for record in sample.performances if record.split != "test"]
    jobs: list[tuple[Path, subprocess.Popen[str]]] = []
    for seed, threads in (("0", "1"), ("4711", "1"), ("0", "2")):
        folder = tmp_path / f"{seed}-{threads}"
        folder.mkdir()
        # Some prompts were trained on, so that some are left out.
        write_records([*trained, *tested[:80]], folder / "train.jsonl")
        write_records(tested, folder / "test.jsonl")
        write_records(generate_sample(60, seed=8).performances, folder / "more.jsonl")
        (folder / "mf.toml").write_text("path_steps = 3\n")
        jobs.append((folder, _start(folder, seed, threads)))
    words = json.dumps(commands(tiny_encoder, verifier_bundle))
    with ThreadPoolExecutor(len(jobs)) as pool:
        said = list(pool.map(lambda job: job[1].communicate(words), jobs))
    first, other_seed, other_threads = (
        _outputs(folder, process, texts) for (folder, process), texts in zip(jobs, said, strict=True)
    )
    assert len(first) > 30
    assert list(first) == list(other_seed) == list(other_threads)
    assert [name for name in first if first[name] != other_seed[name]] == []
    assert [name for name in first if first[name] != other_threads[name]] == []


def _start(folder: Path, seed: str, threads: str) -> subprocess.Popen[str]:
    variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **variables, "PYTHONHASHSEED": seed, "COLUMNS": "150"},
        cwd=folder,
        text=True,
    )


def _outputs(folder: Path, process: subprocess.Popen[str], said: tuple[str, str]) -> dict[str, bytes]:
    """What the commands printed and wrote, by file."""
    assert process.returncode == 0, said[1]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".png"]
    written = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {
        name: _replaced(content, MACHINE)
        for name, content in {"stdout": said[0].encode(), "stderr": said[1].encode(), **written}.items()
    }


def _replaced(content: bytes, pattern: re.Pattern[str], by: Callable[[re.Match[str]], str] = lambda _: "") -> bytes:
    try:
        return pattern.sub(by, content.decode()).encode()
    except UnicodeDecodeError:  # a graph, or a parquet file
        return content
