"""What routing saved against asking the strong model for every request, with how far the figure can be trusted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class ModelUsage:
    """What one model was asked for, and what that cost.

    Attributes:
        requests: calls that the model answered, further calls of one request among them.
        usd: USD of the calls whose cost is known.
        input_tokens: tokens that the model read, the cached ones among them.
        cached_tokens: of these, tokens that its prompt cache held.
        cache_write_tokens: tokens that were written to its cache, as far as the provider says it.
        output_tokens: tokens that the model wrote.

    Example:
        >>> from routelearn.monitoring import ModelUsage
        >>> ModelUsage(requests=2, usd=0.5).usd
        0.5
    """

    requests: int = 0
    usd: float = 0.0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class SavingsInterval:
    """The interval in which always-strong's cost lies with a probability, from the calls whose model was drawn.

    Attributes:
        confidence: that probability.
        always_strong_usd: lowest and highest USD of always-strong.
        saved_usd: lowest and highest USD saved.
        draws: draws of the strong model against the router's choice, on which the interval rests.
        explored_share: share of always-strong's USD that exploration says something of, or that strong itself billed.

    Example:
        >>> from routelearn.monitoring import SavingsInterval
        >>> SavingsInterval(0.95, (90.0, 110.0), (40.0, 60.0), draws=120, explored_share=1.0).saved_usd
        (40.0, 60.0)
    """

    confidence: float
    always_strong_usd: tuple[float, float]
    saved_usd: tuple[float, float]
    draws: int
    explored_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingsReport:
    """What the calls cost, and what always-strong would have cost on the same requests.

    Attributes:
        requests: requests that were answered.
        further: further calls of these requests, such as the second model of a cascade.
        unpriced: calls whose cost is not known, or that cannot be compared, because no price says what strong would
            have cost. They are left out of every figure in USD that compares.
        spent_usd: USD of all calls whose cost is known.
        uncompared_usd: of these, USD of calls that cannot be compared.
        always_strong_usd: USD of always-strong on the requests that can be compared: measured by exploration where
            there is an interval, else modelled.
        modelled_usd: USD of always-strong from the tokens and the ratio of output lengths alone.
        saved_usd: always-strong's USD, less what was spent on the same requests and the router's own cost.
        saved_share: the same as a share of always-strong's USD; None: that is 0.
        interval: None: `why_no_interval` says why.
        why_no_interval: empty where there is an interval.
        cache_penalty_usd: of what was spent, the USD for tokens read at full price because a session changed its
            model.
        router_usd: USD of the decisions.
        by_model: calls, USD and tokens by model.
        output_ratios: tokens that strong writes for each token of a model, as learned from the calls.
        assumed_ratios: models for which the ratio is taken as 1, because too few calls tell it.
        since: time of the first call, in seconds; None: there was none.

    Example:
        >>> from routelearn import Model
        >>> from routelearn.monitoring import Savings, ServedCall
        >>> savings = Savings([Model("sim-max", 10.0, 30.0), Model("sim-small", 1.0, 3.0)])
        >>> call = ServedCall(model="sim-small", strong="sim-max", input_tokens=1000, output_tokens=100, time=0.0)
        >>> savings.add(call)
        >>> report = savings.report()
        >>> report.spent_usd, round(report.always_strong_usd, 4), round(report.saved_usd, 4)
        (0.0013, 0.013, 0.0117)
    """

    requests: int
    further: int
    unpriced: int
    spent_usd: float
    uncompared_usd: float
    always_strong_usd: float
    modelled_usd: float
    saved_usd: float
    saved_share: float | None
    interval: SavingsInterval | None
    why_no_interval: str
    cache_penalty_usd: float
    router_usd: float
    by_model: dict[str, ModelUsage] = field(default_factory=dict)
    output_ratios: dict[str, float] = field(default_factory=dict)
    assumed_ratios: tuple[str, ...] = ()
    since: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON."""
        return asdict(self)
