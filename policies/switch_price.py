"""What it costs that a session changes its model, and whether the change is worth it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..routers.checks import as_number, check_number, check_seconds
from ..routers.decision import Model
from ..routers.errors import InputError
from .cost import call_cost, check_price_list, check_prices
from .prompt_cache import cacheable
from .session_state import SessionState


def cached_price(model: Model) -> float | None:
    """USD of a million input tokens that the model's cache holds; the full price where no cached price is known."""
    if model.input_price is None or model.cached_input_price is None:
        return model.input_price
    return min(model.cached_input_price, model.input_price)


def request_cost(model: Model, tokens: float, cached: float, output_tokens: float) -> float | None:
    """USD of one request; None: a price of the model is not known.

    Args:
        model: with its prices.
        tokens: that the model reads, the cached ones among them.
        cached: of these, the tokens that its prompt cache holds.
        output_tokens: tokens that the model writes.
    """
    uncached, price = call_cost(model, tokens - cached, output_tokens), cached_price(model)
    return None if uncached is None or price is None else uncached + cached * price / 1e6


def _is_better(model: Model, other: Model, tokens: float, output_tokens: float) -> bool:
    """Whether a model is the better one of two: it costs more where no cache helps it."""
    costs = [call_cost(one, tokens, output_tokens) or 0.0 for one in (model, other)]
    return costs[0] > costs[1]


def switch_cost(history_tokens: int, model: Model, cached_price_share: float | None = None) -> float | None:
    """Compute what a switch costs: the new model reads the whole history at full price, not from a prompt cache.

    Args:
        history_tokens: the tokens of the conversation so far, 0 or more.
        model: the model to switch to.
        cached_price_share: the price of a cached input token as a share of the full price, from 0 to 1; 1 means that
            the provider has no prompt cache. None: what the model's `cached_input_price` says, or 1 where it has none.

    Returns:
        The USD that the switch costs more than staying with a model of the same price; None: the price is not known.

    Raises:
        InputError: a number is out of range.
    """
    if not isinstance(model, Model):
        raise InputError(f"model is {model!r:.80}; expected Model(name, input_price=...)")
    check_number("history_tokens", history_tokens, "a number from 0")
    if cached_price_share is None:
        full, cached = model.input_price, cached_price(model)
        cached_price_share = cached / full if full and cached is not None else 1.0
    check_number("cached_price_share", cached_price_share, "a number from 0 to 1")
    if history_tokens < 0 or not 0 <= cached_price_share <= 1:
        raise InputError(
            f"history_tokens is {history_tokens} and cached_price_share is {cached_price_share}; "
            "expected a number from 0, and a number from 0 to 1"
        )
    if model.input_price is None:
        return None
    return history_tokens * model.input_price * (1 - cached_price_share) / 1e6


def margin_of_cost(usd: float, value_per_quality_usd: float) -> float:
    """Compute the margin at which a switch is worth its cost.

    A switch gains quality[new] - quality[kept] in this answer, and pays when that is worth more than it costs. The
    score moves by half of the gain, so the margin is ``usd / value_per_quality_usd / 2``, at most 1. If the session
    is expected to have n more answers, divide the cost by n.

    Args:
        usd: the cost of the switch in USD, from `switch_cost`.
        value_per_quality_usd: how many USD an answer of quality 1 is worth more than one of quality 0, above 0.

    Raises:
        InputError: a number is out of range.
    """
    if not (0 <= as_number(usd) < math.inf and as_number(value_per_quality_usd) > 0):
        raise InputError(
            f"usd is {usd} and value_per_quality_usd is {value_per_quality_usd}; "
            "expected a number from 0, and a number above 0"
        )
    return min(1.0, float(usd) / float(value_per_quality_usd) / 2)


