"""A cascade plan as plan.json and as one HTML page that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from ...training.html_page import escaped, html_table, new_figure, page, svg, write_pages
from .plan import CascadePlan

JSON, HTML = "plan.json", "plan.html"


def write_plan(plan: CascadePlan, folder: Path) -> None:
    """Write plan.json and plan.html into a folder, which is made."""
    write_pages(folder, (JSON, plan.as_dict()), (HTML, plan_page(plan)))


def plan_page(plan: CascadePlan) -> str:
    """The page."""
    title = f"{plan.weak}, then {plan.strong}"
    verdicts = {True: "yes", False: "no", None: "undecided"}
    parts = [
        f"<h1>{escaped(title)}</h1>",
        f"<p><b>Recommendation: {escaped(plan.recommendation)}.</b></p>",
        "<ul>" + "".join(f"<li>{escaped(reason)}</li>" for reason in [*plan.reasons, *plan.notes]) + "</ul>",
        f"<p>{plan.queries:,} queries. Target: a mean score of {plan.target:.4f}. A cascade costs as much as strong "
        f"alone when {plan.break_even:.1%} of the requests escalate. Verifier on these answers: AUROC "
        f"{plan.verifier['AUROC']:.4f}, ECE {plan.verifier['ECE']:.4f}, "
        f"{plan.verifier['seconds'] * 1000:.1f} ms each.</p>",
        "<h2>Quality against cost</h2>" + _curve(plan),
        "<h2>When is a cascade worth it?</h2>"
        + html_table(
            ["condition", "holds", "figures"],
            [[escaped(one.name), verdicts[one.holds], escaped(one.why)] for one in plan.conditions],
        ),
        "<h2>APGR over the share of strong calls</h2>"
        + html_table(
            ["policy", "APGR", "95 % interval"],
            [[escaped(name), f"{v:.4f}", f"{low:.4f} to {high:.4f}"] for name, (v, low, high) in plan.apgr.items()],
        ),
    ]
    if plan.sensitivity is not None:
        parts.append(
            f"<p>0.01 of threshold moves the escalation rate by {plan.sensitivity.escalation * 100:.2f} points, the "
            f"cost by {plan.sensitivity.cost:.2%} and the mean score by {plan.sensitivity.quality:+.4f}.</p>"
        )
    if plan.latency is not None:
        rows = [[escaped(name), *(f"{value:.2f}" for value in found)] for name, found in plan.latency.items()]
        parts.append("<h2>Latency (s)</h2>" + html_table(["request", "P50", "P95", "P99"], rows))
    return page(title, parts)


def _curve(plan: CascadePlan) -> str:
    figure, axes = new_figure()
    for kind, points in plan.curves.items():
        axes.plot([p.cost for p in points], [p.quality for p in points], ".-", label=kind)
    axes.scatter(plan.cost, plan.quality, marker="x", color="black", label="one model alone")
    axes.axhline(plan.target, color="grey", linewidth=0.8, label="target")
    if plan.chosen is not None:
        axes.scatter([plan.chosen.cost], [plan.chosen.quality], marker="o", color="red", label="recommended", zorder=3)
    axes.set(xlabel="USD a thousand queries", ylabel="mean score")
    return svg(figure, axes)
