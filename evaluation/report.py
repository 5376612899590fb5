"""An evaluation as sentences, as report.json, and as one HTML page that needs no other file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..training.fit.metrics import APGR_IN_WORDS
from ..training.html_page import escaped, html_table, new_figure, page, svg, write_pages
from .conclusion import conclusions
from .pool import ORACLE, SINGLE_MODELS, PoolReport
from .results import Report, Result

JSON, HTML = "report.json", "report.html"

#: Columns of the table: key, heading, what the column means.
COLUMNS = (
    ("apgr", "APGR", "the average performance gap recovered; 0.5 is random, 1 is perfect"),
    ("cpt50", "CPT(50 %)", "the share of strong calls that recovers 50 % of the gap between weak and strong"),
    ("cpt80", "CPT(80 %)", "the share of strong calls that recovers 80 % of the gap"),
    ("cpt95", "CPT(95 %)", "the share of strong calls that recovers 95 % of the gap"),
    ("auroc", "AUROC", "how well the score tells the queries on which strong is better; 0.5 is random, 1 is perfect"),
    ("ece", "ECE", "the expected calibration error of the win rate, over ten bins of equal counts; 0 is perfect"),
    ("share95", "share at 95 %", "the share of strong calls that reaches 95 % of strong's mean score"),
    ("share99", "share at 99 %", "the share of strong calls that reaches 99 % of strong's mean score"),
    ("cost99", "USD at 99 %", "the cost of 1,000 queries at 99 % of strong's mean score"),
    ("log_loss", "log loss", "the mean log loss of the win rates on preference records, in nats; lower is better"),
)


def write_report(report: Report, folder: Path) -> None:
    """Write report.json and report.html into a folder, which is created."""
    write_pages(folder, (JSON, report.as_dict()), (HTML, html_page(report)))


def sentences(report: Report) -> list[str]:
    """What a report says beside its tables: fixed choices, differences and notes."""
    lines = []
    for result in report.results:
        if "strong_share" in result.values:
            share, quality = result.values["strong_share"], result.values["quality"]
            lines.append(f"{result.router}: mean score {quality:.4f}, with {share:.1%} of the queries sent to strong")
    for difference in report.differences:
        low, high = difference.interval
        lines.append(
            f"APGR of {difference.router} minus APGR of {difference.other}: {difference.apgr:+.4f} "
            f"(95 % interval {low:+.4f} to {high:+.4f})"
        )
    return [*lines, *(f"note: {note}" for note in report.notes)]


def html_page(report: Report) -> str:
    """The HTML page of a report."""
    title = f"{report.strong} over {report.weak}"
    parts = [f"<h1>{escaped(title)}</h1>", *_introduction(report)]
    used = [column for column in COLUMNS if any(column[0] in result.values for result in report.results)]
    parts.append(_results_table(report.results, used))
    meanings = "".join(f"<li><b>{escaped(name)}</b>: {escaped(meaning)}.</li>" for _, name, meaning in used)
    parts.append(f"<ul>{meanings}</ul>")
    parts += _fixed_choices(report.results)
    if any(result.curve for result in report.results):
        parts.append("<h2>Mean score against strong calls</h2>" + _curves(report))
    if any(result.reliability for result in report.results):
        parts.append("<h2>Predicted and observed win rate</h2>" + _reliability(report.results))
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
        parts.append("<h2>The whole pool</h2>" + _pool(report.pool))
    return page(title, parts)


def _introduction(report: Report) -> list[str]:
    """What was measured, what APGR is, what it says of each router, and the notes."""
    parts = []
    if report.strong_quality is not None and report.weak_quality is not None:
        parts.append(
            f"<p>{report.queries:,} queries ({report.prompts:,} distinct prompts) have scores of both models. The mean "
            f"score of strong alone is {report.strong_quality:.4f}, that of weak alone {report.weak_quality:.4f}. "
            f"{escaped(APGR_IN_WORDS[:1].upper() + APGR_IN_WORDS[1:])}. "
            "The intervals are 95 % bootstrap intervals; prompts are resampled.</p>"
        )
    if report.preferences:
        parts.append(f"<p>The log loss is measured on {report.preferences:,} preference records.</p>")
    parts += [f"<p>{escaped(line)}</p>" for line in conclusions(report)]
    return [*parts, *(f"<p>Note: {escaped(note)}.</p>" for note in report.notes)]


def _results_table(results: Sequence[Result], used: Sequence[tuple[str, str, str]]) -> str:
    lines = ["<table><tr><th>router</th>" + "".join(f"<th>{escaped(name)}</th>" for _, name, _ in used) + "</tr>"]
    for result in results:
        if "strong_share" not in result.values:
            cells = "".join(f"<td>{_interval(result, key)}</td>" for key, _, _ in used)
            lines.append(f'<tr class="{result.role}"><td>{escaped(result.router)}</td>{cells}</tr>')
    return "\n".join(lines) + "</table>"


def _fixed_choices(results: Sequence[Result]) -> list[str]:
    """A table of the choices that need no threshold, such as always-strong."""
    rows = [
        [
            escaped(result.router),
            f"{result.values['strong_share']:.1%}",
            _interval(result, "quality"),
            _cost(result.values.get("cost")),
        ]
        for result in results
        if "strong_share" in result.values
    ]
    headings = ["choice without a threshold", "strong share", "mean score", "USD per 1,000 queries"]
    return [html_table(headings, rows)] if rows else []


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
            predicted, observed, _ = zip(*result.reliability, strict=True)
            axes.plot(predicted, observed, "o-" if result.role == "router" else ".--", label=result.router)
    low, high = 0.0, 1.0
    points = [
        value
        for r in results
        if r.reliability
        for predicted, observed, _ in r.reliability
        for value in (predicted, observed)
    ]
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


def _pool(pool: PoolReport) -> str:
    """The evaluation over the whole pool: a sentence, a table and a picture."""
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
    headings = [
        "router",
        "AIQ",
        "best mean score",
        "USD per 1,000 queries, as good as the best model",
        "AIQ − kNN's AIQ",
    ]
    return (
        f"<p>All {len(pool.singles)} models have scores on {pool.queries:,} queries; an answer is taken to be "
        f"{pool.output_tokens} tokens long. The best single model is {escaped(pool.best_single)}, with a mean score of "
        f"{best_quality:.4f} for {_cost(best_cost)} USD per 1,000 queries. AIQ is the average improvement in quality: "
        "the mean height of the curve of mean score over cost, from the cheapest model to the dearest one "
        "(RouterBench).</p>" + html_table(headings, rows) + _pool_picture(pool)
    )


def _pool_picture(pool: PoolReport) -> str:
    figure, axes = new_figure()
    for result in pool.results:
        style = {ORACLE: "k:", SINGLE_MODELS: "--"}.get(result.router, "o-")
        axes.plot(result.cost, result.quality, style, markersize=3, label=result.router)
    costs, qualities = zip(*pool.singles.values(), strict=True)
    axes.scatter(costs, qualities, marker="x", color="black", s=18, label="one model each")
    axes.set(xlabel="USD per 1,000 queries", ylabel="mean score")
    if min(costs) > 0:
        axes.set_xscale("log")
    return svg(figure, axes)


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


def _cost(value: float | None) -> str:
    return "" if value is None else f"{value:,.3f}"
