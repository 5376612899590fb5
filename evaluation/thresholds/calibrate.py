"""Choose a bundle's threshold anew, on the user's own queries: by strong share, by cost, or with bounded loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.records import Record
from ...policies.cost import check_prices, priced, query_costs, threshold_within
from ...policies.threshold import StrongShare
from ...routers.base import Model, Router
from ...routers.bundle import CARD, read_bundle, save_bundle
from ...routers.errors import InputError
from ...routers.learned import LearnedRouter
from ...routers.query import Query
from ...routers.threshold_table import share_threshold, threshold_table
from ...training.export.publish import model_card
from ...training.fit.metrics import Array
from .guarantee import bound_loss, contradiction
from .losses import Outcomes, outcomes_of
from .report import ThresholdReport, threshold_report


@dataclass(frozen=True)
class Recalibration:
    """A new default threshold, and what it does.

    Attributes:
        report: what was measured.
        threshold: the new default.
        threshold_table: (strong share, threshold) pairs; None: the bundle's remains.
        guarantee: of the threshold; None: the bundle's, which is of its own threshold, remains.
    """

    report: ThresholdReport
    threshold: float
    threshold_table: Sequence[tuple[float, float]] | None = None
    guarantee: Mapping[str, Any] | None = None


def by_strong_share(
    router: Router, queries: Sequence[Query], share: float, *, prices: Sequence[Model] = (), output_tokens: int = 300
) -> Recalibration:
    """The threshold that sends a share of queries like these to strong.

    Args:
        router: scores them.
        queries: n queries, n >= 1; no labels.
        share: in [0, 1].
        prices: for the report; those of the pool where a model is not among them.
        output_tokens: assumed length of an answer.

    Raises:
        InputError: no queries, or no share.
    """
    scores = _scores(router, queries)
    costs = _known_costs(router, queries, prices, output_tokens)
    return _of_queries(router, scores, share_threshold(scores, StrongShare(share).share), costs)


def by_budget(
    router: Router, queries: Sequence[Query], usd: float, *, prices: Sequence[Model] = (), output_tokens: int = 300
) -> Recalibration:
    """The lowest threshold at which a thousand queries like these cost at most ``usd``; otherwise `by_strong_share`.

    Raises:
        InputError: no queries, a price is missing, or always-weak costs more.
    """
    scores = _scores(router, queries)
    costs = query_costs(priced(router, (router.strong, router.weak), prices), queries, output_tokens)
    return _of_queries(router, scores, threshold_within(scores, costs, usd, router.weak), costs)


def by_quality_loss(
    router: LearnedRouter,
    records: Sequence[Record],
    max_quality_loss: float,
    *,
    confidence: float = 0.95,
    method: str = "betting",
    prices: Sequence[Model] = (),
    output_tokens: int = 300,
    notes: Sequence[str] = (),
) -> Recalibration:
    """The cheapest threshold with bounded loss (`guarantee.calibrate_threshold`), compared with the bundle's guarantee.

    The bundle's earlier guarantees become the history of the new one.

    Args:
        router: of a bundle.
        records: labels that the router was not trained on.
        max_quality_loss: alpha.
        confidence: 1 - delta.
        method: of the p-values.
        prices: for the report; those of the pool where a model is not among them.
        output_tokens: assumed length of an answer.
        notes: to be shown in the report.

    Raises:
        InputError: see `guarantee.calibrate_threshold`; also says when the labels contradict the earlier guarantee.
    """
    outcomes = outcomes_of(records, router.strong, router.weak)
    scores = router.score(outcomes.queries)
    old = router.manifest.guarantee
    compared, contradicted = ([], False) if old is None else _compare(old, router, outcomes, scores)
    try:
        found = bound_loss(
            outcomes,
            scores,
            strong=router.strong,
            weak=router.weak,
            max_quality_loss=max_quality_loss,
            confidence=confidence,
            method=method,
        )
    except InputError as error:
        if contradicted:
            raise InputError(f"{error}; and {compared[-1]}") from error
        raise
    if old is not None:
        earlier = {key: value for key, value in old.items() if key != "history"}
        found = replace(found, history=[*old.get("history", ()), earlier])
    report = threshold_report(
        scores,
        found.threshold,
        strong=router.strong,
        weak=router.weak,
        gaps=outcomes.gap,
        costs=_known_costs(router, outcomes.queries, prices, output_tokens),
        unit=outcomes.unit,
        guarantee=found.as_dict(),
        notes=[*notes, *compared],
    )
    return Recalibration(report, found.threshold, guarantee=found.as_dict())


def save_calibrated(source: str | Path, out: str | Path, calibration: Recalibration) -> Path:
    """Write a router's bundle with a new default threshold; ``out`` may be the bundle itself.

    The graph stays what it was, byte by byte; the manifest and the model card are new.

    Returns:
        The folder.

    Raises:
        InputError: the path exists and is no bundle.
        BundleError: the source cannot be trusted.
    """
    manifest, contents = read_bundle(source)
    table = manifest.threshold_table if calibration.threshold_table is None else calibration.threshold_table
    guarantee = manifest.guarantee if calibration.guarantee is None else calibration.guarantee
    manifest = replace(manifest, threshold=calibration.threshold, threshold_table=tuple(table), guarantee=guarantee)
    return save_bundle(out, manifest, {**contents, CARD: model_card(manifest, Path(out).resolve().name).encode()})


def _of_queries(
    router: Router, scores: npt.NDArray[np.floating], threshold: float, costs: Array | None
) -> Recalibration:
    report = threshold_report(scores, threshold, strong=router.strong, weak=router.weak, costs=costs)
    return Recalibration(report, threshold, threshold_table(scores))


def _scores(router: Router, queries: Sequence[Query]) -> npt.NDArray[np.floating]:
    if not queries:
        raise InputError("a threshold is measured on your queries, and there is none")
    return router.score(queries)


def _known_costs(router: Router, queries: Sequence[Query], prices: Sequence[Model], output_tokens: int) -> Array | None:
    """USD (n, 2) of each query at strong and at weak; None where a price is not known."""
    known = {model.name: model for model in (*router.pool, *prices)}
    pair = [known[name] for name in (router.strong, router.weak)]
    if any(model.input_price is None or model.output_price is None for model in pair):
        return None
    check_prices(pair)
    return query_costs(pair, queries, output_tokens)


def _compare(
    old: Mapping[str, Any], router: Router, outcomes: Outcomes, scores: npt.NDArray[np.floating]
) -> tuple[list[str], bool]:
    """What new outcomes say of the guarantee before, and whether they contradict it."""
    if (old["strong"], old["weak"], old["unit"]) != (router.strong, router.weak, outcomes.unit):
        return [f"the guarantee before was of another pair or unit ({old['unit']}): not compared"], False
    if old["data_fingerprint"] == outcomes.fingerprint:
        return ["these are the labels of the guarantee before: no new evidence"], False
    to_weak = scores < old["threshold"]
    loss = float(np.where(to_weak, outcomes.gap, 0.0).mean())
    lines = [
        f"before: threshold {old['threshold']:.4f} sent {old['strong_share']:.1%} to strong and lost "
        f"{old['loss']:+.4f}; on these labels it sends {1 - to_weak.mean():.1%} and loses {loss:+.4f}"
    ]
    p = contradiction(old, outcomes, scores)
    contradicted = p <= old["delta"]
    verdict = "is contradicted by these labels" if contradicted else "is not contradicted by these labels"
    lines.append(f"the guarantee before (at most {old['max_quality_loss']:g}) {verdict} (p = {p:.3g}, one-sided)")
    return lines, contradicted
