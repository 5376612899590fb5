"""What an evaluation says of each router, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .results import Report, Result

#: The share of the gap between weak and strong that the sentence is about.
_GAP = 80


def conclusions(report: Report) -> list[str]:
    """One sentence for each router that was evaluated on scores of both models.

    Example:
        >>> from routelearn.evaluation.conclusion import conclusions
        >>> records = [record for record in routelearn.read_records("records.jsonl").records if record.split == "test"]
        >>> report = routelearn.evaluate({"mf": routelearn.load("router/")}, records, bootstrap=20)
        >>> conclusions(report)[0].startswith("mf recovers 80% of what sim-max gains over sim-small when it sends")
        True
    """
    return [
        _sentence(report, result) for result in report.results if result.role == "router" and "apgr" in result.values
    ]


def _sentence(report: Report, result: Result) -> str:
    strong, weak = report.strong, report.weak
    if report.strong_quality is None or report.weak_quality is None or report.strong_quality <= report.weak_quality:
        return f"{strong} is no better than {weak} on these queries, so that no router can gain from {strong}."
    share = result.values[f"cpt{_GAP}"]
    line = (
        f"{result.router} recovers {_GAP}% of what {strong} gains over {weak} when it sends {share:.0%} of the queries "
        f"to {strong}, where a random choice sends {_GAP}%"
    )
    verdicts = _verdicts(report, result)
    return f"{line}; it is {' and '.join(verdicts)}." if verdicts else f"{line}."


def _verdicts(report: Report, result: Result) -> list[str]:
    """How the router compares with a random choice and with kNN, where there are intervals."""
    compared: list[tuple[str, Sequence[float]]] = []
    if "apgr" in result.intervals:
        compared.append(("a random choice", [edge - 0.5 for edge in result.intervals["apgr"]]))
    for difference in report.differences:
        if difference.router == result.router and difference.other == "kNN":
            compared.append(("kNN", difference.interval))
    return [_verdict(other, low, high) for other, (low, high) in compared if not math.isnan(low + high)]


def _verdict(other: str, low: float, high: float) -> str:
    if low > 0:
        return f"better than {other}"
    return f"worse than {other}" if high < 0 else f"not measurably different from {other} on these queries"
