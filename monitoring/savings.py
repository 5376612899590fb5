"""Counts what calls cost, and what always asking the strong model would have cost on the same requests.

docs/savings.md says how each figure is counted, and what it does not know.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose

from ..policies.cost import check_price_list, check_prices
from ..policies.prompt_cache import cacheable
from ..policies.switch_price import cached_price, request_cost
from ..routers.checks import OTHER, check_number, check_seconds, check_whole
from ..routers.decision import Model
from ..routers.errors import InputError
from ..routers.forks import new_lock
from .explored import LEAST_DRAWS, Draw, Explored
from .savings_report import ModelUsage, SavingsInterval, SavingsReport
from .served_call import ServedCall, cost_of

#: A ratio of output lengths is learned from so many calls of each model.
LEAST_CALLS = 30
#: Probability with which an interval holds.
CONFIDENCE = 0.95
#: Less than this is as good as nothing: a share of it says nothing, and may be no finite number.
_LEAST_USD = 1e-12
#: There is no interval where exploration says nothing of more than this share of always-strong's USD.
MOST_UNEXPLORED = 0.1
#: So many models are counted by name; further ones count as "other".
_MOST_MODELS = 200
#: USD are summed as whole numbers of this many parts, so that sums do not depend on the order of the calls.
_PARTS = 10**12
#: USD that differ by less than this share are equal: what is modelled is added up in floats.
_EXACT = 1e-12


@dataclass(slots=True)
class _Session:
    """The last request of a session."""

    model: str
    tokens: int
    time: float
    draw: Draw | None


@dataclass(slots=True)
class _Sums:
    """What is counted of all calls; spent in parts of a USD."""

    requests: int = 0
    further: int = 0
    unpriced: int = 0
    spent: int = 0
    uncompared: int = 0
    modelled: float = 0.0
    certain: float = 0.0  # USD of always-strong that strong itself billed, without a draw
    unexplored: float = 0.0  # USD of always-strong that is modelled, and that no draw says anything of
    penalty: float = 0.0
    router: float = 0.0
    others: int = 0  # requests that another model than strong answered
    since: float | None = None
    explored: Explored = field(default_factory=Explored)


class Savings:
    """Counts calls in bounded memory. Threads may share one.

    Always-strong is counted on the same requests: strong reads the same tokens, of which its cache holds what the
    session's last request had, and writes as much as the model that answered, times a learned ratio. What strong
    itself answered counts with its bill.

    Example:
        >>> from routelearn import Model
        >>> from routelearn.monitoring import Savings, ServedCall
        >>> savings = Savings([Model("sim-max", 10.0, 30.0), Model("sim-small", 1.0, 3.0)])
        >>> for model in ("sim-max", "sim-small"):
        ...     savings.add(ServedCall(model=model, strong="sim-max", input_tokens=1000, output_tokens=100, time=0.0))
        >>> report = savings.report()
        >>> round(report.spent_usd, 4), round(report.always_strong_usd, 4), round(report.saved_usd, 4)
        (0.0143, 0.026, 0.0117)
    """

    def __init__(
        self,
        prices: Sequence[Model],
        *,
        cache_ttl_s: float = 300.0,
        router_usd: float = 0.0,
        output_ratios: Mapping[str, float] | None = None,
        max_sessions: int = 20_000,
    ) -> None:
        """Start without calls.

        Args:
            prices: the models with their prices, the strong one among them.
            cache_ttl_s: seconds for which a provider's cache holds what was read last.
            router_usd: USD of a decision, for calls that do not say it.
            output_ratios: tokens that strong writes for each token of a model, where they are known; other ratios are
                learned from the calls as they come.
            max_sessions: most sessions to remember; beyond it, the one that was silent longest is forgotten.

        Raises:
            InputError: an argument is out of its range.
        """
        check_price_list(prices)
        check_prices(prices)
        check_seconds("cache_ttl_s", cache_ttl_s, or_none=False)
        check_number("router_usd", router_usd, "USD of a decision, 0 or more")
        if router_usd < 0:
            raise InputError(f"router_usd is {router_usd}; expected USD of a decision, 0 or more")
        check_whole("max_sessions", max_sessions, 1)
        self._prices = {model.name: model for model in prices}
        self._ttl_s = cache_ttl_s
        self._router_usd = router_usd
        self._given_ratios = dict(output_ratios or {})
        self._max_sessions = max_sessions
        self._lock = new_lock()
        self._sums = _Sums()
        self._models: dict[str, ModelUsage] = {}
        self._spent: dict[str, int] = {}  # by model, in parts of a USD
        self._strong = ""  # of the last call
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def add(self, call: ServedCall) -> None:
        """Take in one call."""
        usd = cost_of(call, self._prices)
        with self._lock:
            sums = self._sums
            self._strong = call.strong
            sums.since = call.time if sums.since is None else min(sums.since, call.time)
            parts = self._count(call, usd)
            if call.further:
                sums.further += 1
                sums.unpriced += usd is None
                return
            sums.requests += 1
            sums.router += self._router_usd if call.router_usd is None else call.router_usd
            before = None if call.session is None else self._sessions.get(call.session)
            warm = self._warm(call, before)
            moved = before is not None and before.model != call.model
            if moved:
                sums.penalty += self._penalty(call, warm)
            draw = self._draw(call, before)
            compared = self._compare(call, usd, warm, moved, draw)
            sums.unpriced += not compared
            sums.uncompared += 0 if compared else parts
            if call.session is not None:
                self._sessions[call.session] = _Session(call.model, call.input_tokens, call.time, draw)
                self._sessions.move_to_end(call.session)
                if len(self._sessions) > self._max_sessions:
                    self._sessions.popitem(last=False)

    def report(self) -> SavingsReport:
        """The figures at this moment."""
        with self._lock:
            sums, explored = self._sums, self._sums.explored
            measured = sums.certain + sums.unexplored + explored.usd
            others = [name for name in self._models if name != self._strong]
            why = self._why_no_interval(measured)
            always = sums.modelled if why else measured
            compared = (sums.spent - sums.uncompared) / _PARTS
            paid = compared + sums.router
            saved = 0.0 if isclose(always, paid, rel_tol=_EXACT) else always - paid
            interval = None
            if not why:
                below, above = explored.beyond(CONFIDENCE)
                interval = SavingsInterval(
                    CONFIDENCE,
                    (always - below, always + above),
                    (saved - below, saved + above),
                    explored.draws,
                    1 - sums.unexplored / measured,
                )
            return SavingsReport(
                requests=sums.requests,
                further=sums.further,
                unpriced=sums.unpriced,
                spent_usd=sums.spent / _PARTS,
                uncompared_usd=sums.uncompared / _PARTS,
                always_strong_usd=always,
                modelled_usd=sums.modelled,
                saved_usd=saved,
                saved_share=saved / always if always >= _LEAST_USD else None,
                interval=interval,
                why_no_interval=why,
                cache_penalty_usd=sums.penalty,
                router_usd=sums.router,
                by_model={name: self._usage(name) for name in self._models},
                output_ratios={name: self._ratio(name) for name in others if self._is_learned(name)},
                assumed_ratios=tuple(name for name in others if not self._is_learned(name)),
                since=sums.since,
            )

    def _count(self, call: ServedCall, usd: float | None) -> int:
        """Count tokens and USD of a call: the USD in parts."""
        # Names that callers make up never push out a model of the pool.
        known = call.model in self._models or call.model in self._prices
        name = call.model if known or len(self._models) < _MOST_MODELS else OTHER
        usage = self._models.setdefault(name, ModelUsage())
        usage.requests += 1
        usage.input_tokens += call.input_tokens
        usage.cached_tokens += call.cached_tokens
        usage.cache_write_tokens += call.cache_write_tokens
        usage.output_tokens += call.output_tokens
        parts = 0 if usd is None else round(usd * _PARTS)
        self._spent[name] = self._spent.get(name, 0) + parts
        self._sums.spent += parts
        return parts

    def _warm(self, call: ServedCall, before: _Session | None) -> int:
        """Tokens that the cache of a model would hold which answered all of the session so far."""
        if before is None or call.time - before.time > self._ttl_s:
            return 0
        return cacheable(min(before.tokens, call.input_tokens))

    def _penalty(self, call: ServedCall, warm: int) -> float:
        """USD paid for tokens that the model would have had cached, had the session stayed on it."""
        model = self._prices.get(call.model)
        cached = None if model is None else cached_price(model)
        if model is None or model.input_price is None or cached is None:
            return 0.0
        return max(0, warm - call.cached_tokens) * (model.input_price - cached) / 1e6

    def _draw(self, call: ServedCall, before: _Session | None) -> Draw | None:
        """The draw that a call follows: its own, or that of the session which keeps a drawn model."""
        if call.propensity < 1:
            return Draw(call.chosen, call.propensity)
        kept = None if before is None else before.draw
        return kept if kept is not None and kept.model == call.chosen else None

    def _compare(self, call: ServedCall, usd: float | None, warm: int, moved: bool, draw: Draw | None) -> bool:
        """Count what a call would have cost at strong; False: that is not known."""
        sums, strong = self._sums, self._prices.get(call.strong)
        by_strong = call.model == call.strong
        sums.others += not by_strong
        if usd is None:
            return False
        # Under always-strong, a prefix that the model's cache held would be in strong's as well.
        held = max(warm, call.cached_tokens)
        reads = None if strong is None else request_cost(strong, call.input_tokens, held, 0)
        price = None if strong is None else strong.output_price
        if by_strong:
            own = None if strong is None else request_cost(strong, call.input_tokens, call.cached_tokens, 0)
            spared = own - reads if moved and own is not None and reads is not None else 0.0
            always = max(0.0, usd - spared)
        elif reads is None or price is None:
            return False
        else:
            always = reads + self._ratio(call.model) * call.output_tokens * price / 1e6
        sums.modelled += always
        missed = draw is not None and draw.model == call.strong and not by_strong  # drawn, and another stood in
        if draw is None or missed or reads is None or price is None:
            sums.certain += always if by_strong else 0.0
            sums.unexplored += 0.0 if by_strong else always
        else:
            sums.explored.add(
                draw,
                call.strong,
                input_usd=reads,
                output_price=price,
                measured=always if by_strong else None,
            )
        return True

    def _is_learned(self, name: str) -> bool:
        calls = [self._models.get(one, ModelUsage()) for one in (name, self._strong)]
        known = all(one.requests >= LEAST_CALLS and one.output_tokens > 0 for one in calls)
        return name == self._strong or name in self._given_ratios or known

    def _ratio(self, name: str) -> float:
        """Tokens that strong writes for each token of a model; 1 where too few calls tell it."""
        if name in self._given_ratios:
            return self._given_ratios[name]
        if name == self._strong or not self._is_learned(name):
            return 1.0
        strong, model = self._models[self._strong], self._models[name]
        # Drawn calls are like those of the other model; calls that the router sends to strong may not be.
        drawn = self._sums.explored.drawn_output()
        written = strong.output_tokens / strong.requests if drawn is None else drawn
        return written / (model.output_tokens / model.requests)

    def _usage(self, name: str) -> ModelUsage:
        one = self._models[name]
        usd = self._spent[name] / _PARTS
        return ModelUsage(
            one.requests, usd, one.input_tokens, one.cached_tokens, one.cache_write_tokens, one.output_tokens
        )

    def _why_no_interval(self, measured: float) -> str:
        sums = self._sums
        if not sums.others:
            return "strong answered every request, so nothing had to be estimated" if sums.requests else "no calls yet"
        if not sums.explored.usd:
            return "no model was drawn at random; expected exploration, such as 5 % of the requests"
        if sums.unexplored > MOST_UNEXPLORED * measured:
            share = sums.unexplored / measured
            return f"exploration says nothing of {share:.0%} of what always-strong costs; expected at most 10%"
        if sums.explored.draws < LEAST_DRAWS:
            return (
                f"strong was drawn against the router's choice {sums.explored.draws} times; expected {LEAST_DRAWS} or "
                "more"
            )
        return ""


def savings_of(
    calls: Iterable[ServedCall], prices: Sequence[Model], *, cache_ttl_s: float = 300.0, router_usd: float = 0.0
) -> SavingsReport:
    """The savings of calls that are all known, such as those of a log; ratios of output lengths are those of all calls.

    Args:
        calls: oldest first.
        prices: the models with their prices.
        cache_ttl_s: seconds for which a provider's cache holds what was read last.
        router_usd: USD of a decision, for calls that do not say it.

    Raises:
        InputError: an argument is out of its range.

    Example:
        >>> from routelearn import Model
        >>> from routelearn.monitoring import ServedCall, savings_of
        >>> call = ServedCall(model="sim-small", strong="sim-max", input_tokens=1000, output_tokens=100, time=0.0)
        >>> report = savings_of([call], [Model("sim-max", 10.0, 30.0), Model("sim-small", 1.0, 3.0)])
        >>> report.why_no_interval
        'no model was drawn at random; expected exploration, such as 5 % of the requests'
    """
    known = list(calls)
    learned = Savings(prices, max_sessions=1)
    for call in known:
        learned.add(call)
    savings = Savings(
        prices,
        cache_ttl_s=cache_ttl_s,
        router_usd=router_usd,
        output_ratios=learned.report().output_ratios,
        max_sessions=max(1, len(known)),
    )
    for call in known:
        savings.add(call)
    return savings.report()
