"""The recommendation of a cascade plan: the conditions of a worthwhile cascade, and the choice between the policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .analysis import Point

#: Share of the queries that weak should answer with confidence: below the first a cascade is not worth it, from the
#: second on it is.
CONFIDENT_SHARE = (0.6, 0.7)
#: Strong should cost at least so many times as much as weak.
PRICE_RATIO = 5.0
#: A policy whose mean score stays below the target by more than this share, on queries that its thresholds were not
#: picked on, is not recommended.
MISS = 0.01
#: A more complicated policy is recommended only if it is cheaper by this share than a simpler one.
WORTH = 0.02
#: The recommendation by the kind of a point, the simplest first.
NAMES: dict[str, str] = {"route": "route", "cascade": "cascade", "both": "route and cascade"}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition of a worthwhile cascade.

    Example:
        >>> from routelearn.evaluation import Condition
        >>> condition = Condition(name="strong is dearer", holds=True, why="it costs 20.0 times as much")
        >>> f"{condition.name}: {condition.why}"
        'strong is dearer: it costs 20.0 times as much'

    Attributes:
        name: the condition in words.
        holds: whether it holds; None when the figures do not decide it.
        why: the figures in words.
    """

    name: str
    holds: bool | None
    why: str


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What the two models do alone, and what has to be reached.

    Attributes:
        quality: mean scores of weak alone and of strong alone.
        cost: USD for 1,000 queries of weak alone and of strong alone.
        target: mean score that has to be reached.
    """

    quality: tuple[float, float]
    cost: tuple[float, float]
    target: float


def conditions(
    cascade: Point | None,
    cost: tuple[float, float],
    tails: Mapping[str, tuple[float, float, float]] | None,
    max_latency_s: float | None,
) -> list[Condition]:
    """The three conditions of a worthwhile cascade: confidence, prices, latency.

    Args:
        cascade: the cheapest cascade that reaches the target; None: there is none.
        cost: USD for 1,000 queries of weak alone and of strong alone.
        tails: P50, P95 and P99 (s) by what happens to a request; None: latencies are not known.
        max_latency_s: longest P95 (s) that an escalated user may wait; None: no limit.
    """
    ratio = cost[1] / cost[0] if cost[0] else float("inf")
    return [
        _confident(cascade),
        Condition(
            name=f"strong costs at least {PRICE_RATIO:g} times as much as weak",
            holds=ratio >= PRICE_RATIO,
            why=f"it costs {ratio:.1f} times as much",
        ),
        _acceptable_latency(tails, max_latency_s),
    ]


def _confident(cascade: Point | None) -> Condition:
    low, high = CONFIDENT_SHARE
    name = f"weak answers {low * 100:.0f} to {high * 100:.0f} % of the queries with confidence"
    if cascade is None:
        return Condition(name=name, holds=False, why="no threshold reaches the target")
    share = 1 - cascade.escalation_rate
    return Condition(
        name=name,
        holds=share >= high or (None if share >= low else False),
        why=f"it answers {share:.0%} at the threshold that reaches the target",
    )


def _acceptable_latency(
    tails: Mapping[str, tuple[float, float, float]] | None, max_latency_s: float | None
) -> Condition:
    name = "the latency of an escalated request is acceptable"
    if tails is None:
        return Condition(name=name, holds=None, why="the latencies of the models are not known")
    p95 = tails["escalated"][1]
    limit = "no limit was given" if max_latency_s is None else f"the limit is {max_latency_s:g} s"
    return Condition(
        name=name,
        holds=None if max_latency_s is None else p95 <= max_latency_s,
        why=f"the P95 of an escalated request is {p95:.2f} s; {limit}",
    )


def recommend(
    best: Mapping[str, Point | None],
    expected: Mapping[str, Point],
    alone: Baseline,
    known: Sequence[Condition],
) -> tuple[str, list[str]]:
    """Recommend the simplest policy that no other policy undercuts by more than `WORTH`.

    Args:
        best: the cheapest point of each kind that reaches the target below strong's cost, or None.
        expected: what each kind gives on queries that its thresholds were not picked on.
        alone: the two models alone, and the target.
        known: the conditions, that of the latency last.

    Returns:
        "weak alone", "strong alone" or one of `NAMES`, and the reasons in words.
    """
    goal, strong_cost = alone.target, alone.cost[1]
    if alone.quality[0] >= goal and alone.cost[0] <= strong_cost:
        return "weak alone", [
            f"weak alone has a mean score of {alone.quality[0]:.4f}, which reaches the target of {goal:.4f}"
        ]
    reasons = [f"a condition does not hold: {one.name}; {one.why}" for one in known if one.holds is False]
    eligible: list[tuple[str, Point]] = []
    for kind in (kind for kind in NAMES if kind in best):
        point = expected[kind]
        obstacle = _obstacle(kind, best[kind], point, goal, too_slow=known[-1].holds is False)
        if obstacle:
            reasons.append(f"{NAMES[kind]}: {obstacle}")
            continue
        eligible.append((kind, point))
        reasons.append(
            f"{NAMES[kind]}: a mean score of {point.quality:.4f} for {point.cost:.4f} USD per 1,000 queries, on "
            f"queries that its thresholds were not picked on; strong answers {point.strong_share:.0%} of them (strong "
            f"alone costs {strong_cost:.4f} USD)"
        )
    least = min((point.cost for _, point in eligible), default=float("inf"))
    if least > strong_cost * (1 - WORTH):
        return "strong alone", [*reasons, "no policy is cheaper than strong alone at this quality"]
    kind, point = next((kind, point) for kind, point in eligible if point.cost <= least * (1 + WORTH))
    reasons.append(f"{NAMES[kind]} costs {1 - point.cost / strong_cost:.0%} less than strong alone")
    return NAMES[kind], reasons


def _obstacle(kind: str, best: Point | None, expected: Point, goal: float, *, too_slow: bool) -> str:
    """Why a policy cannot be recommended, in words; empty when it can."""
    if best is None:
        return f"it does not reach a mean score of {goal:.4f} below the cost of strong alone"
    if kind != "route" and too_slow:
        return "an escalated user would wait too long"
    if expected.quality < goal * (1 - MISS):
        return (
            f"it reaches only {expected.quality:.4f} on queries that its thresholds were not picked on, below the "
            f"target of {goal:.4f}"
        )
    return ""
