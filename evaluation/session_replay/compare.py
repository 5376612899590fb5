"""Compares ways to choose models over whole conversations: single prompts, sessions, always one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...policies.cost import check_all_priced
from ...policies.switch_price import SwitchPrices
from ...routers.base import Router
from ...routers.decision import Model
from ...routers.errors import InputError
from ...training.fit.metrics import percentile_interval
from .choices import Decided, decisions_of, prompt_choice, session_choice
from .read_log import read_logged_sessions
from .replay import Array, Choose, Replay, replay_sessions
from .turns import Sessions, check_sessions

#: Thresholds between which costs at equal quality are interpolated.
THRESHOLDS = 25
#: Names of the ways to choose.
ALWAYS_STRONG, ALWAYS_WEAK, PROMPTS, SESSIONS = "always strong", "always weak", "each prompt by itself", "sessions"


@dataclass(frozen=True, slots=True)
class SessionResult:
    """One way to choose models over the conversations; `SessionReport.results` holds them.

    Attributes:
        name: "always strong", "always weak", "each prompt by itself" or "sessions".
        threshold: scores at or above it go to the strong model; None: the way has none.
        usd: mean cost of a session, USD.
        usd_interval: its 95 % bootstrap interval over the sessions.
        quality: mean quality of an answer.
        quality_interval: its 95 % bootstrap interval over the sessions.
        strong_share: share of the requests that the strong model answered.
        switches: mean number of switches of a session.
        cached_share: share of the input tokens that came from a prompt cache.

    Example:
        >>> from routelearn.evaluation import SessionResult
        >>> numbers = {"usd_interval": (0.1, 0.3), "quality_interval": (0.7, 0.9), "cached_share": 0.6}
        >>> SessionResult("sessions", 0.6, 0.2, quality=0.8, strong_share=0.4, switches=0.1, **numbers).usd
        0.2
    """

    name: str
    threshold: float | None
    usd: float
    usd_interval: tuple[float, float]
    quality: float
    quality_interval: tuple[float, float]
    strong_share: float
    switches: float
    cached_share: float


@dataclass(frozen=True, slots=True)
class SessionReport:
    """What a router is worth over whole conversations.

    Attributes:
        sessions: number of conversations.
        requests: number of their requests.
        results: the ways to choose models.
        saved_share: by how much sessions cost less than single prompts at equal quality, as a share of the latter's
            cost.
        saved_interval: its 95 % bootstrap interval over the sessions.
        curves: by name, mean USD of a session and mean quality at each of several thresholds: rows of (threshold, USD,
            quality).

    Example:
        >>> import routelearn
        >>> from routelearn.evaluation import SessionRequest, evaluate_sessions
        >>> router = routelearn.RulesRouter("sim-max", "sim-small")
        >>> prices = [routelearn.Model("sim-max", 3, 15, 0.3), routelearn.Model("sim-small", 0.3, 1.5, 0.03)]
        >>> worth = {"sim-max": 1.0, "sim-small": 0.5}
        >>> asked = [SessionRequest(query=q, tokens=n, quality=worth) for q, n in (("Hi!", 900), ("Prove it.", 1500))]
        >>> report = evaluate_sessions(router, {"s-1": asked, "s-2": asked}, prices, bootstrap=50)
        >>> report.requests, report.results[0].name
        (4, 'always strong')
    """

    sessions: int
    requests: int
    results: tuple[SessionResult, ...]
    saved_share: float
    saved_interval: tuple[float, float]
    curves: dict[str, list[tuple[float, float, float]]]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        rows = [{name: getattr(result, name) for name in SessionResult.__slots__} for result in self.results]
        return {
            "sessions": self.sessions,
            "requests": self.requests,
            "results": rows,
            "saved_share": self.saved_share,
            "saved_interval": list(self.saved_interval),
            "curves": {name: [list(row) for row in rows] for name, rows in self.curves.items()},
        }


def calibrate_sessions(
    report: SessionReport, *, usd_per_session: float | None = None, max_quality_loss: float | None = None
) -> float:
    """The threshold for sessions: the best quality within a budget, or the cheapest within a loss of quality.

    Args:
        report: of conversations like those to come; its thresholds are the candidates.
        usd_per_session: most USD that a session may cost on average.
        max_quality_loss: most that the mean quality may lie below that of always strong.

    Raises:
        InputError: not exactly one aim was given, or no threshold reaches it.
    """
    rows = report.curves[SESSIONS]
    if (usd_per_session is None) == (max_quality_loss is None):
        raise InputError("expected one aim: usd_per_session or max_quality_loss")
    if usd_per_session is not None:
        within = [row for row in rows if row[1] <= usd_per_session]
        if not within:
            least = min(usd for _, usd, _ in rows)
            raise InputError(
                f"usd_per_session is {usd_per_session}; expected {least:.4g} or more, what the cheapest costs"
            )
        return max(within, key=lambda row: (row[2], -row[1]))[0]
    assert max_quality_loss is not None
    strong = report.results[0].quality
    within = [row for row in rows if row[2] >= strong - max_quality_loss]
    if not within:
        raise InputError(f"max_quality_loss is {max_quality_loss}; expected a loss that a threshold reaches")
    return min(within, key=lambda row: (row[1], -row[2]))[0]


def evaluate_sessions(
    router: Router,
    sessions: Sessions,
    prices: Sequence[Model],
    *,
    threshold: float | None = None,
    cache_ttl_s: float = 300.0,
    value_usd: float | None = None,
    expected_requests: float = 6.0,
    bootstrap: int = 1000,
    seed: int = 0,
) -> SessionReport:
    """Replay conversations that the router was not trained on, and compare ways to choose their models.

    Each prompt by itself follows the threshold; sessions weigh the price of a switch (`policies.SwitchPrices`). Both
    are replayed at several thresholds, so that their costs can be compared at equal quality: at the quality that single
    prompts have at `threshold`. Prompt caches count as `policies.PromptCache` says.

    Args:
        router: scores the queries.
        sessions: the requests of each conversation, with the quality of both models' answers.
        prices: strong and weak with input and output prices and `cached_input_price`.
        threshold: of the decision; None: the router's.
        cache_ttl_s: seconds for which a provider's prompt cache holds what was read last.
        value_usd: see `SwitchPrices`.
        expected_requests: assumed requests of a session before the first sessions were seen.
        bootstrap: number of resamples of the sessions.
        seed: of the resamples.

    Raises:
        InputError: there are no sessions, a quality or a price is missing, or a number is out of its range.
    """
    check_sessions(sessions, [router.strong, router.weak])
    assumed = Assumed(cache_ttl_s, value_usd, expected_requests, bootstrap, seed)
    return _compared(router, sessions, decisions_of(router, sessions), prices, threshold, assumed)


def evaluate_session_log(
    router: Router,
    path: str | Path,
    prices: Sequence[Model],
    *,
    threshold: float | None = None,
    cache_ttl_s: float = 300.0,
    value_usd: float | None = None,
    expected_requests: float = 6.0,
    bootstrap: int = 1000,
    seed: int = 0,
) -> SessionReport:
    """Replay the conversations of a decision log. The qualities are those that the router expects.

    Args:
        router: names the two models, and their prices where `prices` does not.
        path: of the log; see `read_logged_sessions` for what is taken from it.
        prices: as for `evaluate_sessions`, as are the others.
        threshold: see `evaluate_sessions`.
        cache_ttl_s: see `evaluate_sessions`.
        value_usd: see `evaluate_sessions`.
        expected_requests: see `evaluate_sessions`.
        bootstrap: see `evaluate_sessions`.
        seed: see `evaluate_sessions`.

    Raises:
        InputError: there is no such log, nothing in it can be replayed, or a price is missing.
    """
    found = read_logged_sessions(path, router.strong, router.weak)
    assumed = Assumed(cache_ttl_s, value_usd, expected_requests, bootstrap, seed)
    return _compared(router, found.sessions, found.decided, prices, threshold, assumed)


class Assumed(NamedTuple):
    """What a comparison assumes; see `evaluate_sessions`."""

    cache_ttl_s: float
    value_usd: float | None
    expected_requests: float
    bootstrap: int
    seed: int


def _compared(
    router: Router,
    sessions: Sessions,
    decided: Decided,
    prices: Sequence[Model],
    threshold: float | None,
    assumed: Assumed,
) -> SessionReport:
    strong, weak = router.strong, router.weak
    models = {model.name: model for model in (*router.pool, *prices)}
    check_all_priced([models.get(name, Model(name)) for name in (strong, weak)])
    threshold = router.threshold if threshold is None else threshold
    ttl_s = assumed.cache_ttl_s
    switch = SwitchPrices(models=list(models.values()), cache_ttl_s=ttl_s, value_usd=assumed.value_usd)
    grid = _grid(decided, threshold)
    ways: dict[str, list[Choose]] = {
        ALWAYS_STRONG: [lambda *_: strong],
        ALWAYS_WEAK: [lambda *_: weak],
        PROMPTS: [prompt_choice(decided, at, strong, weak) for at in grid],
        SESSIONS: [session_choice(decided, at, strong, weak, switch, assumed.expected_requests) for at in grid],
    }
    replays = {
        name: [replay_sessions(sessions, choose, models, strong=strong, cache_ttl_s=ttl_s) for choose in choices]
        for name, choices in ways.items()
    }
    return _report(replays, grid, threshold, _weights(len(sessions), assumed.bootstrap, assumed.seed))


def _report(
    replays: Mapping[str, Sequence[Replay]], grid: Sequence[float], threshold: float, weights: Array
) -> SessionReport:
    """The report, from the replays of each way, with a threshold at each of `grid`."""
    place = list(grid).index(threshold)
    curves = {name: found for name, found in replays.items() if len(found) > 1}
    saved = _saved(replays[PROMPTS], replays[SESSIONS], place, weights)
    alone = replays[ALWAYS_STRONG][0]
    return SessionReport(
        sessions=len(alone.requests),
        requests=int(alone.requests.sum()),
        results=tuple(
            _result(name, threshold, found[place], weights)
            if name in curves
            else _result(name, None, found[0], weights)
            for name, found in replays.items()
        ),
        saved_share=float(saved[0]),
        saved_interval=percentile_interval(saved[1:]),
        curves={
            name: [(at, one.mean_usd(), one.mean_quality()) for at, one in zip(grid, found, strict=True)]
            for name, found in curves.items()
        },
    )


def _grid(decided: Decided, threshold: float) -> list[float]:
    """Thresholds from always strong to always weak, the given one among them."""
    scores = np.array([decision.score for decisions in decided.values() for decision in decisions])
    values = np.quantile(scores, np.linspace(0, 1, THRESHOLDS))
    return sorted({float(value) for value in values} | {threshold, float(np.nextafter(scores.max(), 2.0))})


def _weights(sessions: int, bootstrap: int, seed: int) -> Array:
    """(1 + bootstrap, s) how often each session counts: once, then as it was drawn."""
    if bootstrap < 1:
        raise InputError(f"bootstrap is {bootstrap}; expected 1 or more")
    drawn = np.random.default_rng(seed).multinomial(sessions, np.full(sessions, 1 / sessions), bootstrap)
    return np.concatenate([np.ones((1, sessions)), drawn.astype(np.float64)])


def _per(weights: Array, amounts: Array, of: Array) -> Array:
    return (weights @ amounts) / (weights @ of)


def _result(name: str, threshold: float | None, found: Replay, weights: Array) -> SessionResult:
    usd = _per(weights, found.usd, np.ones_like(found.usd))
    quality = _per(weights, found.quality, found.requests)
    return SessionResult(
        name=name,
        threshold=threshold,
        usd=float(usd[0]),
        usd_interval=percentile_interval(usd[1:]),
        quality=float(quality[0]),
        quality_interval=percentile_interval(quality[1:]),
        strong_share=float(found.strong.sum() / found.requests.sum()),
        switches=float(found.switches.mean()),
        cached_share=float(found.cached_tokens.sum() / max(found.input_tokens.sum(), 1)),
    )


def _saved(prompts: Sequence[Replay], sessions: Sequence[Replay], place: int, weights: Array) -> Array:
    """(1 + bootstrap,) the share of the cost of single prompts that sessions save at the quality of `place`."""
    cost: Callable[[Replay], Array] = lambda one: _per(weights, one.usd, np.ones_like(one.usd))  # noqa: E731
    quality: Callable[[Replay], Array] = lambda one: _per(weights, one.quality, one.requests)  # noqa: E731
    at, wanted = cost(prompts[place]), quality(prompts[place])
    costs, qualities = np.array([cost(one) for one in sessions]), np.array([quality(one) for one in sessions])
    equal = np.empty(len(at))
    for draw in range(len(at)):
        order = np.argsort(qualities[:, draw], kind="stable")
        equal[draw] = np.interp(wanted[draw], qualities[order, draw], costs[order, draw])
    return 1 - np.divide(equal, at, out=np.ones_like(at), where=at > 0)  # of nothing, nothing is saved
