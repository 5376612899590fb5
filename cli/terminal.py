"""Text on the terminal. Names come from bundles and data of others: they are shown as they are, and do nothing."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.status import Status
from rich.text import Text

#: Characters that a terminal obeys instead of showing: control characters but tab and line feed, marks that turn the
#: direction of text, and lone surrogates, which cannot be encoded.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str) -> str:
    """The text; each character that a terminal would obey is an escape with a backslash, as in Python."""
    return _OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class Console(RichConsole):
    """A console that shows texts as text: no markup, no names of emoji, and nothing that the terminal would obey."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text, a title or a cell of a table."""
        return super().render_str(shown(text), **options)

    @property
    def redraws(self) -> bool:
        """Whether spinners and bars may be drawn: only on a real terminal, because FORCE_COLOR makes a log none."""
        return self.is_terminal and not self.is_dumb_terminal and self.file.isatty()

    def status(self, status: RenderableType, **options: Any) -> Status:
        """A line beside a spinner; nothing where it cannot be redrawn."""
        console = self if self.redraws else RichConsole(file=io.StringIO(), quiet=True, force_terminal=False)
        return _Status(_as_text(status), console=console, **options)


class _Status(Status):
    def update(self, status: RenderableType | None = None, **options: Any) -> None:
        super().update(None if status is None else _as_text(status), **options)


def _as_text(status: RenderableType) -> RenderableType:
    """A spinner would read markup in a string."""
    return Text(shown(status)) if isinstance(status, str) else status


@contextmanager
def on_interrupt(kept: str) -> Iterator[None]:
    """Say what Ctrl-C leaves behind, and end the command with the exit code 130, as shells expect."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"\nstopped: {shown(kept)}\n")
        raise SystemExit(130) from None


class LogFormatter(logging.Formatter):
    """Log records as lines that do nothing to a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as text."""
        return shown(super().format(record))
