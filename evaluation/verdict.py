"""Whether to deploy a router: in one word, with the reason in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..data.records import PerformanceRecord, Record, check_records, record_key
from ..policies.cost import query_costs
from ..routers.base import Router
from ..routers.decision import Model
from ..routers.errors import InputError
from ..routers.query import prompt_key
from ..training.fit.metrics import Array, percentile_interval, resamples, weighted_mean
from .costs import priced_models
from .thresholds.guarantee import Guarantee, bound_loss, labels_needed
from .thresholds.losses import Losses, losses_of

Action = Literal["deploy", "do not deploy", "label more"]
#: A figure, and its 95 % interval.
Estimate = tuple[float, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What to do with a router.

    Attributes:
        action: "deploy", "do not deploy" or "label more".
        reason: why, in a sentence.
        prompts: number of labelled prompts that the verdict rests on.
        threshold: score at or above it goes to strong; None: there is no threshold to deploy.
        strong_share: share of the prompts that goes to strong at this threshold.
        loss: mean loss of quality against always-strong at this threshold.
        less_than_random: how much smaller that loss is than the loss of a random choice with the same share of strong
            calls, with its 95 % interval.
        usd_saved: USD that 1,000 queries cost less than with strong alone, with its 95 % interval; None: costs are not
            known.
        labels_needed: labels that a guarantee needs, by simulation; None: not known, or not needed.

    Example:
        >>> from routelearn.evaluation import verdict_of
        >>> records = [record for record in routelearn.read_records("records.jsonl").records if record.split == "test"]
        >>> verdict = verdict_of(routelearn.load("router/"), records, max_quality_loss=0.1)
        >>> verdict.action in ("deploy", "label more")
        True
    """

    action: Action
    reason: str
    prompts: int
    threshold: float | None = None
    strong_share: float | None = None
    loss: float | None = None
    less_than_random: Estimate | None = None
    usd_saved: Estimate | None = None
    labels_needed: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.action}: {self.reason}"


