"""Logs errors without their messages, which may quote a prompt, an answer or an API key."""

from __future__ import annotations

import logging
import traceback


def log_error(logger: logging.Logger, what: str, error: BaseException, level: int = logging.ERROR) -> None:
    """Log what happened, and the type and the place of an error and of those behind it, but none of their messages.

    Args:
        logger: gets one record.
        what: what happened and what follows from it, in words.
        error: what was raised.
        level: of the record.
    """
    lines: list[str] = []
    seen: set[int] = set()
    behind: BaseException | None = error
    while behind is not None and id(behind) not in seen:
        seen.add(id(behind))
        lines += [type(behind).__name__ + "\n", *traceback.format_tb(behind.__traceback__)]
        behind = behind.__cause__ or (None if behind.__suppress_context__ else behind.__context__)
    logger.log(level, "%s: %s", what, "".join(lines).rstrip())
