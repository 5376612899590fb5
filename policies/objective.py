"""Policies that choose among all models by quality, cost and latency."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..routers.assessment import Assessment
from ..routers.base import Policy, Router, learned_rows
from ..routers.checks import check_names, check_number
from ..routers.decision import Context, Decision, Model
from ..routers.errors import InputError
from .cost import Array, OutputTokens, check_price_list, priced, token_costs

#: The `Decision.cause` when the utility decided.
UTILITY = "utility"
#: The key of the context that holds the number of tokens of the query.
INPUT_TOKENS = "input_tokens"

#: P95 latency in seconds of each model: numbers, or a function of the name (it gives None: not measured yet).
Latencies = Mapping[str, float] | Callable[[str], float | None]


@dataclass(frozen=True, slots=True)
class Objective(Policy):
    """Chooses the model with the largest utility: ``quality - cost_weight * cost - latency_weight * P95``.

    With a cost weight alone this is the cost-aware choice of RouterBench (arXiv 2403.12031, section 4): weight 0
    chooses the best model, a very large weight the cheapest. Models that are down rank last. Decisions have the cause
    "utility"; they carry the router's score and threshold, which did not decide.

    Attributes:
        cost_weight: how much quality one USD per query is worth (lambda).
        latency_weight: how much quality one second of P95 latency is worth.
        prices: models with prices; a model that is not among them has its price from the router's pool.
        input_tokens: expected tokens of a query, for queries whose context has no "input_tokens".
        output_tokens: expected tokens of an answer: a number, or a number for each model.
        latency_s: P95 latency of models in seconds, or a function of the model's name. A model that was not measured
            yet (it is missing, or has None) counts with the mean of the others.
        available: a function of the model's name that says whether the model is up; None: all are up.
        models: the candidates; empty: the whole pool.

    Example:
        >>> import routelearn
        >>> from routelearn import Model
        >>> from routelearn.policies import Objective
        >>> prices = [Model("sim-max", 10, 30), Model("sim-small", 0.5, 1.5)]
        >>> cheapest = Objective(cost_weight=1e6, prices=prices, models=["sim-max", "sim-small"])
        >>> routelearn.load("router/").route("Prove it.", cheapest).model
        'sim-small'
    """

    cost_weight: float = 0.0
    latency_weight: float = 0.0
    prices: Sequence[Model] = ()
    input_tokens: float = 500
    output_tokens: OutputTokens = 300
    latency_s: Latencies | None = None
    available: Callable[[str], bool] | None = None
    models: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the weights, and that a latency weight has latencies."""
        for name, value in (("cost_weight", self.cost_weight), ("latency_weight", self.latency_weight)):
            check_number(name, value, "a number from 0")
            if not 0 <= value < math.inf:
                raise InputError(f"{name} is {value}; expected a number from 0")
        if self.latency_weight and self.latency_s is None:
            raise InputError(
                f"latency_weight is {self.latency_weight} and latency_s is None; "
                "expected the P95 seconds of each model, or a function of the model's name"
            )
        check_number("input_tokens", self.input_tokens, "a number of tokens")
        check_price_list(self.prices)
        check_names("models", self.models)
        if self.latency_s is not None and not isinstance(self.latency_s, Mapping) and not callable(self.latency_s):
            raise InputError(f"latency_s is {self.latency_s!r:.80}; expected {{'model': seconds}}, or a function")
        if self.available is not None and not callable(self.available):
            raise InputError(f"available is {self.available!r:.80}; expected a function of the model's name, or None")

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """Decide every row by its utility.

        Raises:
            InputError: a candidate has no price or is not in the pool, or `latency_s` knows none of the candidates.
        """
        names = tuple(self.models) or router.models
        columns = [router.index(name) for name in names]
        decisions = router.decide(assessment, router.threshold)
        rows = learned_rows(assessment)
        quality = assessment.quality[rows][:, columns].astype(np.float64)
        cost = self._cost(router, names, rows, contexts)
        latency = self._latencies(names)
        utility = quality - self.cost_weight * cost - self.latency_weight * latency
        down = np.asarray([self.available is not None and not self.available(name) for name in names], np.bool_)
        ranking = np.lexsort((-utility, np.broadcast_to(down, utility.shape)), axis=1)
        for place, row in enumerate(rows):
            order = ranking[place].tolist()
            best = order[0]
            reason = f"utility {utility[place, best]:.4f} = quality {quality[place, best]:.4f}"
            if self.cost_weight:
                reason += f" - {self.cost_weight:g} x {cost[place, best]:.6f} USD"
            if self.latency_weight:
                reason += f" - {self.latency_weight:g} x {latency[best]:.2f} s"
            better_but_down = [
                names[i] for i in np.flatnonzero(down & (utility[place] > utility[place, best])).tolist()
            ]
            if better_but_down:
                reason += f"; down: {', '.join(better_but_down)}"
            decisions[row] = replace(
                decisions[row],
                model=names[best],
                candidates=tuple(names[i] for i in order),
                reason=reason,
                cause=UTILITY,
            )
        return decisions

    def _cost(
        self, router: Router, names: Sequence[str], rows: Sequence[int], contexts: Sequence[Context] | None
    ) -> Array:
        """Compute the USD (n, m) of these rows; zeros if costs do not count."""
        if not self.cost_weight:
            return np.zeros((len(rows), len(names)))
        tokens = [self.input_tokens if contexts is None else self._tokens(contexts[row]) for row in rows]
        return token_costs(priced(router, names, self.prices), tokens, self.output_tokens)

    def _tokens(self, context: Context) -> float:
        given = context.get(INPUT_TOKENS)
        try:
            return self.input_tokens if given is None else float(given)
        except (TypeError, ValueError):
            raise InputError(f"the context's {INPUT_TOKENS} is {given!r}; expected a number of tokens") from None

    def _latencies(self, names: Sequence[str]) -> Array:
        """Look up the P95 latencies (m,) in seconds; zeros if latencies do not count."""
        if not self.latency_weight or self.latency_s is None:
            return np.zeros(len(names))
        if callable(self.latency_s):
            measured = [self.latency_s(name) for name in names]
        else:
            if not any(name in self.latency_s for name in names):
                raise InputError(
                    f"latency_s has the models {sorted(self.latency_s)}; expected some of {list(names)} among them"
                )
            measured = [self.latency_s.get(name) for name in names]
        known = [value for value in measured if value is not None]
        for value in known:
            if not isinstance(value, numbers.Real):
                raise InputError(f"a P95 latency is {value!r:.80}; expected seconds, or None")
        if not all(0 <= value < math.inf for value in known):
            raise InputError(f"the P95 latencies of {list(names)} are {measured}; expected seconds from 0, or None")
        mean = sum(known) / len(known) if known else 0.0  # a model that was never measured must stay eligible
        return np.asarray([mean if value is None else value for value in measured], np.float64)


def cost_aware(
    value_usd: float,
    prices: Sequence[Model] = (),
    *,
    input_tokens: float = 500,
    output_tokens: OutputTokens = 300,
    models: Sequence[str] = (),
) -> Objective:
    """Make the cost-aware `Objective` from the value of a good answer.

    Args:
        value_usd: how many USD a perfect answer (quality 1) is worth more than a useless one (quality 0), above 0.
        prices: models with prices, as in `Objective`.
        input_tokens: expected tokens of a query, as in `Objective`.
        output_tokens: expected tokens of an answer, as in `Objective`.
        models: the candidates, as in `Objective`.

    Raises:
        InputError: value_usd is not above 0.
    """
    check_number("value_usd", value_usd, "USD above 0")
    if not 0 < value_usd < math.inf:
        raise InputError(f"value_usd is {value_usd}; expected USD above 0")
    return Objective(
        1 / value_usd, prices=prices, input_tokens=input_tokens, output_tokens=output_tokens, models=models
    )
