"""Replays conversations under a way to choose models, with the costs that prompt caches leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...policies.prompt_cache import PromptCache
from ...policies.switch_price import request_cost
from ...routers.decision import Model
from ...routers.errors import InputError
from .turns import SessionRequest, Sessions

Array = npt.NDArray[np.float64]
#: Chooses the model of a request: the id of the session, the number of the request in the session, the request, and
#: the time in seconds since the session began.
Choose = Callable[[str, int, SessionRequest, float], str]


@dataclass(frozen=True, slots=True)
class Replay:
    """What one way to choose models came to, session by session.

    Attributes:
        requests: (s,) requests of each session.
        usd: (s,) cost of each session.
        quality: (s,) sum of the qualities of its answers.
        strong: (s,) requests that the strong model answered.
        switches: (s,) requests that another model answered than the one before.
        input_tokens: (s,) tokens that were read.
        cached_tokens: (s,) of these, tokens that came from a cache.

    Example:
        >>> from routelearn import Model
        >>> from routelearn.evaluation import SessionRequest, replay_sessions
        >>> asked = [SessionRequest(query="Hi!", tokens=size, quality={"sim-max": 1.0}) for size in (2048, 4096)]
        >>> models = {"sim-max": Model("sim-max", 3, 15)}
        >>> found = replay_sessions({"s": asked}, lambda *_: "sim-max", models, strong="sim-max")
        >>> found.mean_quality(), found.cached_tokens
        (1.0, array([2048.]))
    """

    requests: Array
    usd: Array
    quality: Array
    strong: Array
    switches: Array
    input_tokens: Array
    cached_tokens: Array

    def mean_quality(self) -> float:
        """Mean quality of an answer."""
        return float(self.quality.sum() / self.requests.sum())

    def mean_usd(self) -> float:
        """Mean cost of a session in USD."""
        return float(self.usd.mean())


def replay_sessions(
    sessions: Sessions, choose: Choose, models: Mapping[str, Model], *, strong: str, cache_ttl_s: float = 300.0
) -> Replay:
    """Replay conversations.

    Args:
        sessions: the conversations.
        choose: chooses the model of each request.
        models: with their prices, by name.
        strong: the strong model, whose answers are counted.
        cache_ttl_s: seconds for which a provider's prompt cache holds what was read last.

    Raises:
        InputError: a chosen model has no price, or an answer of it has no quality.
    """
    rows = [_session(name, requests, choose, models, strong, cache_ttl_s) for name, requests in sessions.items()]
    return Replay(*(np.array(column, np.float64) for column in zip(*rows, strict=True)))


def _session(
    name: str,
    requests: Sequence[SessionRequest],
    choose: Choose,
    models: Mapping[str, Model],
    strong: str,
    cache_ttl_s: float,
) -> tuple[float, ...]:
    cache, now, before = PromptCache(cache_ttl_s), 0.0, None
    usd = quality = 0.0
    asked_strong = switches = read = cached = 0
    for number, request in enumerate(requests):
        now += request.pause_s
        model = choose(name, number, request, now)
        held = cache.read(model, request.tokens, now)
        cost = request_cost(models.get(model, Model(model)), request.tokens, held, request.output(model))
        if cost is None:
            raise InputError(f"no prices are known for {model!r}; expected its input_price and output_price")
        if model not in request.quality:
            raise InputError(f"request {number} of session {name!r:.60} has no quality for {model!r}")
        usd += cost
        quality += request.quality[model]
        asked_strong += model == strong
        switches += before is not None and model != before
        read, cached, before = read + request.tokens, cached + held, model
    return len(requests), usd, quality, asked_strong, switches, read, cached
