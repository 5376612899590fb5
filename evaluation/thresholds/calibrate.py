"""Choose a router's threshold on the user's own queries: by strong share, by cost, or with a bounded quality loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.records import Record, check_records
from ...policies.cost import check_prices, priced, query_costs, threshold_within
from ...policies.threshold import StrongShare
from ...routers.base import Router
from ...routers.bundle import CARD, GENERAL, read_bundle, save_bundle
from ...routers.decision import Model
from ...routers.errors import InputError
from ...routers.loading import load
from ...routers.query import Query, query_list
from ...routers.threshold_table import share_threshold, threshold_table
from ...training.export.publish import model_card
from ...training.fit.metrics import Array, weighted_mean
from .guarantee import Guarantee, bound_loss, contradiction
from .losses import Losses, losses_of
from .report import ThresholdReport, threshold_report


@dataclass(frozen=True, kw_only=True)
class ThresholdCalibration:
    """A new default threshold for a bundle, and what it does.

    Example:
        >>> from routelearn.evaluation import calibrate_by_strong_share
        >>> queries = open("queries.txt").read().splitlines()
        >>> calibration = calibrate_by_strong_share(routelearn.load("router/"), queries, 1.0)
        >>> calibration.threshold, calibration.report.chosen.strong_share
        (0.0, 1.0)

    Attributes:
        report: what the thresholds around the new one do.
        threshold: the new default threshold.
        threshold_table: the new (strong share, threshold) pairs; None: the bundle keeps its table.
        guarantee: the new guarantee; None: the bundle keeps its guarantee, which holds at its threshold, not at the
            new one.
    """

    report: ThresholdReport
    threshold: float
    threshold_table: Sequence[tuple[float, float]] | None = None
    guarantee: Mapping[str, Any] | None = None


def calibrate_by_strong_share(
    router: Router, queries: Sequence[Query], share: float, *, prices: Sequence[Model] = (), output_tokens: int = 300
) -> ThresholdCalibration:
    """Choose the threshold that sends a share of queries like these to strong.

    Args:
        router: scores the queries.
        queries: n of your queries, n >= 1; they need no labels.
        share: share of the queries for strong, in [0, 1].
        prices: models with prices, for the report; the router's pool gives the prices that are not listed here.
        output_tokens: assumed length of an answer.

    Raises:
        InputError: there is no query, or the share is out of range.
    """
    scores = _scores(router, queries)
    costs = _known_costs(router, queries, prices, output_tokens)
    return _calibration(router, scores, share_threshold(scores, StrongShare(share).share), costs)


def calibrate_by_budget(
    router: Router, queries: Sequence[Query], usd: float, *, prices: Sequence[Model] = (), output_tokens: int = 300
) -> ThresholdCalibration:
    """Choose the lowest threshold at which a thousand queries like these cost at most ``usd``.

    Args:
        router: scores the queries.
        queries: n of your queries, n >= 1; they need no labels.
        usd: budget in USD for 1,000 queries, 0 or more.
        prices: models with prices; the router's pool gives the prices that are not listed here.
        output_tokens: assumed length of an answer.

    Raises:
        InputError: there is no query, a price is missing, or the weak model alone exceeds the budget.
    """
    scores = _scores(router, queries)
    costs = query_costs(priced(router, (router.strong, router.weak), prices), queries, output_tokens)
    return _calibration(router, scores, threshold_within(scores, costs, usd, router.weak), costs)


def calibrate_by_quality_loss(
    router: Router,
    records: Sequence[Record],
    max_quality_loss: float,
    *,
    confidence: float = 0.95,
    method: str = "betting",
    prices: Sequence[Model] = (),
    output_tokens: int = 300,
    notes: Sequence[str] = (),
) -> ThresholdCalibration:
    """Choose the cheapest threshold with a bounded loss (`bound_loss`), and compare it with the bundle's guarantee.

    The earlier guarantees of the bundle become the history of the new one.

    Args:
        router: a router; one that was loaded from a bundle may have an earlier guarantee.
        records: performance or preference records that the router was not trained on (`check_leaks`).
        max_quality_loss: the largest expected loss against always-strong, in points of the score or the win rate.
        confidence: confidence of the bound, from 0.5 to below 1.
        method: how p-values are computed: "betting", or "clopper-pearson" for losses of 0 and 1.
        prices: models with prices, for the report; the router's pool gives the prices that are not listed here.
        output_tokens: assumed length of an answer.
        notes: sentences to show in the report.

    Raises:
        InputError: as `bound_loss`; the message also says when the labels contradict the earlier guarantee.
    """
    check_records(records)
    losses = losses_of(records, router.strong, router.weak)
    scores = router.score(losses.queries)
    notes = [*notes, *_weights_in_words(losses)]
    earlier = router.guarantee
    comparison, contradicted = ([], False) if earlier is None else _compare(earlier, router, losses, scores)
    try:
        guarantee = bound_loss(
            losses,
            scores,
            strong=router.strong,
            weak=router.weak,
            max_quality_loss=max_quality_loss,
            confidence=confidence,
            method=method,
        )
    except InputError as error:
        if contradicted:
            raise InputError(f"{error}; and {comparison[-1]}") from error
        raise
    guarantee = replace(guarantee, history=_history(earlier))
    costs = _known_costs(router, losses.queries, prices, output_tokens)
    return _guaranteed(router, losses, scores, guarantee, costs, [*notes, *comparison])


def _weights_in_words(losses: Losses) -> list[str]:
    """That the prompts have weights, where they have."""
    if losses.weight is None:
        return []
    return [
        f"the prompts have weights, {losses.weight.min():.2f} to {losses.weight.max():.2f} times their mean, and every "
        "figure counts them; the bound rests on how the prompts were chosen"
    ]


def _guaranteed(
    router: Router,
    losses: Losses,
    scores: npt.NDArray[np.floating],
    guarantee: Guarantee,
    costs: Array | None,
    notes: Sequence[str],
) -> ThresholdCalibration:
    """The calibration with a guarantee, and its report."""
    report = threshold_report(
        scores,
        guarantee.threshold,
        strong=router.strong,
        weak=router.weak,
        gaps=losses.gap,
        costs=costs,
        unit=losses.unit,
        guarantee=guarantee.as_dict(),
        notes=notes,
        weight=losses.weight,
    )
    return ThresholdCalibration(report=report, threshold=guarantee.threshold, guarantee=guarantee.as_dict())


def save_calibrated(source: str | Path, out: str | Path, calibration: ThresholdCalibration) -> Path:
    """Write a router's bundle with a new default threshold.

    The graph stays the same, byte by byte; the manifest and the model card are written anew. The bundle of a general
    router becomes that of the pair that was calibrated: it loads for this pair unless other models are named.

    Args:
        source: the router's bundle, or the name of a shipped one.
        out: where to write the bundle; may be the same folder.
        calibration: the new threshold.

    Returns:
        The folder that was written.

    Raises:
        InputError: ``out`` exists and is not a bundle.
        BundleError: the source is damaged or was changed after its export.
    """
    manifest, contents = read_bundle(source)
    if manifest.kind == GENERAL:
        manifest = load(source, strong=calibration.report.strong, weak=calibration.report.weak).manifest
    table = manifest.threshold_table if calibration.threshold_table is None else calibration.threshold_table
    guarantee = manifest.guarantee if calibration.guarantee is None else calibration.guarantee
    manifest = replace(manifest, threshold=calibration.threshold, threshold_table=tuple(table), guarantee=guarantee)
    return save_bundle(out, manifest, {**contents, CARD: model_card(manifest, Path(out).resolve().name).encode()})


def _calibration(
    router: Router, scores: npt.NDArray[np.floating], threshold: float, costs: Array | None
) -> ThresholdCalibration:
    """A threshold without labels: its report, and the threshold table of these queries."""
    report = threshold_report(scores, threshold, strong=router.strong, weak=router.weak, costs=costs)
    return ThresholdCalibration(report=report, threshold=threshold, threshold_table=threshold_table(scores))


def _scores(router: Router, queries: Sequence[Query]) -> npt.NDArray[np.floating]:
    queries = query_list(queries)
    if not queries:
        raise InputError("no queries were given; expected one or more, to measure the threshold on")
    return router.score(queries)


def _known_costs(router: Router, queries: Sequence[Query], prices: Sequence[Model], output_tokens: int) -> Array | None:
    """USD (n, 2) of each query at strong and at weak; None where a price is not known."""
    known = {model.name: model for model in (*router.pool, *prices)}
    pair = [known[name] for name in (router.strong, router.weak)]
    if any(model.input_price is None or model.output_price is None for model in pair):
        return None
    check_prices(pair)
    return query_costs(pair, queries, output_tokens)


def _history(earlier: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The earlier guarantees, oldest first, each without a history of its own."""
    if earlier is None:
        return []
    return [*earlier.get("history", ()), {key: value for key, value in earlier.items() if key != "history"}]


