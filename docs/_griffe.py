"""What the API reference needs to know about this package (an extension of griffe, which reads the sources)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe


class Rooms(griffe.Extension):
    """The names in the stub of a room are its public names, and a docstring's "Example:" is a session to show."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Call the section "Examples:", which griffe shows as code."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Take the comment "#:" above a constant or a type as its docstring."""
        lines = attr.lines_collection[attr.filepath] if isinstance(attr.filepath, Path) else []
        comment: list[str] = []
        for line in reversed(lines[: (attr.lineno or 1) - 1]):
            if not line.startswith("#: "):
                break
            comment.insert(0, line.removeprefix("#: "))
        if comment and not attr.docstring:
            attr.docstring = griffe.Docstring("\n".join(comment), parent=attr)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Export what the stubs of a package and its rooms import."""
        for room in (pkg, *pkg.modules.values()):
            if "public_names" in room.members:
                room.exports = [
                    name for name, member in room.members.items() if member.is_alias and name != "public_names"
                ]
