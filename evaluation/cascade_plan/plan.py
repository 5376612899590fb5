"""Is a cascade worth it here? Costs, conditions, sensitivity and latency, and a recommendation in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cascade.verifier import Verifier
from ...data.records import Record
from ...routers.base import Router
from ...routers.decision import Model
from ...routers.errors import InputError
from ...training.fit.metrics import (
    Array,
    percentile_interval,
    resamples,
    routing_curve,
)
from ..pair import groups_of
from .analysis import (
    Point,
    Sensitivity,
    cross_fitted,
    run_policy,
    sensitivity,
)
from .answered_queries import AnsweredQueries, answered_queries
from .evidence import Evidence, gather_evidence
from .intervals import Comparison, comparisons, within_chance
from .latency_tail import Latency, latency_tails
from .recommendation import NAMES, Baseline, Condition, conditions, recommend
from .search import Family, families

#: Above this escalation rate a larger weak model is the better remedy.
RESIZE_AT = 0.65
#: With fewer queries a note says that the thresholds are uncertain.
FEW_QUERIES = 500
#: Number of folds over the prompts, to measure policies on queries that their thresholds were not picked on.
FOLDS = 5
#: Most points of a policy's curve.
CURVE_POINTS = 60


@dataclass(frozen=True, kw_only=True)
class CascadePlan:
    """What `plan_cascade` finds; all costs are USD for 1,000 queries.

    Example:
        >>> from routelearn.evaluation import plan_cascade
        >>> plan = plan_cascade(
        ...     routelearn.read_records("records.jsonl").records,
        ...     routelearn.load_verifier("verifier/"),
        ...     strong=routelearn.Model("sim-max", 10.0, 30.0),
        ...     weak=routelearn.Model("sim-small", 0.5, 1.5),
        ...     bootstrap=5,
        ... )
        >>> plan.cost[0] < plan.cost[1], plan.recommendation in {"weak alone", "cascade", "strong alone"}
        (True, True)

    Attributes:
        strong: the strong model.
        weak: the weak model.
        queries: number of queries with weak's answer and the scores of both models.
        target: mean score that has to be reached.
        quality: mean scores of weak alone and of strong alone.
        cost: costs of weak alone and of strong alone.
        cost_basis: what the costs of weak's answers and of strong's answers are taken from, in words.
        break_even: escalation rate at which a cascade costs as much as strong alone.
        verifier: "AUROC" and "ECE" of the confidence on these answers, and "seconds" of verifying one.
        apgr: average performance gap recovered of each policy, with its 95 % interval.
        best: the cheapest point of each policy that reaches the target below strong's cost; None: there is none.
        cross_fitted: what each policy gives on queries that its thresholds were not picked on.
        comparisons: each policy against each model alone and the router, on those queries, with 95 % intervals.
        curves: the points of each policy that no other point of it beats in both cost and quality, at most
            `CURVE_POINTS` of each.
        conditions: the conditions of a worthwhile cascade.
        recommendation: "weak alone", "route", "cascade", "route and cascade" or "strong alone".
        reasons: the reasons of the recommendation, in words.
        sensitivity: how fast the figures change around the recommended threshold; None: nothing is verified.
        latency: P50, P95 and P99 (s) by what happens to a request; None: latencies are not known.
        notes: what limits these figures.
    """

    strong: str
    weak: str
    queries: int
    target: float
    quality: tuple[float, float]
    cost: tuple[float, float]
    cost_basis: tuple[str, str]
    break_even: float
    verifier: dict[str, float]
    apgr: dict[str, tuple[float, float, float]]
    best: dict[str, Point | None]
    cross_fitted: dict[str, Point]
    comparisons: list[Comparison]
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
        return _chosen(self.recommendation, self.best)

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data, ready for JSON."""
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

    The answers are replayed: see `CascadePlan` for an example.

    Args:
        records: performance records: weak's responses with scores, and strong's scores.
        verifier: judges weak's answers.
        strong: the strong model, with prices.
        weak: the weak model, with prices.
        router: sends queries straight to strong; None: cascades alone.
        target: share of strong's mean score that has to be reached, above 0 and at most 1.
        output_tokens: assumed length of strong's answers where the records hold none; None: as long as weak's.
        verifier_usd_per_hour: price of the machine that verifies; the time of the verifier is measured here.
        latencies: of both models, by name.
        max_latency_s: longest P95 (s) that an escalated user may wait.
        joint: escalate as `routelearn.cascade.Joint` does: by what strong would gain, not by confidence alone.
        bootstrap: number of resamples of the intervals.
        seed: seed of the resamples.

    Raises:
        InputError: there is no query to plan on, a model has no prices, or an argument is out of range.
    """
    if not 0 < target <= 1:
        raise InputError(f"target is {target}; expected a share of strong's mean score, above 0 and at most 1")
    if latencies and not {strong.name, weak.name} <= set(latencies):
        raise InputError(f"latencies has {sorted(latencies)}; expected entries for {strong.name!r} and {weak.name!r}")
    answered = answered_queries(records, strong, weak, output_tokens)
    if not answered.strong_cost.any():
        raise InputError(f"{strong.name!r} costs nothing, so there is nothing to save; expected prices above 0")
    evidence = gather_evidence(answered, verifier, router, strong.name, weak.name, joint, verifier_usd_per_hour)
    settings = _Settings(
        strong=strong.name,
        weak=weak.name,
        target=target,
        good_at=verifier.manifest.training["config"]["good_at"],
        latencies=latencies,
        max_latency_s=max_latency_s,
        bootstrap=bootstrap,
        seed=seed,
    )
    return _plan(evidence, settings, _notes(answered, verifier, router, strong.name, weak.name))


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The arguments of `plan_cascade` that the plan is made with; good_at: the score from which an answer is good."""

    strong: str
    weak: str
    target: float
    good_at: float
    latencies: Mapping[str, Latency] | None
    max_latency_s: float | None
    bootstrap: int
    seed: int


