"""One call of a model that was answered: who answered it, its tokens, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..policies.switch_price import request_cost
from ..routers.checks import as_number, check_number, check_whole
from ..routers.decision import Model
from ..routers.errors import InputError

#: The most tokens, and the most USD, of one call: sums of any number of calls are then finite.
MOST = 10**12
_COUNTS = ("input_tokens", "cached_tokens", "output_tokens", "cache_write_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedCall:
    """One call of a model that was answered.

    Attributes:
        model: the model that answered.
        chosen: the model that was decided for; another one where `model` stood in for it.
        strong: the strong model, which always-strong would have asked.
        session: the session of the request; None: the request stands alone.
        input_tokens: tokens that the model read, the cached ones among them.
        cached_tokens: of these, the tokens that its prompt cache held.
        output_tokens: tokens that the model wrote.
        cost_usd: USD that the provider or the gateway billed; None: the prices of the pool say it.
        propensity: the probability with which `chosen` was chosen; below 1 only where a policy explores.
        router_usd: USD that the decision itself cost; None: what `Savings` assumes.
        time: when the call was answered, in seconds.
        cache_write_tokens: tokens that were written to the cache. They are counted, and only a bill knows their price.
        further: another call of the same request is counted already, such as the first model of a cascade. The call
            costs, and always-strong would not have made it.

    Raises:
        InputError: a name is no text, or a number is out of its range.

    Example:
        >>> from routelearn.monitoring import ServedCall
        >>> call = ServedCall(model="sim-small", strong="sim-max", input_tokens=900, output_tokens=200, time=0.0)
        >>> call.chosen, call.propensity
        ('sim-small', 1.0)
    """

    model: str
    strong: str
    input_tokens: int
    output_tokens: int
    time: float
    chosen: str = ""
    session: str | None = None
    cached_tokens: int = 0
    cost_usd: float | None = None
    propensity: float = 1.0
    router_usd: float | None = None
    cache_write_tokens: int = 0
    further: bool = False

    def __post_init__(self) -> None:
        """Check the call; without a chosen model, the one that answered was chosen."""
        if not self.chosen:
            object.__setattr__(self, "chosen", self.model)
        for name in ("model", "chosen", "strong"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise InputError(f"{name} is {getattr(self, name)!r:.80}; expected the name of a model")
        for name in _COUNTS:
            check_whole(name, getattr(self, name), 0)
            if getattr(self, name) > MOST:
                raise InputError(f"{name} is {getattr(self, name)!r:.80}; expected at most {MOST:,} tokens")
        if self.cached_tokens > self.input_tokens:
            raise InputError(
                f"cached_tokens is {self.cached_tokens}; expected at most input_tokens, which is {self.input_tokens}"
            )
        for name in ("cost_usd", "router_usd"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), "USD, 0 or more, or None")
                if not 0 <= getattr(self, name) <= MOST:
                    raise InputError(f"{name} is {getattr(self, name)}; expected USD, 0 or more, or None")
        if self.session is not None and not isinstance(self.session, str):
            raise InputError(f"session is {self.session!r:.80}; expected a text, or None")
        if not isinstance(self.further, bool):
            raise InputError(f"further is {self.further!r:.80}; expected true or false")
        check_number("time", self.time, "a time in seconds")
        if not 0 < as_number(self.propensity) <= 1:
            raise InputError(f"propensity is {self.propensity!r:.80}; expected a probability above 0, and at most 1")

    def as_dict(self) -> dict[str, Any]:
        """The call as plain data for JSON; what is not known is left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None and value is not False}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ServedCall:
        """The call that `as_dict` wrote; fields of newer versions are left out.

        Raises:
            InputError: a field is missing, or out of its range.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"the usage {values!r:.200} is no call; expected a mapping of the fields of a call")
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{name: value for name, value in values.items() if name in known})
        except TypeError as error:
            raise InputError(f"the usage {dict(values)!r:.200} is no call: {error}") from error


def cost_of(call: ServedCall, prices: Mapping[str, Model]) -> float | None:
    """USD of a call: as billed, else by the prices of the pool; None: neither is known."""
    if call.cost_usd is not None:
        return call.cost_usd
    model = prices.get(call.model)
    if model is None:
        return None
    return request_cost(model, call.input_tokens, call.cached_tokens, call.output_tokens)
