"""What a query costs in USD, and thresholds that keep a thousand queries within a budget.

Every part of routelearn that states USD counts alike: `query_tokens` estimates the tokens of a query, and `call_cost`
turns tokens and prices into USD.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..routers.base import Router, ThresholdPolicy, check_router
from ..routers.checks import as_number, check_number
from ..routers.decision import PRICES, Model
from ..routers.errors import InputError
from ..routers.query import Query, estimate_tokens, query_list, transcript
from .threshold import StrongShare, Threshold

Array = npt.NDArray[np.float64]
#: The highest price that can be meant, in USD per million tokens; products of it stay finite.
MOST_PRICE = 1e9
#: One number of tokens, or an array of them.
Tokens = TypeVar("Tokens", float, Array)

#: Tokens of an answer: one number for every model, or a number by the model's name (some models write twice as much
#: as others).
OutputTokens = float | Mapping[str, float]


def query_tokens(query: Query) -> int:
    """Estimate how many tokens a model reads for a query: the whole transcript, system messages included."""
    return estimate_tokens(transcript(query))


def call_cost(model: Model, input_tokens: Tokens, output_tokens: float) -> Tokens | None:
    """USD of one call (or of several calls, as an array).

    Args:
        model: with its prices, USD per million tokens.
        input_tokens: tokens that the model reads.
        output_tokens: tokens that the model writes.

    Returns:
        The cost, or None when a price of the model is not known.
    """
    if model.input_price is None or model.output_price is None:
        return None
    return (input_tokens * model.input_price + output_tokens * model.output_price) / 1e6


def priced(router: Router, names: Sequence[str], prices: Iterable[Model] = ()) -> list[Model]:
    """Look up models with their prices: the given prices win over those of the router's pool.

    Raises:
        InputError: a model has no price, or a price is below 0; the message names every such model.
    """
    known = {model.name: model for model in (*router.pool, *prices)}
    models = [known.get(name, Model(name)) for name in names]
    check_all_priced(models)
    return models


def check_price_list(prices: object) -> None:
    """Refuse what is no list of models with prices.

    Raises:
        InputError: it is none; the message says what to write.
    """
    if isinstance(prices, (Model, str, Mapping)) or not isinstance(prices, Sequence):
        raise InputError(f"prices is {prices!r:.80}; expected a list: [Model(name, input_price, output_price), ...]")
    for model in prices:
        if not isinstance(model, Model):
            raise InputError(f"prices holds {model!r:.80}; expected Model(name, input_price, output_price)")


def check_all_priced(models: Sequence[Model]) -> None:
    """Refuse models without prices.

    Raises:
        InputError: a model has no price, or a price is below 0 or not finite.
    """
    missing = [model.name for model in models if model.input_price is None or model.output_price is None]
    if missing:
        raise InputError(
            f"no prices are known for {missing}; expected input_price and output_price, USD per million tokens, in the "
            "bundle or in a models.toml (--pool)"
        )
    check_prices(models)


def check_prices(models: Iterable[Model]) -> None:
    """Refuse prices out of range; a price that is not known passes.

    Raises:
        InputError: a price is below 0, not a number, or above `MOST_PRICE`.
    """
    for model in models:
        for field in PRICES:
            price = getattr(model, field, None)  # the imaginary models of the sample have no cached price
            if price is not None and not 0 <= as_number(price) <= MOST_PRICE:
                raise InputError(
                    f"a price of {model.name!r} is out of its range: {field} is {price!r:.80}; expected USD per "
                    f"million tokens, from 0 to {MOST_PRICE:g}"
                )


def token_costs(models: Sequence[Model], input_tokens: npt.ArrayLike, output_tokens: OutputTokens) -> Array:
    """USD (n, m) of n queries at each of m models.

    Args:
        models: m models with prices.
        input_tokens: (n,) tokens of each query.
        output_tokens: tokens of an answer; a mapping gives them by model.

    Raises:
        InputError: a number of tokens is below 0 or not finite, or a model has no price or no number of tokens.
    """
    inputs = np.asarray(input_tokens, np.float64)
    lengths = [_length(output_tokens, model.name) for model in models]
    if not np.isfinite(inputs).all() or (inputs < 0).any():
        raise InputError(f"input_tokens begin with {inputs.tolist()[:3]}; expected finite numbers of 0 or more")
    if not all(0 <= length < math.inf for length in lengths):
        raise InputError(f"output_tokens are {lengths[:3]}; expected finite numbers of 0 or more")
    columns = [call_cost(model, inputs, length) for model, length in zip(models, lengths, strict=True)]
    known = [column for column in columns if column is not None]
    if len(known) < len(models):
        check_all_priced(models)
    return np.stack(known, axis=1)


def query_costs(models: Sequence[Model], queries: Sequence[Query], output_tokens: OutputTokens) -> Array:
    """USD (n, m) of n queries at each of m models; the tokens of a query are estimated by `query_tokens`.

    Args:
        models: m models with prices.
        queries: n queries.
        output_tokens: tokens of an answer; a mapping gives them by model.

    Raises:
        InputError: as `token_costs`.
    """
    return token_costs(models, [query_tokens(query) for query in queries], output_tokens)


def _length(output_tokens: OutputTokens, model: str) -> float:
    if not isinstance(output_tokens, Mapping):
        check_number("output_tokens", output_tokens, "a number of tokens, or a number for each model")
        return output_tokens
    if model not in output_tokens:
        raise InputError(f"output_tokens has no number for {model!r}; it has numbers for {sorted(output_tokens)}")
    return output_tokens[model]


@dataclass(frozen=True, slots=True)
class CostPerThousand(ThresholdPolicy):
    """A policy that chooses the threshold by what a thousand queries may cost, from prices and expected lengths.

    The policy takes the largest strong share with ``share * cost(strong) + (1 - share) * cost(weak)`` within the
    budget, and looks up the threshold of that share in the router's table. This assumes that the queries which go to
    strong are as long as the others. Where they are longer, the cost exceeds the budget: `budget_threshold` takes the
    length of each of your queries into account.

    Example:
        >>> from routelearn.policies import CostPerThousand
        >>> prices = [routelearn.Model("sim-max", 10.0, 30.0), routelearn.Model("sim-small", 0.5, 1.0)]
        >>> policy = CostPerThousand(3.65, input_tokens=400, output_tokens=100, prices=prices)
        >>> router = routelearn.load("router/")
        >>> round(policy.strong_share(router), 3)  # always sim-max costs 7 USD, always sim-small 0.3 USD
        0.5
        >>> router.route("Prove that 2 is prime.", policy).model in {"sim-max", "sim-small"}
        True

    Attributes:
        usd: budget in USD for 1,000 queries, 0 or more.
        input_tokens: expected tokens of a query.
        output_tokens: expected tokens of an answer; a mapping gives them by model.
        prices: models with prices; the router's pool gives the prices of the models that are not listed here.
    """

    usd: float
    input_tokens: float
    output_tokens: OutputTokens = 300
    prices: Sequence[Model] = ()

    def __post_init__(self) -> None:
        """Refuse a budget out of range."""
        _check_budget(self.usd)
        check_number("input_tokens", self.input_tokens, "a number of tokens")
        check_price_list(self.prices)

    def threshold_of(self, router: Router) -> float:
        """The threshold at which the router spends the budget.

        Raises:
            InputError: a price is missing, the weak model alone exceeds the budget, or the router has no threshold
                table.
        """
        return StrongShare(self.strong_share(router)).threshold_of(router)

    def strong_share(self, router: Router) -> float:
        """The share of the queries, in [0, 1], that can go to strong within the budget.

        Raises:
            InputError: a price is missing, or the weak model alone exceeds the budget.
        """
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
    """The lowest threshold at which queries like these stay within a budget.

    Each query counts with its own length at the model that it goes to.

    Args:
        router: scores the queries; its pool gives the prices that are not listed in ``prices``.
        queries: n of your queries, n >= 1; they need no labels.
        usd: budget in USD for 1,000 queries, 0 or more.
        output_tokens: expected tokens of an answer; a mapping gives them by model.
        prices: models with prices.

    Raises:
        InputError: there is no query, a price is missing, or the weak model alone exceeds the budget.
    """
    check_router(router)
    queries = query_list(queries)
    check_price_list(prices)
    if not queries:
        raise InputError("no queries were given; expected one or more, to measure the cost on")
    pair = priced(router, (router.strong, router.weak), prices)
    costs = query_costs(pair, queries, output_tokens)
    return Threshold(threshold_within(router.score(queries), costs, usd, router.weak))


def threshold_within(scores: npt.NDArray[np.floating], costs: Array, usd: float, weak: str) -> float:
    """The lowest threshold at which scored queries stay within a budget.

    Args:
        scores: (n,) the router's scores.
        costs: (n, 2) USD of each query at strong and at weak.
        usd: budget in USD for 1,000 queries, 0 or more.
        weak: name of the weak model, for the error message.

    Raises:
        InputError: the budget is out of range, or the weak model alone exceeds it.
    """
    _check_budget(usd)
    _check_floor(usd, float(costs[:, 1].mean() * 1000), weak)
    values, starts = np.unique(-np.asarray(scores, np.float64), return_inverse=True)
    extra = np.bincount(starts, weights=costs[:, 0] - costs[:, 1])
    total = (costs[:, 1].sum() + np.cumsum(extra)) * 1000 / len(scores)
    # A budget of exactly what all queries cost at strong must pass, although the sum is rounded.
    within = np.flatnonzero(total <= usd * (1 + 1e-12))
    if not len(within):
        return math.nextafter(1.0, 2.0)
    last = int(within[-1])
    return 0.0 if last == len(values) - 1 else float(-values[last])


def _check_budget(usd: float) -> None:
    check_number("usd", usd, "the budget in USD per 1,000 queries, a finite number of 0 or more")
    if not 0 <= usd < math.inf:
        raise InputError(f"the budget is {usd} USD per 1,000 queries; expected a finite number of 0 or more")


def _check_floor(usd: float, weak_usd: float, weak: str) -> None:
    if weak_usd > usd * (1 + 1e-12):
        raise InputError(
            f"always {weak!r} costs {weak_usd:.4g} USD per 1,000 queries, above the budget of {usd:.4g}; "
            "expected a larger budget or a cheaper weak model"
        )
