"""What a training run is doing, on stderr: one bar on a terminal, and a plain line every few seconds in a log."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

#: Seconds between two lines.
LINE_EVERY = 5.0


@dataclass
class Phase:
    """A part of a training run, as far as it is done.

    Attributes:
        description: what is done.
        total: number of steps; None where it is not known.
        unit: what a step is ("step", "query").
        done: number of steps that are done.
    """

    description: str
    total: int | None = None
    unit: str = "step"
    done: int = 0

    def __str__(self) -> str:
        """As a line of a log names it: "fine-tuning, step 3 of 10"."""
        return (
            self.description if self.total is None else f"{self.description}, {self.unit} {self.done} of {self.total}"
        )


class Display(Protocol):
    """Shows the phase that a training run is in. `show` is called whenever it changed."""

    def start(self) -> None: ...

    def show(self, phase: Phase) -> None: ...

    def stop(self) -> None: ...


def display(wanted: bool) -> Display:
    """A bar where stderr is a terminal that can move its cursor, else lines. Nothing where none is wanted."""
    if not wanted or sys.stderr is None:  # Windows programs without a console have no stderr
        return Nothing()
    return Bar() if sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal else Lines(sys.stderr, LINE_EVERY)


class Nothing:
    """Shows nothing."""

    def start(self) -> None:
        """Nothing to start."""

    def show(self, phase: Phase) -> None:
        """Nothing to show."""

    def stop(self) -> None:
        """Nothing to stop."""


class Bar:
    """One bar, which is redrawn in place: every phase starts it anew."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None)

    def start(self) -> None:
        """Draw the bar."""
        self._progress.start()

    def show(self, phase: Phase) -> None:
        """Set the bar to a phase."""
        self._progress.update(self._task, description=phase.description, total=phase.total, completed=phase.done)

    def stop(self) -> None:
        """Take the bar down."""
        self._progress.stop()


class Lines:
    """One every few seconds, also during a step that takes long. A run that ends before the first line writes none."""

    def __init__(self, stream: TextIO, every: float) -> None:
        """Write to a stream, with so many seconds between two lines."""
        self._stream = stream
        self._every = every
        self._phase = Phase("starting")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write, name="routelearn-progress", daemon=True)

    def start(self) -> None:
        """Start the clock and the thread that writes."""
        self._started = time.monotonic()
        self._thread.start()

    def show(self, phase: Phase) -> None:
        """The phase of the next line."""
        self._phase = phase

    def stop(self) -> None:
        """Write no more."""
        self._stopped.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                self._stream.write(f"{self._phase}, {_duration(time.monotonic() - self._started)}\n")
                self._stream.flush()
            except (OSError, ValueError):  # whoever read the lines is gone: the training goes on without them
                return


def _duration(seconds: float) -> str:
    """Seconds in words: 12 s, 3 min 5 s, 2 h 7 min."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