def _compare(
    earlier: Mapping[str, Any], router: Router, losses: Losses, scores: npt.NDArray[np.floating]
) -> tuple[list[str], bool]:
    """What new labels say of the earlier guarantee, in words, and whether they contradict it."""
    if (earlier["strong"], earlier["weak"], earlier["unit"]) != (router.strong, router.weak, losses.unit):
        return [f"the earlier guarantee was of another pair or unit ({earlier['unit']}), so it was not compared"], False
    if earlier["data_fingerprint"] == losses.fingerprint:
        return ["these are the labels of the earlier guarantee, so there is no new evidence"], False
    to_weak = scores < earlier["threshold"]
    loss = float(np.where(to_weak, losses.weighted_gap, 0.0).mean())
    sent = 1 - float(weighted_mean(to_weak, losses.weight))
    lines = [
        f"before: threshold {earlier['threshold']:.4f} sent {earlier['strong_share']:.1%} to strong and lost "
        f"{earlier['loss']:+.4f}; on these labels it sends {sent:.1%} and loses {loss:+.4f}"
    ]
    p = contradiction(earlier, losses, scores)
    contradicted = p <= earlier["delta"]
    verdict = "is contradicted by these labels" if contradicted else "is not contradicted by these labels"
    lines.append(
        f"the earlier guarantee (a loss of at most {earlier['max_quality_loss']:g}) {verdict} (p = {p:.3g}, one-sided)"
    )
    return lines, contradicted