def _plan(evidence: Evidence, settings: _Settings, notes: list[str]) -> CascadePlan:
    """Replay every policy on the evidence, and recommend one."""
    answered, scores, confidence = evidence.answered, evidence.scores, evidence.confidence
    alone = Baseline(
        quality=(float(answered.weak.mean()), float(answered.strong.mean())),
        cost=(float(answered.weak_cost.mean() * 1000), float(answered.strong_cost.mean() * 1000)),
        target=settings.target * float(answered.strong.mean()),
    )
    plans = families(answered, scores, confidence, evidence.verifier_cost)
    best = {kind: _best(evidence, family, alone) for kind, family in plans.items()}
    folds = _folds(answered, settings.seed)
    crossed = cross_fitted(answered, scores, confidence, settings.target, evidence.verifier_cost, folds)
    expected = {kind: found.point() for kind, found in crossed.items()}
    cascade = best["cascade"]
    tails = None
    if settings.latencies and cascade is not None:
        timed = best.get("both") or cascade
        tails = latency_tails(
            settings.latencies, settings.strong, settings.weak, timed, evidence.verifier_s, settings.seed
        )
    met = conditions(cascade, alone.cost, tails, settings.max_latency_s)
    recommendation, reasons = recommend(best, expected, alone, met)
    chosen = _chosen(recommendation, best)
    compared = comparisons(answered, crossed, settings.bootstrap, settings.seed)
    return CascadePlan(
        strong=settings.strong,
        weak=settings.weak,
        queries=len(answered),
        target=alone.target,
        quality=alone.quality,
        cost=alone.cost,
        cost_basis=answered.cost_basis,
        break_even=1 - (alone.cost[0] / 1000 + evidence.verifier_cost) / (alone.cost[1] / 1000),
        verifier=evidence.verifier_figures(settings.good_at),
        apgr=_apgr(answered, scores, confidence, settings.bootstrap, settings.seed),
        best=best,
        cross_fitted=expected,
        comparisons=compared,
        curves={kind: _curve(evidence, family) for kind, family in plans.items()},
        conditions=met,
        recommendation=recommendation,
        reasons=reasons,
        sensitivity=None
        if chosen is None
        else sensitivity(answered, scores, confidence, chosen, evidence.verifier_cost),
        latency=tails,
        notes=[*_resize(chosen), *within_chance(recommendation, compared), *notes],
    )


