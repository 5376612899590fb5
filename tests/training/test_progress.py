"""The progress of a training: plain lines in a log, one bar on a terminal, and no library's noise in either."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import verifier_config

from routelearn.data.sample import Sample
from routelearn.data.writers import write_records
from routelearn.training import progress
from routelearn.training.encoders import finetune as finetuning
from routelearn.training.progress import Bar, Lines, Nothing, Phase, display
from routelearn.training.verifier.train import train_verifier

LINE = re.compile(r"[a-z0-9][\w -]*(, (step|query|answer) \d+ of \d+)?, (\d+ s|\d+ min \d+ s)")
#: A command whose lines come often, so that a short training has some.
COMMAND = """
from routelearn.cli.main import main
from routelearn.training import progress
progress.LINE_EVERY = 0.05
main()
"""


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def line_of(phase: Phase) -> str:
    """A line about the phase, without the time."""
    stream = io.StringIO()
    shown = Lines(stream, 0.005)
    shown.show(phase)
    shown.start()
    while "\n" not in stream.getvalue():
        time.sleep(0.005)
    shown.stop()
    line = stream.getvalue().splitlines()[0]
    assert LINE.fullmatch(line)
    return line.rpartition(", ")[0]


def test_a_line_names_the_phase_the_step_and_the_time() -> None:
    assert line_of(Phase("fine-tuning", 10, done=3)) == "fine-tuning, step 3 of 10"
    assert line_of(Phase("vectors", 400, "query", 64)) == "vectors, query 64 of 400"
    assert line_of(Phase("export")) == "export"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59.9, "59 s"), (125, "2 min 5 s"), (7620, "2 h 7 min"), (90000, "25 h 0 min")]
)
def test_times_are_words(seconds: float, words: str) -> None:
    assert progress._duration(seconds) == words


def test_a_training_goes_on_when_nobody_reads_its_lines() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    shown = Lines(Closed(), 0.001)
    shown.start()
    shown._thread.join(10)
    assert not shown._thread.is_alive()
    shown.stop()


def test_a_bar_is_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Stream(terminal=True))
    assert isinstance(display(True), Bar) and isinstance(display(False), Nothing)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(display(True), Lines)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Stream(terminal=False))
    assert isinstance(display(True), Lines)
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(display(True), Nothing)


def test_all_phases_share_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Stream(terminal=True))
    bar = Bar()
    for phase in (Phase("probe", 10, done=10), Phase("fine-tuning", 20, done=5), Phase("export")):
        bar.show(phase)
    [task] = bar._progress.tasks
    assert task.description == "export"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["verifier", "bert"])
def test_a_log_of_a_training_holds_plain_lines_and_no_noise(
    recipe: str, tiny_bert: Path, sample: Sample, tmp_path: Path
) -> None:
    data = write_records(sample.performances, tmp_path / "data.jsonl")
    out, log = tmp_path / "bundle", tmp_path / "log"
    names = ["--strong", "sim-max", "--weak", "sim-small", "--encoder", tiny_bert, "--precision", "float32"]
    sizes = ["--max-tokens", 96, *(["--query-tokens", 32] if recipe == "verifier" else []), "--epochs", 1]
    end = ["--keep-anyway", *names, *sizes]
    command = [sys.executable, "-c", COMMAND, "train", recipe, "--data", data, "--out", out, *end]
    with log.open("w") as file:
        done = subprocess.run(list(map(str, command)), stderr=file, env={**os.environ, "FORCE_COLOR": "1"}, check=False)
    text = log.read_bytes().decode()
    assert done.returncode == 0, text
    assert "\r" not in text and "\x1b" not in text
    first, *others = text.splitlines()
    assert "performance records" in first
    shown = others[: next(number for number, line in enumerate(others) if line.startswith(f"wrote {out}"))]
    assert any(line.startswith("fine-tuning, step ") for line in shown)
    assert not [line for line in shown if not LINE.fullmatch(line)]


def test_the_same_seed_gives_the_same_verifier(tiny_bert: Path, sample: Sample, tmp_path: Path) -> None:
    config = verifier_config(tiny_bert, epochs=1, weak="sim-small", models=("sim-small",))
    hashes = []
    for run in ("first", "second"):
        path = train_verifier(sample.performances, tmp_path / run / "verifier", config)
        hashes.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()})
    assert hashes[0] == hashes[1] and "model.onnx" in hashes[0]


def padding(batches: list[list[bytes]]) -> int:
    """Bytes that bring each row of a batch to the length of its longest row."""
    return sum(len(max(batch, key=len)) - len(row) for batch in batches for row in batch)


def test_an_epoch_reads_every_training_answer_once_in_seeded_batches_of_like_length(
    tiny_bert: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = verifier_config(tiny_bert, epochs=1, evaluations=1, weak="sim-small", models=("sim-small",))
    sets: list[Any] = []
    batches: list[list[bytes]] = []
    data_set, collate = finetuning.QueryDataset, finetuning.collate

    def kept_set(*arguments: Any) -> Any:
        sets.append(data_set(*arguments))
        return sets[-1]

    def kept_batch(items: list[dict[str, Any]]) -> dict[str, Any]:
        batches.append([item["input_ids"].tobytes() for item in items])
        return collate(items)

    monkeypatch.setattr(finetuning, "QueryDataset", kept_set)
    monkeypatch.setattr(finetuning, "collate", kept_batch)
    runs = []
    for run in ("first", "second"):
        sets.clear(), batches.clear()
        train_verifier(sample.performances, tmp_path / run, config)
        training = [item["input_ids"].tobytes() for item in sets[0]]
        epoch = batches[: -(-len(training) // config.batch_size)]  # the validation at the end of the epoch follows
        assert sorted(row for batch in epoch for row in batch) == sorted(training)
        size = config.batch_size
        in_order = [training[first : first + size] for first in range(0, len(training), size)]
        assert padding(epoch) < padding(in_order) / 2
        runs.append(epoch)
    assert runs[0] == runs[1]
