"""Token budget of a BERT router: APGR and rate on MMLU's five folds for each budget, read by the same bundles.

Run: python benchmarks/truncation.py
Uses the bundles of `python benchmarks/mmlu.py --settings folds` (128 tokens), and trains those that are missing. Reads
$ROUTELEARN_DATA (default ../shared/data). Writes a section of docs/results.md.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from common import STRONG, WEAK, cached, say, write_section
from mmlu import SEEDS
from two_stage import SECOND, outcomes, routers

from routelearn.training.metrics import percentile_interval, resamples, routing_curve

BUDGETS = (128, 96, 64, 48, 32, 24, 16)
BOOTSTRAP = 500


def measure(fold: int) -> dict[str, Any]:
    """One fold: for each budget the APGR, its resamples, the seconds and the tokens read."""
    _, router, test = routers(fold)
    queries, strong, weak = outcomes(test)
    session = router._session
    lengths = session.backend.encode([str(query) for query in queries])[1]
    rows = list(resamples(np.arange(len(queries)), BOOTSTRAP, fold))
    found: dict[str, Any] = {"questions": len(queries)}
    for budget in BUDGETS:
        session.max_tokens = budget
        start = time.perf_counter()
        scores = router.score(queries)
        seconds = time.perf_counter() - start
        found[str(budget)] = {
            "apgr": routing_curve(scores, strong, weak).apgr,
            "drawn": [routing_curve(scores[drawn], strong[drawn], weak[drawn]).apgr for drawn in rows],
            "seconds": seconds,
            "tokens": float(np.minimum(lengths, budget).mean()),
            "cut": float((lengths > budget).mean()),
        }
    say(f"fold {fold} done")
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    folds = [cached(f"truncation/{fold}", lambda f=fold: measure(f)) for fold in range(SEEDS)]
    total = sum(fold["questions"] for fold in folds)
    lines = [
        f"{SECOND}, trained with 128 tokens, {STRONG} over {WEAK}; {total:,} questions, each scored by a router that "
        "was not trained on it. Differences with 95 % bootstrap intervals over questions. The end of a question, where "
        "the answers to choose from stand, is what is cut.",
        "",
        "| token budget | tokens read a question | questions cut | APGR, mean of the folds | less that of 128 "
        "| queries a second |",
        "|---|---|---|---|---|---|",
    ]
    drawn = {budget: np.array([fold[str(budget)]["drawn"] for fold in folds]).mean(axis=0) for budget in BUDGETS}
    apgr = {budget: np.mean([fold[str(budget)]["apgr"] for fold in folds]) for budget in BUDGETS}
    for budget in BUDGETS:
        parts = [fold[str(budget)] for fold in folds]
        low, high = percentile_interval(drawn[budget] - drawn[BUDGETS[0]])
        less = f"{apgr[budget] - apgr[BUDGETS[0]]:+.4f} ({low:+.4f} to {high:+.4f})"
        lines.append(
            f"| {budget} | {np.mean([p['tokens'] for p in parts]):.0f} | {np.mean([p['cut'] for p in parts]):.0%} "
            f"| {apgr[budget]:.4f} | {less if budget != BUDGETS[0] else ''} "
            f"| {total / sum(p['seconds'] for p in parts):,.0f} |"
        )
    write_section("Token budget of a BERT router", "python benchmarks/truncation.py", lines)


if __name__ == "__main__":
    main()