def _best(evidence: Evidence, family: Family, alone: Baseline) -> Point | None:
    """The cheapest plan of a family that reaches the target below strong's cost."""
    found = family.cheapest(alone.target, alone.cost[1])
    return None if found is None else _point(evidence, found)


def _curve(evidence: Evidence, family: Family) -> list[Point]:
    frontier = family.frontier()
    places = np.unique(np.linspace(0, len(frontier) - 1, min(CURVE_POINTS, len(frontier))).round().astype(int))
    return [_point(evidence, frontier[place]) for place in places.tolist()]


def _point(evidence: Evidence, thresholds: tuple[float | None, float | None]) -> Point:
    return run_policy(
        evidence.answered, evidence.scores, evidence.confidence, *thresholds, verifier_cost=evidence.verifier_cost
    )


def _chosen(recommendation: str, best: Mapping[str, Point | None]) -> Point | None:
    return next((best.get(kind) for kind, name in NAMES.items() if name == recommendation), None)


def _folds(answered: AnsweredQueries, seed: int) -> npt.NDArray[np.int64]:
    """The number of each query's fold, int64 (n,); queries of one prompt share it."""
    groups = groups_of(answered.keys)
    return np.random.default_rng(seed).permutation(int(groups.max()) + 1)[groups] % FOLDS


def _resize(chosen: Point | None) -> list[str]:
    if chosen is None or chosen.escalation_rate <= RESIZE_AT:
        return []
    return [f"{chosen.escalation_rate:.0%} of the queries escalate: a larger weak model is the better remedy"]


def _notes(answered: AnsweredQueries, verifier: Verifier, router: Router | None, strong: str, weak: str) -> list[str]:
    """What limits the figures, in words."""
    notes = []
    if len(answered) < FEW_QUERIES:
        notes.append(
            f"there are only {len(answered)} queries: the escalation rate at a threshold is uncertain by a few points"
        )
    if weak not in verifier.models:
        notes.append(f"the verifier never saw answers of {weak}; it knows those of {', '.join(verifier.models)}")
    if router is not None and (router.strong, router.weak) != (strong, weak):
        notes.append(
            f"the direct threshold applies to the win rate of {strong} over {weak}, but the router's own score is of "
            f"{router.strong} over {router.weak}: give the cascade a router of the same pair"
        )
    gap = answered.strong - answered.weak
    if gap.mean() < 1.96 * gap.std() / np.sqrt(len(gap)):
        notes.append("strong is not clearly better than weak on these queries: APGR and the recommendation say little")
    return notes


def _apgr(
    answered: AnsweredQueries, scores: Array | None, confidence: Array, bootstrap: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """APGR over the strong share with its 95 % interval, and the paired difference where there are two policies."""
    by_policy = {"cascade": 1 - confidence, **({} if scores is None else {"route": scores})}
    value = {
        name: routing_curve(to_strong, answered.strong, answered.weak).apgr for name, to_strong in by_policy.items()
    }
    drawn: dict[str, list[float]] = {name: [] for name in by_policy}
    for rows in resamples(groups_of(answered.keys), bootstrap, seed):
        for name, to_strong in by_policy.items():
            drawn[name].append(routing_curve(to_strong[rows], answered.strong[rows], answered.weak[rows]).apgr)
    result = {name: (value[name], *percentile_interval(drawn[name])) for name in by_policy}
    if scores is not None:
        differences = [c - r for c, r in zip(drawn["cascade"], drawn["route"], strict=True)]
        result["cascade minus route"] = (value["cascade"] - value["route"], *percentile_interval(differences))
    return result
