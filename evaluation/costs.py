"""Prices and costs in an evaluation. The rule for the cost of one query is in policies/cost.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..policies.cost import Array, OutputTokens, check_prices, query_costs
from ..routers.decision import Model
from ..routers.query import Query


def priced_models(models: Sequence[Model]) -> dict[str, Model]:
    """The models that have both prices, by name.

    Raises:
        InputError: a price is below 0 or not finite.
    """
    check_prices(models)
    return {m.name: m for m in models if m.input_price is not None and m.output_price is not None}


def pair_costs(
    prices: Mapping[str, Model], strong: str, weak: str, queries: Sequence[Query], output_tokens: OutputTokens
) -> Array | None:
    """USD (n, 2) of each query at strong and at weak; None: a price is not known.

    Args:
        prices: models with both prices, by name.
        strong: the strong model.
        weak: the weak model.
        queries: n queries.
        output_tokens: assumed tokens of an answer.
    """
    if strong not in prices or weak not in prices:
        return None
    return query_costs([prices[strong], prices[weak]], queries, output_tokens)
