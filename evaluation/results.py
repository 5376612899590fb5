"""What an evaluation finds: results, differences and the report that holds them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .pool import PoolReport


@dataclass(frozen=True)
class Result:
    """What one router is worth on one set; every interval is a 95 % bootstrap over prompts.

    Attributes:
        router: its name.
        role: "router", "baseline" (trained or not, it must be beaten) or "bound" (the oracle).
        values: by name: apgr, cpt50, cpt80, cpt95, auroc, ece, share95, share99, cost99, quality, strong_share,
            log_loss; those that apply.
        intervals: of the same.
        curve: (strong share, mean score) points, or None.
        reliability: (mean predicted win rate, observed, count) of ten bins, or None.
        tasks: APGR on each task.
    """

    router: str
    role: str = "router"
    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    curve: list[tuple[float, float]] | None = None
    reliability: list[tuple[float, float, int]] | None = None
    tasks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """APGR of one router less that of another, on the same resamples."""

    router: str
    other: str
    apgr: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Report:
    """An evaluation.

    Attributes:
        strong: the strong model.
        weak: the weak model.
        queries: rows with a score of both.
        prompts: distinct prompts among them.
        preferences: preference records.
        strong_quality: mean score of strong alone.
        weak_quality: mean score of weak alone.
        tasks: rows of each task.
        results: the routers, then the baselines, then the oracle.
        differences: paired, between routers and to kNN.
        pool: the evaluation over all models, where three or more are scored and priced.
        notes: what was left out, and why.
    """

    strong: str
    weak: str
    queries: int
    prompts: int
    preferences: int
    strong_quality: float | None
    weak_quality: float | None
    tasks: dict[str, int]
    results: list[Result]
    differences: list[Difference]
    pool: PoolReport | None
    notes: list[str]

    def __getitem__(self, router: str) -> Result:
        """The result of a router by name."""
        return next(result for result in self.results if result.router == router)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)
