"""What a query costs, and thresholds for a budget in USD per thousand queries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..routers.base import Model, Router, ThresholdPolicy
from ..routers.errors import InputError
from ..routers.query import Query, estimate_tokens, transcript
from .threshold import StrongShare, Threshold

Array = npt.NDArray[np.float64]

#: Tokens of an answer: the same for every model, or by its name (some write twice as much as others).
OutputTokens = float | Mapping[str, float]


def priced(router: Router, names: Sequence[str], prices: Iterable[Model] = ()) -> list[Model]:
    """The models of these names with prices: those given, else those of the router's pool.

    Raises:
        InputError: a model has no price, or a price is below 0; names every such model.
    """
    known = {model.name: model for model in (*router.pool, *prices)}
    models = [known.get(name, Model(name)) for name in names]
    missing = [model.name for model in models if model.input_price is None or model.output_price is None]
    if missing:
        raise InputError(f"no prices of {missing}; expected input_price and output_price, USD per million tokens")
    check_prices(models)
    return models


def check_prices(models: Iterable[Model]) -> None:
    """Refuse prices that are none.

    Raises:
        InputError: a price is below 0 or not finite.
    """
    for model in models:
        for price in (model.input_price, model.output_price):
            if price is not None and not 0 <= price < math.inf:
                raise InputError(f"a price of {model.name!r} is {price}; expected USD per million tokens, 0 or more")


def token_costs(models: Sequence[Model], input_tokens: npt.ArrayLike, output_tokens: OutputTokens) -> Array:
    """USD (n, m) of queries of so many tokens at each priced model.

    Args:
        models: m models with prices.
        input_tokens: (n,) tokens of each query.
        output_tokens: see `OutputTokens`.

    Raises:
        InputError: a length below 0, or a model whose length is not given.
    """
    inputs = np.asarray(input_tokens, np.float64)
    lengths = [_length(output_tokens, model.name) for model in models]
    if not np.isfinite(inputs).all() or (inputs < 0).any() or not all(0 <= length < math.inf for length in lengths):
        raise InputError(f"tokens are {inputs.tolist()[:3]} in, {lengths[:3]} out; expected numbers from 0")
    rates = np.asarray([model.input_price or 0.0 for model in models])
    written = np.asarray([(model.output_price or 0.0) * length for model, length in zip(models, lengths, strict=True)])
    costs: Array = (inputs[:, None] * rates + written) / 1e6
    return costs


def query_costs(models: Sequence[Model], queries: Sequence[Query], output_tokens: OutputTokens) -> Array:
    """USD (n, m) of each query at each priced model; the length of a query is estimated (`estimate_tokens`)."""
    return token_costs(models, [estimate_tokens(transcript(query)) for query in queries], output_tokens)


def _length(output_tokens: OutputTokens, model: str) -> float:
    if not isinstance(output_tokens, Mapping):
        return output_tokens
    if model not in output_tokens:
        raise InputError(f"no output tokens of {model!r}; there are those of {sorted(output_tokens)}")
    return output_tokens[model]


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
