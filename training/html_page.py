"""Helpers of the HTML reports: one page that needs no other file, with tables and inline pictures."""

from __future__ import annotations

import html
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.writers import atomic_path
from ..routers.errors import require

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #d8dee4; text-align: right; }
th:first-child, td:first-child { text-align: left; }
tr.router td { font-weight: 600; } tr.bound td { color: #6e7781; }
small { color: #57606a; font-weight: 400; white-space: nowrap; } svg { max-width: 100%; height: auto; }
@media (max-width: 48rem) { table { display: block; overflow-x: auto; } }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole HTML page, from the HTML of its parts."""
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escaped(title)}</title><style>{_STYLE}</style>\n{body}\n</html>\n"
    )


def write_pages(folder: Path, data: tuple[str, Any], page: tuple[str, str]) -> None:
    """Write a report into a folder, which is made: `data` as JSON, and `page`; each is (file name, content)."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(plain(data[1]), indent=1, allow_nan=False) + "\n"
    for name, text in ((data[0], content), page):
        with atomic_path(folder / name) as staging:
            staging.write_text(text, encoding="utf-8")


def plain(value: Any) -> Any:
    """The value with None in the place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def new_figure() -> tuple[Any, Any]:
    """A new matplotlib figure and its axes."""
    require("matplotlib", "train")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    return figure, figure.subplots()


def svg(figure: Any, axes: Any) -> str:
    """A figure as SVG for a page."""
    import matplotlib as mpl

    axes.grid(alpha=0.25)
    stream = io.StringIO()
    # The same bytes for the same report; and "$" in a name is a character, not the start of a formula.
    with mpl.rc_context({"svg.hashsalt": "routelearn", "text.parse_math": False}):
        axes.legend(fontsize=8)
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table, from headings and cells that are HTML."""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def escaped(value: str) -> str:
    """Text with the characters escaped that mean something in HTML."""
    return html.escape(value)