def verdict_of(
    router: Router,
    records: Sequence[Record],
    *,
    max_quality_loss: float = 0.05,
    confidence: float = 0.95,
    prices: Sequence[Model] = (),
    output_tokens: int = 300,
    costs: Mapping[tuple[str, str], float] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Verdict:
    """Decide whether a router is worth its place between its strong and its weak model.

    It is, where a threshold that sends some queries to weak keeps the loss of quality within a bound (`bound_loss`),
    and the router does not lose more than a random choice with as many strong calls.

    Args:
        router: the router.
        records: performance or preference records of strong and weak that the router was not trained on.
        max_quality_loss: the largest loss of quality against always-strong that is acceptable.
        confidence: of the guarantee.
        prices: models with prices; the router's pool gives the others. Costs that were paid come first.
        output_tokens: assumed length of an answer where no cost is known.
        costs: USD that were paid for answers, by prompt key and model, beside the `cost_usd` of performance records.
        bootstrap: number of resamples of the intervals.
        seed: of the resamples.

    Raises:
        InputError: there is no record of both models, or a number is out of range.
    """
    check_records(records)
    losses = losses_of(records, router.strong, router.weak)
    scores = router.score(losses.queries).astype(np.float64)
    draws = list(resamples(np.arange(len(losses)), bootstrap, seed))
    lost = _mean(losses.gap, losses.weight, draws)
    if lost[1][1] <= max_quality_loss:
        return _weak_alone(router, losses, lost, max_quality_loss)
    try:
        guarantee = bound_loss(
            losses,
            scores,
            strong=router.strong,
            weak=router.weak,
            max_quality_loss=max_quality_loss,
            confidence=confidence,
        )
    except InputError:
        return _without_guarantee(router, losses, scores, max_quality_loss, confidence)
    usd = _costs(router, losses, _paid(records, costs), prices, output_tokens)
    return _with_guarantee(losses, scores, guarantee, usd, draws)


def _weak_alone(router: Router, losses: Losses, lost: Estimate, max_quality_loss: float) -> Verdict:
    """The verdict where the weak model is good enough for everything."""
    return Verdict(
        action="do not deploy",
        reason=(
            f"{router.weak} alone loses {_span(lost, '+.3f')} points of the {losses.unit} against {router.strong}, "
            f"which is within the {max_quality_loss:g} that you accept: send everything to {router.weak}"
        ),
        prompts=len(losses),
    )


def _with_guarantee(
    losses: Losses, scores: Array, guarantee: Guarantee, usd: Array | None, draws: Sequence[npt.NDArray[np.int64]]
) -> Verdict:
    """The verdict at a threshold with a bounded loss: deploy, unless a random choice loses less."""
    to_weak = scores < guarantee.threshold
    less = _mean(losses.gap * (1 - guarantee.strong_share - to_weak), losses.weight, draws)
    saved = None if usd is None else _mean(1000 * to_weak * (usd[:, 0] - usd[:, 1]), losses.weight, draws)
    worse, better = less[1][1] < 0, less[1][0] > 0
    compared = "loses more" if worse else "loses less" if better else "does not lose measurably more or less"
    money = f"; that saves {_span(saved, '.2f')} USD per 1,000 queries" if saved else ""
    return Verdict(
        action="do not deploy" if worse else "deploy",
        reason=(
            f"at threshold {guarantee.threshold:.4f}, {guarantee.strong_share:.0%} of the queries go to "
            f"{guarantee.strong}, and the loss against {guarantee.strong} alone is at most "
            f"{guarantee.max_quality_loss:g} points of the {losses.unit} with {1 - guarantee.delta:.0%} confidence"
            f"{money}; the router {compared} than a random choice with as many strong calls ({_span(less, '+.3f')})"
        ),
        prompts=len(losses),
        threshold=guarantee.threshold,
        strong_share=guarantee.strong_share,
        loss=guarantee.loss,
        less_than_random=less,
        usd_saved=saved,
    )


def _without_guarantee(
    router: Router, losses: Losses, scores: Array, max_quality_loss: float, confidence: float
) -> Verdict:
    """The verdict where no threshold has a bounded loss: more labels may find one, or nothing does."""
    largest = losses.largest_weighted
    needed = labels_needed(scores, losses.weighted_gap / largest, max_quality_loss / largest, 1 - confidence, "betting")
    what = f"a loss of at most {max_quality_loss:g} points of the {losses.unit} with {confidence:.0%} confidence"
    if needed is None:
        return Verdict(
            action="do not deploy",
            reason=(
                f"no threshold of this router saves calls of {router.strong} within {what}, however many labels there "
                "are"
            ),
            prompts=len(losses),
        )
    return Verdict(
        action="label more",
        reason=f"{len(losses):,} held-out labelled prompts do not show {what}; some {needed:,} held-out ones would",
        prompts=len(losses),
        labels_needed=needed,
    )


def _mean(values: Array, weight: Array | None, draws: Sequence[npt.NDArray[np.int64]]) -> Estimate:
    """A mean and its 95 % bootstrap interval."""
    drawn = [weighted_mean(values[rows], None if weight is None else weight[rows]) for rows in draws]
    low, high = percentile_interval(np.array(drawn))
    return float(weighted_mean(values, weight)), (float(low), float(high))


def _paid(records: Sequence[Record], costs: Mapping[tuple[str, str], float] | None) -> dict[tuple[str, str], float]:
    """USD that were paid for answers, by prompt key and model."""
    paid = dict(costs or {})
    for record in records:
        if isinstance(record, PerformanceRecord) and record.cost_usd is not None:
            paid[record_key(record), record.model] = record.cost_usd
    return paid


def _costs(
    router: Router,
    losses: Losses,
    paid: Mapping[tuple[str, str], float],
    prices: Sequence[Model],
    output_tokens: int,
) -> Array | None:
    """USD (n, 2) of each prompt at strong and at weak: as paid, else from prices; None: neither is known."""
    names = (router.strong, router.weak)
    keys = [prompt_key(query) for query in losses.queries]
    if all((key, name) in paid for key in keys for name in names):
        return np.array([[paid[key, name] for name in names] for key in keys])
    known = priced_models([*router.pool, *prices])
    if not all(name in known for name in names):
        return None
    return query_costs([known[name] for name in names], losses.queries, output_tokens)


def _span(value: Estimate, form: str) -> str:
    mean, (low, high) = value
    return f"{mean:{form}} ({low:{form}} to {high:{form}})"
