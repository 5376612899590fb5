"""A cascade plan as sentences, as plan.json, and as one HTML page that needs no other file."""

from __future__ import annotations

from pathlib import Path

from ...training.fit.metrics import APGR_IN_WORDS
from ...training.html_page import escaped, html_table, new_figure, page, svg, write_pages
from .intervals import INTERVALS_IN_WORDS
from .plan import CascadePlan

JSON, HTML = "plan.json", "plan.html"

_VERDICTS = {True: "yes", False: "no", None: "undecided"}


def write_plan(plan: CascadePlan, folder: Path) -> None:
    """Write plan.json and plan.html into a folder, which is created."""
    write_pages(folder, (JSON, plan.as_dict()), (HTML, plan_page(plan)))


def sentences(plan: CascadePlan) -> list[str]:
    """What a plan says beside its table: target, verifier, APGR, conditions, latency, reasons and notes."""
    return [
        *_figures(plan),
        APGR_IN_WORDS,
        *(f"APGR of {name}: {value:.4f} ({low:.4f} to {high:.4f})" for name, (value, low, high) in plan.apgr.items()),
        *(f"condition: {one.name}: {_VERDICTS[one.holds]}; {one.why}" for one in plan.conditions),
        *_sensitivity(plan),
        *(
            f"latency of requests, {name}: P50 {p50:.2f} s, P95 {p95:.2f} s, P99 {p99:.2f} s"
            for name, (p50, p95, p99) in (plan.latency or {}).items()
        ),
        *plan.reasons,
        *(one.sentence() for one in plan.comparisons if one.policy == plan.recommendation),
        INTERVALS_IN_WORDS,
        *(f"note: {note}" for note in plan.notes),
        f"recommendation: {plan.recommendation}",
    ]


def _figures(plan: CascadePlan) -> list[str]:
    return [
        f"the target is a mean score of {plan.target:.4f}",
        f"costs of {plan.weak} are {plan.cost_basis[0]}",
        f"costs of {plan.strong} are {plan.cost_basis[1]}",
        f"break-even: a cascade costs as much as strong alone when {plan.break_even:.1%} of the queries escalate",
        f"the verifier on these answers: AUROC {plan.verifier['AUROC']:.4f}, calibration error (ECE) "
        f"{plan.verifier['ECE']:.4f}, {plan.verifier['seconds'] * 1000:.1f} ms for each answer",
    ]


def _sensitivity(plan: CascadePlan) -> list[str]:
    if plan.sensitivity is None:
        return []
    return [
        f"raising the threshold by 0.01 changes the escalation rate by {plan.sensitivity.escalation * 100:+.2f} "
        f"points, the cost by {plan.sensitivity.cost:+.2%} and the mean score by {plan.sensitivity.quality:+.4f}"
    ]


def plan_page(plan: CascadePlan) -> str:
    """The HTML page of a plan."""
    title = f"{plan.weak}, then {plan.strong}"
    parts = [
        f"<h1>{escaped(title)}</h1>",
        f"<p><b>Recommendation: {escaped(plan.recommendation)}.</b></p>",
        "<ul>" + "".join(f"<li>{escaped(reason)}</li>" for reason in [*plan.reasons, *plan.notes]) + "</ul>",
        f"<p>{plan.queries:,} queries. " + " ".join(f"{_sentence(line)}" for line in _figures(plan)) + "</p>",
        "<h2>Mean score against cost</h2>" + _curve(plan),
        "<h2>When is a cascade worth it?</h2>"
        + html_table(
            ["condition", "holds", "figures"],
            [[escaped(one.name), _VERDICTS[one.holds], escaped(one.why)] for one in plan.conditions],
        ),
        "<h2>Performance gap recovered over the share of strong calls</h2>"
        + f"<p>{_sentence(APGR_IN_WORDS)}</p>"
        + html_table(
            ["policy", "APGR", "95 % interval"],
            [[escaped(name), f"{v:.4f}", f"{low:.4f} to {high:.4f}"] for name, (v, low, high) in plan.apgr.items()],
        ),
        "<h2>One policy against another</h2>"
        + f"<p>{_sentence(INTERVALS_IN_WORDS)} Costs are shares of the cost of strong alone.</p>"
        + html_table(
            ["policy", "against", "cost (95 % interval)", "mean score (95 % interval)"],
            [
                [
                    escaped(one.policy),
                    escaped(one.against),
                    "{:+.1%} ({:+.1%} to {:+.1%})".format(*one.cost),
                    "{:+.4f} ({:+.4f} to {:+.4f})".format(*one.quality),
                ]
                for one in plan.comparisons
            ],
        ),
        *(f"<p>{_sentence(line)}</p>" for line in _sensitivity(plan)),
    ]
    if plan.latency is not None:
        rows = [[escaped(name), *(f"{value:.2f}" for value in tail)] for name, tail in plan.latency.items()]
        parts.append("<h2>Latency (s)</h2>" + html_table(["requests", "P50", "P95", "P99"], rows))
    return page(title, parts)


def _sentence(line: str) -> str:
    """A line as a sentence of the page."""
    return f"{escaped(line[:1].upper() + line[1:])}."


def _curve(plan: CascadePlan) -> str:
    figure, axes = new_figure()
    for kind, points in plan.curves.items():
        axes.plot([p.cost for p in points], [p.quality for p in points], ".-", label=kind)
    axes.scatter(plan.cost, plan.quality, marker="x", color="black", label="one model alone")
    axes.axhline(plan.target, color="grey", linewidth=0.8, label="target")
    if plan.chosen is not None:
        axes.scatter([plan.chosen.cost], [plan.chosen.quality], marker="o", color="red", label="recommended", zorder=3)
    axes.set(xlabel="USD per 1,000 queries", ylabel="mean score")
    return svg(figure, axes)
