"""The report on replayed conversations: a sentence, a table, and quality against cost."""

from __future__ import annotations

from pathlib import Path

from ...training.html_page import escaped, html_table, new_figure, page, svg, write_pages
from .compare import SessionReport

JSON, HTML = "replay.json", "replay.html"
HEADINGS = ("way to choose", "threshold", "USD a session", "mean quality", "strong share", "switches", "cached")


def write_session_report(report: SessionReport, folder: Path) -> None:
    """Write replay.json and replay.html into a folder, which is created."""
    rows = [[escaped(cell) for cell in row] for row in cells(report)]
    title = f"{report.sessions:,} sessions, {report.requests:,} requests"
    parts = [
        "<h1>Replayed conversations</h1>",
        f"<p><b>{escaped(sentence(report))}</b></p>",
        f"<p>{title}. Intervals: 95 %, bootstrap over the sessions.</p>",
        html_table(HEADINGS, rows),
        _curves(report),
    ]
    write_pages(folder, (JSON, report.as_dict()), (HTML, page("Replayed conversations", parts)))


def sentence(report: SessionReport) -> str:
    """What sessions save, in a sentence."""
    saved, (low, high) = report.saved_share, report.saved_interval
    word = "less"
    if saved < 0:
        saved, low, high, word = -saved, -high, -low, "more"
    interval = f"95 % interval {low:.1%} to {high:.1%}"
    return f"Sessions cost {saved:.1%} {word} than single prompts at the same quality ({interval})."


def cells(report: SessionReport) -> list[list[str]]:
    """The cells of the table, a row for each way to choose."""
    return [
        [
            row.name,
            "" if row.threshold is None else f"{row.threshold:.4f}",
            f"{row.usd:.4f} ({row.usd_interval[0]:.4f} to {row.usd_interval[1]:.4f})",
            f"{row.quality:.4f} ({row.quality_interval[0]:.4f} to {row.quality_interval[1]:.4f})",
            f"{row.strong_share:.1%}",
            f"{row.switches:.2f}",
            f"{row.cached_share:.1%}",
        ]
        for row in report.results
    ]


def _curves(report: SessionReport) -> str:
    figure, axes = new_figure()
    for name, rows in report.curves.items():
        axes.plot([usd for _, usd, _ in rows], [quality for _, _, quality in rows], ".-", label=name)
    for row in report.results:
        if row.threshold is None:
            axes.scatter([row.usd], [row.quality], marker="x", label=row.name)
    axes.set(xlabel="USD a session", ylabel="mean quality")
    return svg(figure, axes)
