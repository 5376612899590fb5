"""Cost-aware and multi-objective choice over all models: quality less what cost and latency are worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..routers.base import Assessment, Context, Decision, Model, Router, learned_rows
from ..routers.errors import InputError
from .cost import Array, OutputTokens, priced, token_costs

#: `Decision.cause` of a choice by utility.
UTILITY = "utility"
#: The context's key with the tokens of one query.
INPUT_TOKENS = "input_tokens"

#: P95 latency (s) by model: figures, or a function that gives the latest one (None: not measured yet).
Latencies = Mapping[str, float] | Callable[[str], float | None]


@dataclass(frozen=True, slots=True)
class Objective:
    """The model with the largest ``quality - cost_weight * cost - latency_weight * P95``; models that are down last.

    With a cost weight alone this is the cost-aware choice of RouterBench (arXiv 2403.12031, section 4): weight 0 is
    the best model, a very large weight the cheapest. Decisions have the cause "utility"; their score and
    threshold are the router's, and did not decide.

    Attributes:
        cost_weight: quality that one USD a query is worth (lambda).
        latency_weight: quality that one second of P95 latency is worth.
        prices: models with prices; those of the router's pool where a model is not among them.
        input_tokens: expected tokens of a query, where its context has no "input_tokens".
        output_tokens: expected tokens of an answer; a mapping gives them by model.
        latency_s: P95 by model, or a function of the model's name; what is not measured yet counts as the others' mean.
        available: a function of the model's name: whether it is up.
        models: the candidates; empty: the whole pool.
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
        """Refuse weights that are none, and a latency weight without latencies."""
        for name, value in (("cost_weight", self.cost_weight), ("latency_weight", self.latency_weight)):
            if not 0 <= value < math.inf:
                raise InputError(f"{name} is {value}; expected a number from 0")
        if self.latency_weight and self.latency_s is None:
            raise InputError("latency_weight needs latency_s: P95 seconds by model, or a function of the model's name")

    def decide(
        self, router: Router, assessment: Assessment, contexts: Sequence[Context] | None = None
    ) -> list[Decision]:
        """See `Policy.decide`.

        Raises:
            InputError: a candidate without a price or a latency, or one that is not in the pool.
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
        """USD (n, m) of these rows; zeros where costs do not count."""
        if not self.cost_weight:
            return np.zeros((len(rows), len(names)))
        tokens = [self.input_tokens if contexts is None else self._tokens(contexts[row]) for row in rows]
        return token_costs(priced(router, names, self.prices), tokens, self.output_tokens)

    def _tokens(self, context: Context) -> float:
        given = context.get(INPUT_TOKENS)
        try:
            return self.input_tokens if given is None else float(given)
        except ValueError:
            raise InputError(f"the context's {INPUT_TOKENS} is {given!r}; expected a number of tokens") from None

    def _latencies(self, names: Sequence[str]) -> Array:
        """P95 (m,) in seconds; zeros where latencies do not count."""
        if not self.latency_weight or self.latency_s is None:
            return np.zeros(len(names))
        if callable(self.latency_s):
            measured = [self.latency_s(name) for name in names]
        else:
            missing = [name for name in names if name not in self.latency_s]
            if missing:
                raise InputError(f"no P95 latency of {missing}; there are those of {sorted(self.latency_s)}")
            measured = [self.latency_s[name] for name in names]
        known = [value for value in measured if value is not None]
        if not all(0 <= value < math.inf for value in known):
            raise InputError(f"P95 latencies are {measured} of {list(names)}; expected seconds from 0, or None")
        mean = sum(known) / len(known) if known else 0.0  # one that was never measured must not be out of reach
        return np.asarray([mean if value is None else value for value in measured], np.float64)


def cost_aware(
    value_usd: float,
    prices: Sequence[Model] = (),
    *,
    input_tokens: float = 500,
    output_tokens: OutputTokens = 300,
    models: Sequence[str] = (),
) -> Objective:
    """The cost-aware choice, from what a good answer is worth.

    Args:
        value_usd: USD that a perfect answer (quality 1) is worth over a useless one (0); lambda is its inverse.
        prices: see `Objective`.
        input_tokens: see `Objective`.
        output_tokens: see `Objective`.
        models: see `Objective`.

    Raises:
        InputError: the value is not above 0.
    """
    if not 0 < value_usd < math.inf:
        raise InputError(f"value_usd is {value_usd}; expected USD above 0")
    return Objective(
        1 / value_usd, prices=prices, input_tokens=input_tokens, output_tokens=output_tokens, models=models
    )
