"""Is a cascade worth it here? Costs, the survey's conditions, sensitivity, latency, and a plain recommendation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cascade.confidence import joint_confidence
from ...cascade.verifier import Verifier
from ...data.records import Record
from ...routers.base import Model, Router
from ...routers.errors import InputError
from ...training.fit.metrics import (
    Array,
    auroc,
    expected_calibration_error,
    percentile_interval,
    resamples,
    routing_curve,
)
from ..pair import groups_of
from .analysis import (
    Asked,
    Latency,
    Point,
    Sensitivity,
    all_points,
    asked_both,
    cheapest,
    cross_fitted,
    frontier,
    latency_tails,
    sensitivity,
)

#: The survey's conditions for a cascade.
CONFIDENT_SHARE = (0.6, 0.7)
PRICE_RATIO = 5.0
#: Above this escalation rate a larger weak model is the better remedy.
RESIZE_AT = 0.65
#: A policy that misses the target by more than this share, on queries it was not tuned on, is not recommended.
MISS = 0.01
#: Folds over the prompts, for what thresholds give on queries that they were not picked on.
FOLDS = 5
#: A policy must be cheaper by this share than the simplest one to be recommended instead of it.
WORTH = 0.02
_NAMES: dict[str, str] = {"route": "route", "cascade": "cascade", "both": "route and cascade"}


@dataclass(frozen=True)
class Condition:
    """One condition, whether it holds (None: cannot be told), and the figures."""

    name: str
    holds: bool | None
    why: str


@dataclass(frozen=True)
class CascadePlan:
    """What `plan_cascade` finds; costs are USD a thousand queries.

    Attributes:
        strong: the strong model.
        weak: the weak model.
        queries: with weak's answer and the scores of both.
        target: mean score that has to be reached.
        quality: mean score of weak alone and of strong alone.
        cost: of weak alone and of strong alone.
        break_even: escalation rate at which a cascade costs as much as strong alone.
        verifier: AUROC and ECE of the confidence on these answers, and seconds an answer.
        apgr: by policy, with its 95 % interval.
        best: the cheapest point of each policy that reaches the target below strong's cost; None: it never does.
        cross_fitted: what each policy gives on queries that its thresholds were not picked on.
        curves: points of each policy that no other of it beats.
        conditions: the survey's.
        recommendation: "weak alone", "route", "cascade", "route and cascade" or "strong alone".
        reasons: in words.
        sensitivity: around the recommended threshold.
        latency: P50, P95 and P99 (s) by what happens to a request, where latencies were given.
        notes: what limits all this.
    """

    strong: str
    weak: str
    queries: int
    target: float
    quality: tuple[float, float]
    cost: tuple[float, float]
    break_even: float
    verifier: dict[str, float]
    apgr: dict[str, tuple[float, float, float]]
    best: dict[str, Point | None]
    cross_fitted: dict[str, Point]
    curves: dict[str, list[Point]]
    conditions: list[Condition]
    recommendation: str
    reasons: list[str]
    sensitivity: Sensitivity | None
    latency: dict[str, tuple[float, float, float]] | None
    notes: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> Point | None:
        """The recommended way to run; None: one model alone."""
        return next((self.best.get(kind) for kind, name in _NAMES.items() if name == self.recommendation), None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**asdict(self), "chosen": None if self.chosen is None else asdict(self.chosen)}


def plan_cascade(
    records: Sequence[Record],
    verifier: Verifier,
    *,
    strong: Model,
    weak: Model,
    router: Router | None = None,
    target: float = 0.95,
    output_tokens: int | None = None,
    verifier_usd_per_hour: float = 0.0,
    latencies: Mapping[str, Latency] | None = None,
    max_latency_s: float | None = None,
    joint: bool = False,
    bootstrap: int = 300,
    seed: int = 0,
) -> CascadePlan:
    """Compare routing, cascading and both on answers that neither router nor verifier was trained on.

    Args:
        records: performance records: weak's responses with scores, strong's scores.
        verifier: judges weak's answers.
        strong: with prices.
        weak: with prices.
        router: for routing, and for sending obvious queries straight to strong.
        target: share of strong's mean score that has to be reached.
        output_tokens: length of strong's answers, where the records hold none; None: as long as weak's.
        verifier_usd_per_hour: price of the machine that verifies; its time is measured here.
        latencies: of both models, by name.
        max_latency_s: longest P95 that an escalated user may wait.
        joint: escalate as `routelearn.cascade.Joint` does: by what strong would gain, not by confidence alone.
        bootstrap: resamples of the intervals.
        seed: of the resamples.

    Raises:
        InputError: nothing to plan on, a model without prices, or a target out of range.
    """
    if not 0 < target <= 1:
        raise InputError(f"target is {target}; expected a share of strong's quality from 0 to 1")
    if joint and router is None:
        raise InputError("joint needs a router, which says how good strong's answer will be")
    asked = asked_both(records, strong, weak, output_tokens)
    if not asked.strong_cost.any():
        raise InputError(f"{strong.name!r} costs nothing: there is nothing to save; expected its prices")
    if latencies and not {strong.name, weak.name} <= set(latencies):
        raise InputError(f"latencies of {sorted(latencies)}; expected those of {strong.name!r} and {weak.name!r}")
    if verifier.needs_prior and router is None:
        raise InputError("the verifier was trained with a router's score; give that router")
    scores = None if router is None else router.win_rate(asked.queries, strong.name, weak.name).astype(np.float64)
    priors = None if router is None or not verifier.needs_prior else router.score(asked.queries).tolist()
    start = time.perf_counter()
    raw = verifier.confidence(asked.queries, asked.answers, priors).astype(np.float64)
    verifier_cost = (time.perf_counter() - start) / len(asked) / 3600 * verifier_usd_per_hour
    seconds = _seconds(verifier, asked, priors)
    confidence = raw
    if joint and router is not None:
        if router.link == "bradley-terry":
            raise InputError("joint needs a router trained on scores; this one's quality is a win rate (bradley-terry)")
        quality = router.quality(asked.queries)[:, router.index(strong.name)].astype(np.float64)
        confidence = joint_confidence(raw, quality)
    good = asked.weak >= verifier.manifest.training["config"]["good_at"]
    alone = float(asked.weak.mean()), float(asked.strong.mean())
    cost = float(asked.weak_cost.mean() * 1000), float(asked.strong_cost.mean() * 1000)
    goal = target * alone[1]
    points = all_points(asked, scores, confidence, verifier_cost)
    best = {kind: cheapest(found, goal, cost[1]) for kind, found in points.items()}
    expected = cross_fitted(asked, scores, confidence, target, verifier_cost, _folds(asked, seed))
    cascade = best["cascade"]
    tails = None
    if latencies and cascade is not None:
        tails = latency_tails(latencies, strong.name, weak.name, best.get("both") or cascade, seconds, seed)
    conditions = _conditions(cascade, cost, tails, max_latency_s)
    recommendation, reasons = _recommend(best, expected, alone, cost, goal, conditions)
    chosen = next((best.get(kind) for kind, name in _NAMES.items() if name == recommendation), None)
    return CascadePlan(
        strong.name,
        weak.name,
        len(asked),
        goal,
        alone,
        cost,
        1 - (cost[0] / 1000 + verifier_cost) / (cost[1] / 1000),
        {
            "AUROC": auroc(raw, good),
            "ECE": expected_calibration_error(raw, good.astype(np.float64)),
            "seconds": seconds,
        },
        _apgr(asked, scores, confidence, bootstrap, seed),
        best,
        expected,
        {kind: frontier(found) for kind, found in points.items()},
        conditions,
        recommendation,
        reasons,
        None if chosen is None else sensitivity(asked, scores, confidence, chosen, verifier_cost),
        tails,
        _notes(asked, chosen, verifier, router, strong.name, weak.name),
    )


def _seconds(verifier: Verifier, asked: Asked, priors: Sequence[float] | None) -> float:
    """Median seconds of verifying one answer alone, as a request waits for it."""
    taken = []
    for row in range(min(20, len(asked))):
        start = time.perf_counter()
        verifier.confidence(
            asked.queries[row : row + 1],
            asked.answers[row : row + 1],
            None if priors is None else priors[row : row + 1],
        )
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def _folds(asked: Asked, seed: int) -> npt.NDArray[np.int64]:
    """The number of each query's fold; queries of one prompt share it."""
    groups = groups_of(asked.keys)
    return np.random.default_rng(seed).permutation(int(groups.max()) + 1)[groups] % FOLDS


