"""The training log: metrics.jsonl, written step by step, the progress on stderr, and a curve at the end."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import TracebackType
from typing import Any

from ..routers.errors import InputError, require
from .progress import Phase, display

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
CURVE = "curve.png"


def training_folder(out: Path) -> Path:
    """The folder beside a bundle that holds its log, its curve and its checkpoints."""
    return out.with_name(out.name + ".training")


def check_training_folder(out: Path) -> None:
    """Refuse a bundle whose training folder cannot be made.

    Raises:
        InputError: a file has its name.
    """
    folder = training_folder(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder for the log of the training, or no such path")


class TrainingLog:
    """Writes the metrics of a training run to a folder and shows its progress on stderr.

    Use it as a context manager. Each step is written to ``metrics.jsonl`` at once, so that a run that was killed still
    tells how far it came.
    """

    def __init__(self, folder: Path, *, show_progress: bool, resume: bool = False) -> None:
        """Start an empty log in a folder, which is made; with `resume` go on with the log that is there."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        file = folder / METRICS
        resume = resume and file.is_file()
        self.steps: list[dict[str, Any]] = [json.loads(line) for line in file.open()] if resume else []
        self._file = file.open("a" if resume else "w", encoding="utf-8")
        self._display = display(show_progress)

    def __enter__(self) -> TrainingLog:
        """Show the progress."""
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show no more progress, and close the file."""
        self._display.stop()
        self._file.close()

    def phase(self, description: str, total: int | None = None, unit: str = "step") -> Phase:
        """Begin a phase of `total` steps, each of which is a `unit`; returns what `advance` takes."""
        phase = Phase(description, total, unit)
        self._display.show(phase)
        return phase

    def advance(self, phase: Phase, count: int = 1, *, done: bool = False) -> None:
        """Count steps of a phase as done; with `done` the phase ends early."""
        if done:
            phase.total = phase.done
        else:
            phase.done += count
        self._display.show(phase)

    def step(self, **metrics: Any) -> None:
        """Write one line of metrics."""
        self.steps.append(metrics)
        self._file.write(json.dumps(metrics) + "\n")
        self._file.flush()

    def curve(self, x: str, title: str, baseline: float | None = None) -> Path:
        """Draw the training and validation log loss (nats) of the steps against their metric `x`; the picture."""
        require("matplotlib", "train")
        from matplotlib.figure import Figure

        rows = [step for step in self.steps if x in step and "validation_log_loss" in step]
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.plot([row[x] for row in rows], [row["train_log_loss"] for row in rows], "o-", label="training")
        axes.plot([row[x] for row in rows], [row["validation_log_loss"] for row in rows], "o-", label="validation")
        if baseline is not None:
            axes.axhline(baseline, color="grey", linestyle="--", label="global ranking (validation)")
        best = min(rows, key=lambda row: row["validation_log_loss"])
        axes.axvline(best[x], color="black", linestyle=":", label=f"chosen: {best[x]:.3g}")
        if x == "l2":  # a path goes from strong penalties to weak ones
            axes.set_xscale("log")
            axes.invert_xaxis()
        axes.set(xlabel=x.replace("_", " "), ylabel="log loss (nats)", title=title)
        axes.legend()
        path = self.folder / CURVE
        figure.savefig(path, dpi=110, metadata={"Software": None})
        return path
