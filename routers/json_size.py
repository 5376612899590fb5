"""Bounds what reading JSON takes, by what stands in it."""

from __future__ import annotations


def check_size(data: bytes, most_objects: int, most_values: int) -> None:
    """Refuse JSON that would take far more memory than it has bytes, before it is read.

    Raises:
        ValueError: it has too many objects and lists, or too many values.
    """
    if len(data) <= most_objects:  # each takes a byte or more
        return
    objects, values = data.count(b"[") + data.count(b"{"), data.count(b",")
    if objects > most_objects or values > most_values:
        raise ValueError(
            f"it has about {objects:,} objects and {values:,} values; expected at most {most_objects:,} and "
            f"{most_values:,}"
        )
