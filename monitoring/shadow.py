"""What a router would have done, from the log of shadow mode, in which the strong model answers everything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..policies.cost import check_price_list, check_prices
from ..policies.prompt_cache import cacheable
from ..policies.switch_price import request_cost
from ..routers.checks import as_number, check_seconds
from ..routers.decision import Model
from .log_calls import logged_calls
from .served_call import cost_of

_BANDS = 10


@dataclass(slots=True)
class ShadowGroup:
    """Requests of one kind.

    Attributes:
        requests: their number.
        moved: requests that another model than the one that served would have answered.
        priced: requests whose cost is known both ways; the USD are of these.
        served_usd: USD that they cost.
        routed_usd: USD that they would have cost at the models that the router chose.
        outcomes: requests with an outcome of the answer that was served.
        outcome_sum: sum of these outcomes.

    Example:
        >>> from routelearn.monitoring import ShadowGroup
        >>> ShadowGroup(requests=4, moved=3).moved_share
        0.75
    """

    requests: int = 0
    moved: int = 0
    priced: int = 0
    served_usd: float = 0.0
    routed_usd: float = 0.0
    outcomes: int = 0
    outcome_sum: float = 0.0

    @property
    def moved_share(self) -> float | None:
        """Share of the requests that another model would have answered; None: there are no requests."""
        return self.moved / self.requests if self.requests else None

    @property
    def mean_outcome(self) -> float | None:
        """Mean outcome of the answers that were served; None: there are no outcomes."""
        return self.outcome_sum / self.outcomes if self.outcomes else None

    def as_dict(self) -> dict[str, Any]:
        """The group as plain data for JSON."""
        return {**asdict(self), "moved_share": self.moved_share, "mean_outcome": self.mean_outcome}


@dataclass(slots=True)
class ShadowReport:
    """What would have been.

    Attributes:
        all: all requests of shadow mode.
        by_model: the same by the model that the router chose.
        by_cause: the same by the cause of its decision.
        by_score: the same by tenth of the score, such as "0.3-0.4".

    Example:
        >>> from routelearn.monitoring import shadow_report
        >>> row = {"id": "1", "model": "sim-small", "score": 0.31, "cause": "threshold"}
        >>> report = shadow_report([{**row, "shadow": True, "served": "sim-max"}], [])
        >>> report.all.moved_share, list(report.by_score)
        (1.0, ['0.3-0.4'])
    """

    all: ShadowGroup = field(default_factory=ShadowGroup)
    by_model: dict[str, ShadowGroup] = field(default_factory=dict)
    by_cause: dict[str, ShadowGroup] = field(default_factory=dict)
    by_score: dict[str, ShadowGroup] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON."""
        groups = {"by_model": self.by_model, "by_cause": self.by_cause, "by_score": self.by_score}
        return {
            "all": self.all.as_dict(),
            **{name: {key: one.as_dict() for key, one in of.items()} for name, of in groups.items()},
        }


def shadow_report(
    rows: Iterable[Mapping[str, Any]], prices: Sequence[Model], *, cache_ttl_s: float = 300.0
) -> ShadowReport:
    """Compare what was served in shadow mode with what the router would have chosen.

    The other model reads the same tokens and writes as many as the one that served. Its cache holds what it would have
    read of the session.

    Args:
        rows: from `read_log`; rows that are not of shadow mode are left out.
        prices: the models with their prices.
        cache_ttl_s: seconds for which a provider's cache holds what was read last.

    Raises:
        InputError: a price or the number of seconds is out of its range, or a call is broken; then the row is named.
    """
    check_price_list(prices)
    check_prices(prices)
    check_seconds("cache_ttl_s", cache_ttl_s, or_none=False)
    known = {model.name: model for model in prices}
    report = ShadowReport()
    read: dict[tuple[str, str], tuple[int, float]] = {}  # what a session's models would have read, and when
    for row in rows:
        if row.get("shadow") is not True:
            continue
        model, cause = str(row.get("model")), str(row.get("cause"))
        usd = _both_ways(row, model, known, read, cache_ttl_s)
        groups = [report.all]
        keys = ((report.by_model, model), (report.by_cause, cause), (report.by_score, _band(row.get("score"))))
        groups += [of.setdefault(key, ShadowGroup()) for of, key in keys]
        for group in groups:
            _count(group, row, moved=model != row.get("served"), usd=usd)
    report.by_score = dict(sorted(report.by_score.items()))
    return report


def _count(group: ShadowGroup, row: Mapping[str, Any], *, moved: bool, usd: tuple[float, float] | None) -> None:
    group.requests += 1
    group.moved += moved
    if usd is not None:
        group.priced += 1
        group.served_usd += usd[0]
        group.routed_usd += usd[1]
    outcome = as_number(row.get("outcome"))
    if math.isfinite(outcome):
        group.outcomes += 1
        group.outcome_sum += outcome


def _both_ways(
    row: Mapping[str, Any],
    model: str,
    prices: Mapping[str, Model],
    read: dict[tuple[str, str], tuple[int, float]],
    ttl_s: float,
) -> tuple[float, float] | None:
    """USD of a request as served, and as routed; None: they are not known."""
    calls = logged_calls([row])
    if not calls:
        return None
    costs = [cost_of(call, prices) for call in calls]
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        return None
    call, served = calls[0], sum(known)
    held = 0
    if call.session is not None:
        tokens, when = read.get((call.session, model), (0, call.time))
        held = cacheable(min(tokens, call.input_tokens)) if call.time - when <= ttl_s else 0
        read[call.session, model] = call.input_tokens, call.time
    if model == call.model:
        return served, served
    other = prices.get(model)
    routed = None if other is None else request_cost(other, call.input_tokens, held, call.output_tokens)
    return None if routed is None else (served, routed)


def _band(score: Any) -> str:
    """The tenth of a score, such as "0.3-0.4"."""
    number = as_number(score)
    if not 0 <= number <= 1:
        return "no score"
    low = min(_BANDS - 1, int(number * _BANDS))
    return f"{low / _BANDS:.1f}-{(low + 1) / _BANDS:.1f}"
