"""An evaluation as report.json and as one HTML page that needs nothing else: tables and inline pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..training.html_page import escaped, html_table, new_figure, page, svg, write_pages
from .results import Report, Result

JSON, HTML = "report.json", "report.html"

#: Columns of the table: key, heading, what it means.
COLUMNS = (
    ("apgr", "APGR", "average performance gap recovered; 0.5 is random"),
    ("cpt50", "CPT(50 %)", "share of strong calls that recovers half of the gap"),
    ("cpt80", "CPT(80 %)", "for 80 % of the gap"),
    ("cpt95", "CPT(95 %)", "for 95 % of the gap"),
    ("auroc", "AUROC", "of telling the queries where strong is better"),
    ("ece", "ECE", "expected calibration error of the win rate, ten equal-count bins"),
    ("share95", "share at 95 %", "strong calls needed for 95 % of strong's quality"),
    ("share99", "share at 99 %", "strong calls needed for 99 % of strong's quality"),
    ("cost99", "USD at 99 %", "cost of a thousand queries at 99 % of strong's quality"),
    ("log_loss", "log loss", "of the win rates on preference records, nats"),
)


def write_report(report: Report, folder: Path) -> None:
    """Write report.json and report.html into a folder, which is made."""
    write_pages(folder, (JSON, report.as_dict()), (HTML, html_page(report)))


def html_page(report: Report) -> str:
    """The page."""
    parts = [f"<h1>{escaped(report.strong)} over {escaped(report.weak)}</h1>"]
    if report.strong_quality is not None and report.weak_quality is not None:
        parts.append(
            f"<p>{report.queries:,} scored queries ({report.prompts:,} prompts). Mean score of strong alone "
            f"{report.strong_quality:.4f}, of weak alone {report.weak_quality:.4f}. Intervals are 95 % bootstrap over "
            "prompts.</p>"
        )
    if report.preferences:
        parts.append(f"<p>{report.preferences:,} preference records.</p>")
    parts += [f"<p>Note: {escaped(note)}.</p>" for note in report.notes]
    used = [column for column in COLUMNS if any(column[0] in result.values for result in report.results)]
    parts.append(_results_table(report.results, used))
    parts.append(
        "<p>" + "; ".join(f"<b>{escaped(name)}</b>: {escaped(meaning)}" for _, name, meaning in used) + ".</p>"
    )
    points = [result for result in report.results if "strong_share" in result.values]
    if points:
        rows = [
            [
                escaped(r.router),
                _percent(r.values["strong_share"]),
                _interval(r, "quality"),
                _cost(r.values.get("cost")),
            ]
            for r in points
        ]
        parts.append(html_table(["fixed choice", "strong share", "mean score", "USD a thousand"], rows))
    if any(result.curve for result in report.results):
        parts.append("<h2>Quality against strong calls</h2>" + _curves(report))
    if any(result.reliability for result in report.results):
        parts.append("<h2>Reliability of the win rate</h2>" + _reliability(report.results))
    if report.differences:
        rows = [
            [
                f"{escaped(d.router)} − {escaped(d.other)}",
                f"{d.apgr:+.4f}",
                f"{d.interval[0]:+.4f} to {d.interval[1]:+.4f}",
            ]
            for d in report.differences
        ]
        parts.append("<h2>Paired differences of APGR</h2>" + html_table(["pair", "difference", "95 % interval"], rows))
    if any(result.tasks for result in report.results):
        parts.append("<h2>APGR by task</h2>" + _tasks(report))
    if report.pool is not None:
        parts.append("<h2>The whole pool</h2>" + _pool(report))
    return page(f"{report.strong} over {report.weak}", parts)


def _results_table(results: Sequence[Result], used: Sequence[tuple[str, str, str]]) -> str:
    lines = ["<table><tr><th>router</th>" + "".join(f"<th>{escaped(name)}</th>" for _, name, _ in used) + "</tr>"]
    for result in results:
        if "strong_share" not in result.values:
            cells = "".join(f"<td>{_interval(result, key)}</td>" for key, _, _ in used)
            lines.append(f'<tr class="{result.role}"><td>{escaped(result.router)}</td>{cells}</tr>')
    return "\n".join(lines) + "</table>"


def _curves(report: Report) -> str:
    figure, axes = new_figure()
    for result in report.results:
        if result.curve:
            share, quality = zip(*result.curve, strict=True)
            style = {"router": "o-", "baseline": ".--", "bound": "k:"}[result.role]
            axes.plot(share, quality, style, label=result.router)
        elif "strong_share" in result.values:
            axes.plot([result.values["strong_share"]], [result.values["quality"]], "x", label=result.router)
    if report.strong_quality is not None:
        axes.axhline(0.99 * report.strong_quality, color="grey", linewidth=0.8, label="99 % of strong")
    axes.set(xlabel="share of queries sent to strong", ylabel="mean score")
    return svg(figure, axes)


def _reliability(results: Sequence[Result]) -> str:
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for result in results:
        if result.reliability:
            said, seen, _ = zip(*result.reliability, strict=True)
            axes.plot(said, seen, "o-" if result.role == "router" else ".--", label=result.router)
    low, high = 0.0, 1.0
    points = [value for r in results if r.reliability for said, seen, _ in r.reliability for value in (said, seen)]
    if points:
        low, high = max(0.0, min(points) - 0.03), min(1.0, max(points) + 0.03)
    axes.set(xlabel="predicted win rate of strong", ylabel="observed", xlim=(low, high), ylim=(low, high))
    return svg(figure, axes)


def _tasks(report: Report) -> str:
    shown = [result for result in report.results if result.tasks]
    names = sorted({task for result in shown for task in result.tasks})
    rows = [
        [escaped(task), str(report.tasks.get(task, "")), *(_number(result.tasks.get(task)) for result in shown)]
        for task in names
    ]
    return html_table(["task", "queries", *(escaped(result.router) for result in shown)], rows)


def _pool(report: Report) -> str:
    pool = report.pool
    assert pool is not None
    rows = [
        [
            escaped(result.router),
            f"{result.aiq:.4f} <small>{result.aiq_interval[0]:.4f} to {result.aiq_interval[1]:.4f}</small>",
            f"{result.best_quality:.4f}",
            _cost(result.cost_at_best_single),
            ""
            if result.difference is None or result.difference_interval is None
            else f"{result.difference:+.4f} "
            f"<small>{result.difference_interval[0]:+.4f} to {result.difference_interval[1]:+.4f}</small>",
        ]
        for result in pool.results
    ]
    best_cost, best_quality = pool.singles[pool.best_single]
    table = html_table(
        ["router", "AIQ", "best mean score", "USD a thousand at the best single's score", "AIQ − kNN's"], rows
    )
    figure, axes = new_figure()
    for result in pool.results:
        style = {"oracle": "k:", "single models": "--"}.get(result.router, "o-")
        axes.plot(result.cost, result.quality, style, markersize=3, label=result.router)
    costs, qualities = zip(*pool.singles.values(), strict=True)
    axes.scatter(costs, qualities, marker="x", color="black", s=18, label="one model each")
    axes.set(xlabel="USD a thousand queries", ylabel="mean score")
    if min(costs) > 0:
        axes.set_xscale("log")
    return (
        f"<p>{pool.queries:,} queries scored by all {len(pool.singles)} models, {pool.output_tokens} tokens an answer. "
        f"Best single model: {escaped(pool.best_single)}, {best_quality:.4f} for {_cost(best_cost)}. AIQ: area under "
        "the non-decreasing convex hull of quality against cost, over the range of costs of the single models.</p>"
        + table
        + svg(figure, axes)
    )


def _interval(result: Result, key: str) -> str:
    if key not in result.values or math.isnan(result.values[key]):
        return ""
    value = f"{result.values[key]:.4f}"
    if key not in result.intervals:
        return value
    low, high = result.intervals[key]
    return f"{value} <small>{low:.4f} to {high:.4f}</small>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _cost(value: float | None) -> str:
    return "" if value is None else f"{value:,.3f}"
