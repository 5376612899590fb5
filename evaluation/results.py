"""What an evaluation finds: the results of the routers, their differences, and the report that holds them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .pool import PoolReport


@dataclass(frozen=True, kw_only=True)
class Result:
    """How one router does on the evaluation records.

    Example:
        >>> records = [record for record in routelearn.read_records("records.jsonl").records if record.split == "test"]
        >>> result = routelearn.evaluate({"mf": routelearn.load("router/")}, records, bootstrap=20)["mf"]
        >>> low, high = result.intervals["apgr"]
        >>> low < result.values["apgr"] < high
        True

    Attributes:
        router: name of the router.
        role: "router", "baseline" (a router must beat it) or "bound" (the oracle: no router can beat it).
        values: the figures that apply, by name: "apgr", "cpt50", "cpt80", "cpt95" (shares of strong calls), "auroc",
            "ece", "share95", "share99" (shares of strong calls), "cost95", "cost99" and "cost" (USD for 1,000 queries),
            "quality" (mean score), "strong_share" and "log_loss" (nats).
        intervals: 95 % bootstrap intervals of the same figures; prompts are resampled.
        curve: (strong share, mean score) points, or None.
        reliability: (mean predicted win rate, observed win rate, count) of ten bins, or None.
        tasks: APGR on the queries of each task.
    """

    router: str
    role: str = "router"
    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    curve: list[tuple[float, float]] | None = None
    reliability: list[tuple[float, float, int]] | None = None
    tasks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The APGR of one router minus that of another one, on the same resamples.

    Example:
        >>> from routelearn.evaluation import Difference
        >>> difference = Difference(router="mf", other="kNN", apgr=0.04, interval=(0.01, 0.07))
        >>> difference.interval[0] > 0  # mf is better than kNN beyond chance
        True

    Attributes:
        router: name of the router.
        other: name of the router whose APGR is subtracted.
        apgr: the difference.
        interval: its 95 % bootstrap interval.
    """

    router: str
    other: str
    apgr: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Report:
    """An evaluation of one or more routers; ``report[name]`` is the result of a router or a baseline.

    Example:
        >>> records = [record for record in routelearn.read_records("records.jsonl").records if record.split == "test"]
        >>> report = routelearn.evaluate({"mf": routelearn.load("router/")}, records, bootstrap=20)
        >>> [result.router for result in report.results]
        ['mf', 'rules', 'random', 'always-weak', 'always-strong', 'oracle']
        >>> report["mf"].values["apgr"] > 0.5  # 0.5 is a random choice, 1 a perfect one
        True

    Attributes:
        strong: the strong model.
        weak: the weak model.
        queries: number of rows with a score of both models.
        prompts: number of distinct prompts among them.
        preferences: number of preference records.
        strong_quality: mean score of the strong model alone; None without scores.
        weak_quality: mean score of the weak model alone; None without scores.
        tasks: number of rows of each task.
        results: the routers first, then the baselines, then the oracle.
        differences: paired differences between the routers, and between each router and kNN.
        pool: the evaluation over the whole pool, where three or more models have scores and prices; else None.
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
        """The result of a router or a baseline, by its name.

        Raises:
            KeyError: the report has no result of this name; the message lists the names.
        """
        for result in self.results:
            if result.router == router:
                return result
        raise KeyError(f"no result of {router!r}; expected one of {[result.router for result in self.results]}")

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        return asdict(self)
