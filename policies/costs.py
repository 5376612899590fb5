"""What a query costs at each model: prices are given when they are needed, not baked in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..cascade.backends import estimate_tokens, transcript
from ..routers.base import Model, Router
from ..routers.errors import InputError
from ..routers.query import Query

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
