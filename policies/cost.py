"""Thresholds for a budget: USD per thousand queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..routers.base import Model, Router
from ..routers.errors import InputError
from ..routers.query import Query
from .costs import Array, OutputTokens, priced, query_costs, token_costs
from .threshold import StrongShare, Threshold, ThresholdPolicy


@dataclass(frozen=True, slots=True)
class CostPerThousand(ThresholdPolicy):
    """A threshold by what a thousand queries may cost, from prices and expected lengths.

    The strong share is the largest with ``share * cost(strong) + (1 - share) * cost(weak)`` within the budget; its
    threshold is that of the router's table. Where long queries go to strong more often than short ones the budget
    is missed by that: `budget_threshold` measures it on your queries.

    Attributes:
        usd: per 1,000 queries.
        input_tokens: expected tokens of a query.
        output_tokens: expected tokens of an answer; a mapping gives them by model.
        prices: models with prices; those of the router's pool where a model is not among them.
    """

    usd: float
    input_tokens: float
    output_tokens: OutputTokens = 300
    prices: Sequence[Model] = ()

    def __post_init__(self) -> None:
        """Refuse what is no budget."""
        _check_budget(self.usd)

    def threshold_of(self, router: Router) -> float:
        """See `ThresholdPolicy.threshold_of`.

        Raises:
            InputError: a price is missing, always-weak exceeds the budget, or the router was never calibrated.
        """
        return StrongShare(self.strong_share(router)).threshold_of(router)

    def strong_share(self, router: Router) -> float:
        """The strong share, in [0, 1], that costs so much; raises InputError as `threshold_of`."""
        pair = priced(router, (router.strong, router.weak), self.prices)
        strong, weak = (float(cost) * 1000 for cost in token_costs(pair, [self.input_tokens], self.output_tokens)[0])
        _check_floor(self.usd, weak, router.weak)
        if self.usd >= strong:
            return 1.0
        return (self.usd - weak) / (strong - weak)


def budget_threshold(
    router: Router,
    queries: Sequence[Query],
    usd: float,
    *,
    output_tokens: OutputTokens = 300,
    prices: Sequence[Model] = (),
) -> Threshold:
    """The lowest threshold at which queries like these cost at most so much.

    Each query counts with its own length at the model that it goes to.

    Args:
        router: scores the queries; its pool has the prices that are not given here.
        queries: n queries of yours, n >= 1; no labels.
        usd: per 1,000 queries.
        output_tokens: expected tokens of an answer; a mapping gives them by model.
        prices: models with prices.

    Raises:
        InputError: no queries, a price is missing, or always-weak exceeds the budget.
    """
    if not queries:
        raise InputError("a budget is measured on your queries, and there is none")
    pair = priced(router, (router.strong, router.weak), prices)
    costs = query_costs(pair, queries, output_tokens)
    return Threshold(threshold_within(router.score(queries), costs, usd, router.weak))


def threshold_within(scores: npt.NDArray[np.floating], costs: Array, usd: float, weak: str) -> float:
    """See `budget_threshold`.

    Args:
        scores: (n,).
        costs: (n, 2), USD of each query at strong and at weak.
        usd: per 1,000 queries.
        weak: name of the weak model, for the message.
    """
    _check_budget(usd)
    _check_floor(usd, float(costs[:, 1].mean() * 1000), weak)
    values, starts = np.unique(-np.asarray(scores, np.float64), return_inverse=True)
    extra = np.bincount(starts, weights=costs[:, 0] - costs[:, 1])
    total = (costs[:, 1].sum() + np.cumsum(extra)) * 1000 / len(scores)
    # Rounding of the sum must not refuse the very cost of sending all of these to strong.
    within = np.flatnonzero(total <= usd * (1 + 1e-12))
    if not len(within):
        return math.nextafter(1.0, 2.0)
    last = int(within[-1])
    return 0.0 if last == len(values) - 1 else float(-values[last])


def _check_budget(usd: float) -> None:
    if not 0 <= usd < math.inf:
        raise InputError(f"the budget is {usd} USD per 1,000 queries; expected a number from 0")


def _check_floor(usd: float, weak_usd: float, weak: str) -> None:
    if weak_usd > usd * (1 + 1e-12):
        raise InputError(
            f"always {weak!r} costs {weak_usd:.4g} USD per 1,000 queries, above the budget of {usd:.4g}; "
            "expected a larger budget or a cheaper weak model"
        )
