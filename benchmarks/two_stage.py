"""Two stages on MMLU, in five folds: mf decides, and bert (int8) is asked only near the threshold; APGR and rate.

Run: python benchmarks/two_stage.py
Uses the bundles of `python benchmarks/mmlu.py --settings folds`, and trains those that are missing (bert takes some
minutes a fold). Reads $ROUTELEARN_DATA (default ../shared/data). Writes a section of docs/results.md.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np
import numpy.typing as npt
from common import STRONG, WEAK, bundle, cached, say, write_section
from mmlu import ROUTERS, SEEDS, parts
from speed import rates

from routelearn.data.records import Record, record_key
from routelearn.routers.combined import TwoStageRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.routers.query import Query
from routelearn.training.fit.metrics import Curve, percentile_interval, resamples, routing_curve

FIRST, SECOND = "mf", "bert-int8"
SHARES = (0.1, 0.15, 0.2, 0.25, 0.3)
#: Queries whose rate is measured.
TIMED = 512
BOOTSTRAP = 500
Array = npt.NDArray[np.float64]


def routers(fold: int) -> tuple[LearnedRouter, LearnedRouter, list[Record]]:
    """The two, and the records to test on."""
    training, test, _ = parts("folds", fold)
    found = [
        load(bundle(f"mmlu-folds-{fold}-{name}", lambda out, n=name: ROUTERS[n](training, out, fold)))
        for name in (FIRST, SECOND)
    ]
    return found[0], found[1], test


def outcomes(test: list[Record]) -> tuple[list[Query], Array, Array]:
    """The questions that both models answered, and the scores of both."""
    scores: dict[str, dict[str, float]] = {}
    texts = {record_key(record): record.query for record in test}
    for record in test:
        scores.setdefault(record_key(record), {})[record.model] = record.score  # type: ignore[union-attr]
    keys = [key for key, found in scores.items() if {STRONG, WEAK} <= set(found)]
    strong, weak = (np.array([scores[key][model] for key in keys]) for model in (STRONG, WEAK))
    return [texts[key] for key in keys], strong, weak


def curve(first: Array, second: Array, router: TwoStageRouter, strong: Array, weak: Array) -> Curve:
    """The curve of the two: thresholds are quantiles of the first's scores, as in RouteLLM's curve of one router."""
    points = [(0.0, float(weak.mean())), (1.0, float(strong.mean()))]
    for threshold in np.unique(np.quantile(first, np.linspace(0, 1, 11))):
        scores = np.where(np.abs(first - threshold) <= router.band(float(threshold)), second, first)
        chosen = scores >= threshold
        points.append((float(chosen.mean()), float(np.where(chosen, strong, weak).mean())))
    share, quality = np.array(sorted(points)).T
    return Curve(share=share, quality=quality, weak=float(weak.mean()), strong=float(strong.mean()))


def measure(fold: int) -> dict[str, Any]:
    """One fold: APGR of each, with resamples of the questions for the interval of the difference, and the rates."""
    first, second, test = routers(fold)
    queries, strong, weak = outcomes(test)
    one, two = (np.asarray(router.score(queries), np.float64) for router in (first, second))
    both = {share: TwoStageRouter(first, second, share=share) for share in SHARES}

    def values(rows: npt.NDArray[np.int64]) -> list[float]:
        sides = strong[rows], weak[rows]
        found = [routing_curve(scores[rows], *sides).apgr for scores in (one, two)]
        return found + [curve(one[rows], two[rows], router, *sides).apgr for router in both.values()]

    drawn = [values(rows) for rows in resamples(np.arange(len(queries)), BOOTSTRAP, fold)]
    timed = queries[:TIMED]
    works = {FIRST: first, SECOND: second, **{f"{share:.0%}": router for share, router in both.items()}}
    for router in works.values():
        router.route_batch(timed)
    rounds = rates({name: (lambda r=router: r.route_batch(timed), len(timed)) for name, router in works.items()})
    say(f"fold {fold} done")
    return {"apgr": values(np.arange(len(queries))), "drawn": drawn, "rounds": rounds, "questions": len(queries)}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    folds = [cached(f"two-stage/{fold}", lambda f=fold: measure(f)) for fold in range(SEEDS)]
    apgr = np.array([fold["apgr"] for fold in folds])
    drawn = np.array([fold["drawn"] for fold in folds]).mean(axis=0)
    names = [FIRST, SECOND, *(f"{share:.0%}" for share in SHARES)]
    lines = [
        f"{STRONG} over {WEAK}, five folds of {min(f['questions'] for f in folds):,} to "
        f"{max(f['questions'] for f in folds):,} test questions (near copies of training questions left out); "
        f"{FIRST} decides, {SECOND} is asked about a share of queries like the held-out ones of its training. "
        f"Intervals: 95 % bootstrap over questions. Rates: {TIMED} questions a call, medians of rounds taking turns.",
        "",
        f"| router | APGR, mean | of each fold | less {SECOND} | queries a second | times {SECOND} |",
        "|---|---|---|---|---|---|",
    ]
    for column, name in enumerate(names):
        speed = [rate for fold in folds for rate in fold["rounds"][name]]
        times = [a / b for fold in folds for a, b in zip(fold["rounds"][name], fold["rounds"][SECOND], strict=True)]
        low, high = percentile_interval(drawn[:, column] - drawn[:, 1])
        label = name if column < 2 else f"two stages, {name} to {SECOND}"
        less = f"{(apgr[:, column] - apgr[:, 1]).mean():+.4f} ({low:+.4f} to {high:+.4f})"
        each = ", ".join(f"{value:.3f}" for value in apgr[:, column])
        lines.append(
            f"| {label} | {apgr[:, column].mean():.4f} | {each} | {less if column != 1 else ''} "
            f"| {statistics.median(speed):,.0f} | {statistics.median(times):.2f} |"
        )
    write_section("Two stages", "python benchmarks/two_stage.py", lines)


if __name__ == "__main__":
    main()
