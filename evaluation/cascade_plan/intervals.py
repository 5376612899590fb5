"""How sure a cascade plan is: policies against the models alone and against the router, query by query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...training.fit.metrics import percentile_interval, resamples
from ..pair import groups_of
from .analysis import Replay, strong_alone, weak_alone
from .answered_queries import AnsweredQueries
from .recommendation import NAMES

#: What the intervals are of.
INTERVALS_IN_WORDS = (
    "intervals are at 95 %, from resampled prompts; the thresholds that decide on a query were picked on the other "
    "four fifths of the queries"
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One policy against another one on the same queries.

    Example:
        >>> from routelearn.evaluation import Comparison
        >>> saved, lost = (-0.3, -0.35, -0.25), (0.0, -0.01, 0.01)
        >>> Comparison(policy="route", against="strong alone", cost=saved, quality=lost).sentence()
        'route against strong alone: cost -30.0 % (-35.0 to -25.0), mean score +0.0000 (-0.0100 to +0.0100)'

    Attributes:
        policy: a name of a recommendation.
        against: the other policy.
        cost: difference in cost as a share of strong alone's cost, below 0 where the policy is cheaper, and its 95 %
            interval.
        quality: difference in mean score, and its 95 % interval.
    """

    policy: str
    against: str
    cost: tuple[float, float, float]
    quality: tuple[float, float, float]

    def sentence(self) -> str:
        """The comparison in words."""
        cost, low, high = (100 * value for value in self.cost)
        quality, worst, best = self.quality
        return (
            f"{self.policy} against {self.against}: cost {cost:+.1f} % ({low:+.1f} to {high:+.1f}), mean score "
            f"{quality:+.4f} ({worst:+.4f} to {best:+.4f})"
        )


def comparisons(
    answered: AnsweredQueries, crossed: Mapping[str, Replay], bootstrap: int, seed: int
) -> list[Comparison]:
    """Compare every policy with each model alone, and the cascades with the router too, paired by query.

    Args:
        answered: n queries.
        crossed: what each kind gives for the n queries, under thresholds that were not picked on them.
        bootstrap: number of resamples of the prompts.
        seed: seed of the resamples.
    """
    alone = {"strong alone": strong_alone(answered), "weak alone": weak_alone(answered)}
    policies = {**alone, **{name: crossed[kind] for kind, name in NAMES.items() if kind in crossed}}
    pairs = [
        (name, other)
        for name in policies
        for other in [*alone, *(["route"] if "route" in policies else [])]
        if name != other and not (name in alone and other == "route")
    ]
    full = float(answered.strong_cost.mean())
    # (n, pairs) each: differences of every query, so that a resample is one mean.
    cost = np.stack([policies[a].cost - policies[b].cost for a, b in pairs], axis=1) / full
    quality = np.stack([policies[a].quality - policies[b].quality for a, b in pairs], axis=1)
    both = np.concatenate([cost, quality], axis=1)
    drawn = np.stack([both[rows].mean(axis=0) for rows in resamples(groups_of(answered.keys), bootstrap, seed)])
    value = both.mean(axis=0)

    def with_interval(column: int) -> tuple[float, float, float]:
        return (float(value[column]), *percentile_interval(drawn[:, column]))

    return [
        Comparison(policy=a, against=b, cost=with_interval(i), quality=with_interval(len(pairs) + i))
        for i, (a, b) in enumerate(pairs)
    ]


def within_chance(policy: str, found: list[Comparison]) -> list[str]:
    """Say whether a policy is not clearly cheaper than strong alone, or than the router."""
    return [
        f"on these queries {policy} is not clearly cheaper than {one.against}: the interval of the difference in cost "
        "reaches 0"
        for one in found
        if one.policy == policy and one.against in {"strong alone", "route"} and one.cost[2] >= 0
    ]
