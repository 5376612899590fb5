"""Finds our columns in a table as people spell them: case, blanks and underscores do not matter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ..routers.errors import DataError

#: Further spellings of our columns, folded; the first that a table has is meant.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "prompt": ("question", "query", "instruction", "userprompt"),
    "conversation_a": ("conversation", "conversations"),
    "model": ("modelname",),
    "response": ("answer", "output"),
    "response_a": ("outputa", "answera"),
    "response_b": ("outputb", "answerb"),
}
_SEPARATORS = re.compile(r"[\s_\-.]+")


def fold(name: str) -> str:
    """A name without case, blanks, underscores, dots and hyphens."""
    return _SEPARATORS.sub("", name).casefold()


def find_columns(
    name: str, columns: Sequence[str], mapped: Mapping[str, str], wanted: Iterable[str], *, strict: bool = True
) -> dict[str, str]:
    """The table's name of each of our columns that it has.

    Args:
        name: name of the table, for messages.
        columns: the columns of the table.
        mapped: the table's name of some of our columns, as the user gave it.
        wanted: our columns.
        strict: refuse a mapped column that the table lacks.

    Raises:
        DataError: a mapped column is missing, or two columns are spellings of one of ours.
    """
    folded: dict[str, list[str]] = {}
    for column in columns:
        folded.setdefault(fold(column), []).append(column)

    def spelled(spelling: str, ours: str) -> str | None:
        if spelling in columns:
            return spelling
        there = folded.get(fold(spelling), [])
        if len(there) > 1:
            problem = f"columns {there} are one name in another spelling"
            raise DataError(name, None, there[0], problem, f"one of them with --map {ours}=COLUMN")
        return there[0] if there else None

    found: dict[str, str] = {}
    for ours, theirs in mapped.items():
        mapped_to = spelled(theirs, ours)
        if mapped_to is not None:
            found[ours] = mapped_to
        elif strict:
            raise DataError(name, None, theirs, f"no such column (mapped from {ours!r})", f"one of {list(columns)}")
    taken = set(found.values())
    for ours in wanted:
        if ours in mapped:
            continue
        for spelling in (ours, *_SPELLINGS.get(ours, ())):
            there = spelled(spelling, ours)
            if there is not None and there not in taken:
                found[ours] = there
                break
    return found
