"""What `routelearn judge` says of its judges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..labelling.agreement import Agreement
from ..labelling.candidates import Candidate
from ..labelling.judge_job import JudgeReport, JudgeSettings
from ..labelling.judging import Judging
from .job_progress import outcome_lines


def agreement_lines(found: Agreement) -> list[str]:
    """How far judges agree with people."""

    def figure(value: float, interval: tuple[float, float] | None = None) -> str:
        if value != value:  # noqa: PLR0124 - NaN
            return "not defined"
        return f"{value:.3f}" if interval is None else f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"

    return [
        f"judges and people on {found.pairs:,} pairs, with 95 % intervals: agreement "
        f"{figure(found.agreement, found.agreement_interval)}, kappa {figure(found.kappa, found.kappa_interval)}, "
        f"AUROC {figure(found.auroc, found.auroc_interval)}",
        f"in {found.decided:,} pairs neither says 'a tie'; there they agree in {figure(found.agreement_decided)}",
    ]


def judging_lines(done: Judging, judges: Sequence[Candidate], settings: JudgeSettings, out: Path) -> list[str]:
    """What was judged, how each judge did, and what is left."""
    outcome, what = done.outcome, "pairs" if settings.method == "pairs" else "answers"
    lines = []
    if done.records and not done.below:
        lines.append(f"wrote {len(done.records):,} records to {out}; {outcome.spent_usd:.4f} USD in all")
    for report in done.judges:
        lines += _judge_lines(report)
    if done.without_judge:
        why = "an answer is missing or both are the same" if what == "pairs" else "there is no answer"
        lines.append(f"{done.without_judge:,} {what} needed no judge: {why}")
    if done.unpaired:
        lines.append(f"{done.unpaired:,} pairs lack a row of one of the two models")
    if done.unlabelled:
        lines.append(f"{done.unlabelled:,} {what} have no label")
    unpriced = [one.name for one in judges if one.cost(1, 1) is None]
    if unpriced:
        lines.append(f"no price is known for {unpriced}: their verdicts count as 0 USD")
    return lines + outcome_lines(outcome)


def _judge_lines(report: JudgeReport) -> list[str]:
    lines = [f"{report.judge}: {report.verdicts:,} verdicts"]
    if report.asked_again or report.refused:
        lines.append(
            f"{report.judge}: {report.asked_again:,} replies ended with no verdict and were asked for again, "
            f"{report.malformed:,} of these in vain; {report.refused:,} questions were refused by the service"
        )
    if report.order is not None:
        low, high = report.order.interval
        lines.append(
            f"{report.judge}: both orders agree in {report.order.agreed:.1%} of {report.order.pairs:,} pairs; position "
            f"bias {report.order.position_bias:+.3f} (95 % interval {low:+.3f} to {high:+.3f}; above 0: the first "
            "answer wins more often)"
        )
    return lines
