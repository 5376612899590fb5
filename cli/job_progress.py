"""How far a job of many calls is, and how it ended: a bar on a terminal, and a line every few seconds in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ..labelling.calls import Outcome, Progress
from .terminal import Console

#: Seconds between two lines.
_LINE_EVERY = 10.0


@contextmanager
def job_progress(console: Console, what: str) -> Iterator[Callable[[Progress], None]]:
    """A function that shows the progress which it is given: what is done, what is left, and USD."""
    if not console.redraws:
        yield _Lines(console, what).show
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[usd]}"))
    with Bar(TextColumn("{task.description}"), *columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, usd="")
        yield lambda now: bar.update(task, total=now.total, completed=now.done, usd=_rest(now))


def outcome_lines(outcome: Outcome) -> list[str]:
    """The calls that failed, and why the job ended early."""
    lines = []
    if outcome.failed_calls:
        lines.append(
            f"{outcome.failed_calls:,} calls failed and were tried again; {outcome.lost_calls:,} of them had been "
            "sent, so that the service may charge for them"
        )
    if outcome.stopped is not None:
        lines.append(f"stopped: {outcome.stopped}; {len(outcome.missing):,} questions are left")
    return lines


class _Lines:
    """One line every few seconds."""

    def __init__(self, console: Console, what: str) -> None:
        self._console = console
        self._what = what
        self._started = self._said = time.monotonic()

    def show(self, now: Progress) -> None:
        """Say how far it is, if it is time."""
        moment = time.monotonic()
        if moment - self._said < _LINE_EVERY:
            return
        self._said = moment
        fresh = now.done - now.before
        left = (now.total - now.done) * (moment - self._started) / fresh if fresh else None
        eta = "" if left is None else f", {left / 60:.0f} min left" if left >= 90 else f", {left:.0f} s left"
        self._console.print(f"{self._what}: {now.done:,} of {now.total:,}{eta}, {_rest(now)}")


def _rest(now: Progress) -> str:
    failed = f", {now.failed_calls:,} failed calls" if now.failed_calls else ""
    return f"{now.spent_usd:.4f} USD{failed}"
