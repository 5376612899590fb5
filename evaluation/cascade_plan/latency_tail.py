"""How long requests wait in a cascade: a simulation from the latencies of both models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...routers.errors import InputError
from ...training.fit.metrics import Array
from .analysis import Point

#: The 95th percentile of the standard normal distribution.
_NORMAL_P95 = 1.6449
_DRAWS = 100_000
_PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Latency:
    """How long a call takes: a log-normal distribution.

    Example:
        >>> import numpy as np
        >>> from routelearn.evaluation import Latency
        >>> waits = Latency(p50=0.8, p95=2.5).draw(100_000, np.random.default_rng(0))
        >>> round(float(np.percentile(waits, 50)), 1), round(float(np.percentile(waits, 95)), 1)
        (0.8, 2.5)

    Attributes:
        p50: median, seconds, above 0.
        p95: 95th percentile, seconds, at least the median.

    Raises:
        InputError: the percentiles are out of range.
    """

    p50: float
    p95: float

    def __post_init__(self) -> None:
        """Refuse percentiles out of range."""
        if not 0 < self.p50 <= self.p95 < np.inf:
            raise InputError(f"P50 is {self.p50} s and P95 is {self.p95} s; expected 0 < P50 <= P95, both finite")

    def draw(self, count: int, random: np.random.Generator) -> Array:
        """Draw latencies (count,), seconds."""
        spread = np.log(self.p95 / self.p50) / _NORMAL_P95
        return np.asarray(self.p50 * np.exp(spread * random.standard_normal(count)))


def latency_tails(
    latencies: Mapping[str, Latency], strong: str, weak: str, chosen: Point, verifier_s: float, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Simulate how long requests wait: P50, P95 and P99 in seconds.

    Args:
        latencies: of both models, by name.
        strong: name of the strong model.
        weak: name of the weak model.
        chosen: how the cascade runs.
        verifier_s: seconds that verifying one answer takes.
        seed: seed of the simulation.

    Returns:
        The three percentiles of the requests that weak answers ("weak accepted"), of the escalated ones ("escalated"),
        of those that go "straight to strong", and of "all".
    """
    random = np.random.default_rng(seed)
    first, second = latencies[weak].draw(_DRAWS, random), latencies[strong].draw(_DRAWS, random)
    waits = {
        "weak accepted": first + verifier_s,
        "escalated": first + verifier_s + second,
        "straight to strong": second,
    }
    direct = chosen.strong_share - chosen.escalation_rate
    draw = random.random(_DRAWS)
    waits["all"] = np.where(
        draw < direct,
        waits["straight to strong"],
        np.where(draw < direct + chosen.escalation_rate, waits["escalated"], waits["weak accepted"]),
    )
    return {name: _percentiles(values) for name, values in waits.items()}


def _percentiles(values: Array) -> tuple[float, float, float]:
    p50, p95, p99 = np.percentile(values, _PERCENTILES)
    return float(p50), float(p95), float(p99)
