"""Proves a router on held-out labels: evaluates it, decides, and gives it its threshold."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..data.records import PerformanceRecord, PreferenceRecord, Record, record_key
from ..evaluation.evaluate import evaluate
from ..evaluation.report import write_report
from ..evaluation.thresholds.calibrate import calibrate_by_quality_loss, save_calibrated
from ..evaluation.thresholds.report import write_calibration
from ..evaluation.verdict import Verdict, verdict_of
from ..routers.decision import Model
from ..routers.loading import load


def prove(
    bundle: Path,
    report: Path,
    training: Sequence[Record],
    held_out: Sequence[Record],
    *,
    costs: Mapping[tuple[str, str], float],
    prices: Sequence[Model],
    max_quality_loss: float,
    seed: int,
    judged: bool,
) -> Verdict:
    """Evaluate a router and decide; a router that may be deployed gets its guaranteed threshold.

    Args:
        bundle: the router's folder; it is written anew where there is a threshold.
        report: folder of the reports, which is replaced.
        training: the records that the router was trained on.
        held_out: other records.
        costs: USD of each answer, by prompt key and model.
        prices: strong and weak with their prices.
        max_quality_loss: the largest acceptable loss against strong alone.
        seed: of the intervals.
        judged: whether a judge compared the answers, so that a score is a win.
    """
    router = load(bundle)
    general = load("general", strong=router.strong, weak=router.weak)
    found = evaluate(
        {bundle.name: router, "general": general},
        [one for record in held_out for one in as_scores(record, costs)],
        training=[one for record in training for one in as_scores(record, costs)],
        seed=seed,
    )
    if judged:
        found.notes.append("a score of 1, 0.5 or 0 is a win, a tie or a loss against the other model, by the judge")
    verdict = verdict_of(router, held_out, max_quality_loss=max_quality_loss, costs=costs, prices=prices, seed=seed)
    found.notes.append(f"verdict: {verdict}")
    if report.exists():
        shutil.rmtree(report)
    write_report(found, report)
    if verdict.threshold is not None:
        calibrated = calibrate_by_quality_loss(router, held_out, max_quality_loss, prices=prices)
        write_calibration(calibrated.report, report)
        save_calibrated(bundle, bundle, calibrated)
    return verdict


def as_scores(record: Record, costs: Mapping[tuple[str, str], float]) -> list[Record]:
    """A preference as two scores, that of the winner and that of the loser; a performance as it is."""
    if not isinstance(record, PreferenceRecord):
        return [record]
    sides = ((record.model_a, record.preference), (record.model_b, 1 - record.preference))
    return [
        PerformanceRecord(
            query=record.query,
            model=model,
            score=score,
            cost_usd=costs.get((record_key(record), model)),
            weight=record.weight,
            task=record.task,
            split=record.split,
            source=record.source,
        )
        for model, score in sides
    ]