def _notes(
    asked: Asked, chosen: Point | None, verifier: Verifier, router: Router | None, strong: str, weak: str
) -> list[str]:
    notes = []
    if chosen is not None and chosen.escalation_rate > RESIZE_AT:
        notes.append(f"{chosen.escalation_rate:.0%} escalated: a larger weak model is the better remedy")
    if len(asked) < 500:
        notes.append(f"{len(asked)} queries: the thresholds are known to no more than a few points of escalation rate")
    if weak not in verifier.models:
        notes.append(f"the verifier never saw answers of {weak}; it knows those of {', '.join(verifier.models)}")
    if router is not None and (router.strong, router.weak) != (strong, weak):
        notes.append(
            f"the direct threshold is on the win rate of {strong} over {weak}; the router's own score is of "
            f"{router.strong} over {router.weak}: give the cascade a router of the same pair"
        )
    gap = asked.strong - asked.weak
    if gap.mean() < 1.96 * gap.std() / np.sqrt(len(gap)):
        notes.append("strong is not clearly better than weak on these queries: APGR and the recommendation say little")
    return notes


def _apgr(
    asked: Asked, scores: Array | None, confidence: Array, bootstrap: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """APGR over the strong share, with its interval, and the paired difference where there are two policies."""
    by = {"cascade": 1 - confidence, **({} if scores is None else {"route": scores})}
    value = {name: routing_curve(found, asked.strong, asked.weak).apgr for name, found in by.items()}
    drawn: dict[str, list[float]] = {name: [] for name in by}
    for rows in resamples(groups_of(asked.keys), bootstrap, seed):
        for name, found in by.items():
            drawn[name].append(routing_curve(found[rows], asked.strong[rows], asked.weak[rows]).apgr)
    result = {name: (value[name], *percentile_interval(drawn[name])) for name in by}
    if scores is not None:
        differences = [c - r for c, r in zip(drawn["cascade"], drawn["route"], strict=True)]
        result["cascade less route"] = (value["cascade"] - value["route"], *percentile_interval(differences))
    return result


def _recommend(
    best: Mapping[str, Point | None],
    expected: Mapping[str, Point],
    alone: tuple[float, float],
    cost: tuple[float, float],
    goal: float,
    conditions: Sequence[Condition],
) -> tuple[str, list[str]]:
    """The simplest policy that no other undercuts by more than `WORTH`, on queries that it was not tuned on."""
    if alone[0] >= goal and cost[0] <= cost[1]:
        return "weak alone", [f"weak alone has a mean score of {alone[0]:.4f}, at or above the target of {goal:.4f}"]
    reasons = [f"condition not met: {found.name}; {found.why}" for found in conditions if found.holds is False]
    too_slow = conditions[-1].holds is False
    order: list[tuple[str, Point]] = []
    for kind in ("route", "cascade", "both"):
        if kind not in best:
            continue
        if best[kind] is None:
            reasons.append(f"{_NAMES[kind]}: does not reach a mean score of {goal:.4f} below the cost of strong alone")
            continue
        if kind != "route" and too_slow:
            reasons.append(f"{_NAMES[kind]}: an escalated user would wait too long")
            continue
        point = expected[kind]
        if point.quality < goal * (1 - MISS):
            reasons.append(f"{_NAMES[kind]}: only {point.quality:.4f} on queries it was not tuned on, below the target")
            continue
        order.append((kind, point))
        reasons.append(
            f"{_NAMES[kind]}: {point.quality:.4f} for {point.cost:.4f} USD a thousand on queries it was not tuned "
            f"on, {point.strong_share:.0%} of them answered by strong (strong alone: {cost[1]:.4f} USD)"
        )
    if not order or min(point.cost for _, point in order) > cost[1] * (1 - WORTH):
        return "strong alone", [*reasons, "nothing undercuts strong alone at this quality"]
    least = min(point.cost for _, point in order)
    kind, point = next((k, p) for k, p in order if p.cost <= least * (1 + WORTH))
    reasons.append(f"{_NAMES[kind]} saves {1 - point.cost / cost[1]:.0%} against strong alone")
    return _NAMES[kind], reasons


def _conditions(
    cascade: Point | None,
    cost: tuple[float, float],
    tails: dict[str, tuple[float, float, float]] | None,
    max_latency_s: float | None,
) -> list[Condition]:
    low, high = CONFIDENT_SHARE
    if cascade is None:
        confident = Condition("weak handles 60-70 % confidently", False, "at no threshold is the target reached")
    else:
        share = 1 - cascade.escalation_rate
        holds = share >= high or (None if share >= low else False)
        confident = Condition(
            "weak handles 60-70 % confidently",
            holds,
            f"it handles {share:.0%} at the threshold that reaches the target",
        )
    ratio = cost[1] / cost[0] if cost[0] else float("inf")
    conditions = [
        confident,
        Condition(
            f"strong costs at least {PRICE_RATIO:g} times weak", ratio >= PRICE_RATIO, f"it costs {ratio:.1f} times"
        ),
    ]
    if tails is None:
        latency = Condition("the latency of an escalation is acceptable", None, "no latencies were given")
    else:
        p95 = tails["escalated"][1]
        verdict = None if max_latency_s is None else p95 <= max_latency_s
        limit = "no limit was given" if max_latency_s is None else f"the limit is {max_latency_s:g} s"
        latency = Condition(
            "the latency of an escalation is acceptable",
            verdict,
            f"P95 of an escalated request is {p95:.2f} s; {limit}",
        )
    return [*conditions, latency]