class Switch(NamedTuple):
    """What a switch gains and costs over the rest of a session, in USD."""

    gain: float
    price: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchPrices:
    """Weighs what a session gains from another model against what the other model's empty cache costs.

    A prompt cache holds what its model has read of the conversation. Where both models have read all of it, the
    threshold decides, as it does for single prompts. Where the other model has not, the switch has a price: the tokens
    that it has not read, at the difference of the full and the cached price. A session switches when the gain over the
    requests still expected exceeds that price.

    The gain of one request is in proportion to the distance of the score s from the threshold t. At the threshold, a
    router takes the dearer model for as much as it costs more, so that cost is the worth of the score there:
    ``gain = (USD of strong - USD of weak) * (s - t) / (t - b)``. The score b at which the dearer model gains nothing is
    one half (a win rate), or 0 where the threshold is not above one half. With `value_usd`, the worth is given
    instead: ``gain = 2 * value_usd * (s - b) - (USD of strong - USD of weak)``. Requests to come are expected to score
    like the mean of the session. The better of two models is the one that costs more without a cache. Where its cache
    makes it the cheaper one, it gains the difference whatever the score.

    Attributes:
        models: with input and output prices and `cached_input_price`. Sessions between other models follow the margin.
        output_tokens: expected tokens of an answer.
        cache_ttl_s: seconds for which a provider's cache holds what was read last.
        value_usd: how many USD an answer of quality 1 is worth more than one of quality 0; None: what the threshold
            says.

    Example:
        >>> from routelearn import Model
        >>> from routelearn.policies import Conversations, SwitchPrices
        >>> large, small = Model("sim-max", 3.0, 15.0, cached_input_price=0.3), Model("sim-small", 0.3, 1.5)
        >>> sessions = Conversations(prices=SwitchPrices(models=[large, small]))
    """

    models: Sequence[Model]
    output_tokens: float = 300.0
    cache_ttl_s: float = 300.0
    value_usd: float | None = None

    def __post_init__(self) -> None:
        """Check the prices.

        Raises:
            InputError: a number is out of its range.
        """
        check_price_list(self.models)
        check_prices(self.models)
        check_seconds("cache_ttl_s", self.cache_ttl_s, or_none=False)
        for name, least in (("output_tokens", self.output_tokens), ("value_usd", self.value_usd)):
            if least is not None and not 0 <= as_number(least) < math.inf:
                raise InputError(f"{name} is {least!r:.80}; expected a finite number of 0 or more")

    def switch(
        self,
        session: SessionState,
        model: str,
        *,
        tokens: int,
        score: float,
        threshold: float,
        requests_left: float,
        now: float,
    ) -> Switch | None:
        """What the session gains and pays when it changes its model; None: a price is not known.

        Args:
            session: before this request.
            model: the other model.
            tokens: of this request.
            score: of this request.
            threshold: of the decision.
            requests_left: requests still expected, this one included.
            now: time in seconds, on the clock of the session.
        """
        known = {one.name: one for one in self.models}
        kept, other = known.get(session.model), known.get(model)
        if kept is None or other is None:
            return None
        # A request that is shorter than the last one begins anew, and is in no cache.
        before = session.context if session.context <= tokens else 0
        stays = request_cost(kept, tokens, cacheable(before), self.output_tokens)
        moves = request_cost(other, tokens, cacheable(before), self.output_tokens)
        if stays is None or moves is None:
            return None
        dearer = moves - stays
        better = _is_better(other, kept, tokens, self.output_tokens)
        mean = (session.score_sum + score) / (session.scored + 1)
        if dearer == 0:
            return None
        gain = self._gain(score, threshold, dearer, better) + (requests_left - 1) * max(
            0.0, self._gain(mean, threshold, dearer, better)
        )
        price = self._unread(other, session, before, now) - self._unread(kept, session, before, now)
        return Switch(gain, price)

    def _gain(self, score: float, threshold: float, dearer: float, better: bool) -> float:
        """USD that one request gains from the other model, with warm caches."""
        none = 0.5 if threshold > 0.5 else 0.0
        if self.value_usd is not None:
            return (1 if better else -1) * 2 * self.value_usd * (score - none) - dearer
        if better != (dearer > 0):  # the better model is the cheaper one, so that no score speaks for the other
            return -dearer
        return dearer * (score - threshold) / max(threshold - none, 1e-6)

    def _unread(self, model: Model, session: SessionState, before: int, now: float) -> float:
        """USD for what the model's cache does not hold of the conversation so far."""
        tokens, when = session.read.get(model.name, (0, now))
        held = cacheable(min(tokens, before)) if now - when <= self.cache_ttl_s else 0
        return switch_cost(max(cacheable(before) - held, 0), model) or 0.0
