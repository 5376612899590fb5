"""The token budget of a BERT router: APGR and rate on MMLU's five folds when the same bundles read fewer tokens.

Run: python benchmarks/truncation.py
Uses the bundles of `python benchmarks/mmlu.py --settings folds` (128 tokens, both ends), and trains those that are
missing. Reads $ROUTELEARN_DATA (default ../shared/data). Writes a section of docs/results.md.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from common import STRONG, WEAK, cached, say, write_section
from mmlu import SEEDS
from two_stage import SECOND, outcomes, routers

from routelearn.training.fit.metrics import percentile_interval, resamples, routing_curve

BUDGETS = (128, 96, 64, 48, 32, 24, 16)
#: What is kept of a longer question, with the share of the budget that goes to its end.
KEPT = {"both ends": 0.6, "the start": 0.0}
BOOTSTRAP = 500


def measure(fold: int) -> dict[str, Any]:
    """One fold: for each budget and part that is kept the APGR, its resamples, the seconds and the tokens read."""
    _, router, test = routers(fold)
    queries, strong, weak = outcomes(test)
    session = router._session
    lengths = session.backend.encode([str(query) for query in queries])[1]
    rows = list(resamples(np.arange(len(queries)), BOOTSTRAP, fold))
    found: dict[str, Any] = {"questions": len(queries)}
    for budget in BUDGETS:
        for kept, share in KEPT.items():
            session.max_tokens, session.last_tokens = budget, round(budget * share)
            start = time.perf_counter()
            scores = router.score(queries)
            seconds = time.perf_counter() - start
            found[f"{budget}, {kept}"] = {
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
        f"{SECOND}, trained with 128 tokens and both ends of a longer question, {STRONG} over {WEAK}; {total:,} "
        "questions, each scored by a router that was not trained on it. Differences with 95 % bootstrap intervals over "
        "questions. Both ends: three fifths of the budget are the end of the question.",
        "",
        "| token budget | kept of a longer question | tokens read a question | questions cut | APGR, mean of the folds "
        "| less that of the first row | queries a second |",
        "|---|---|---|---|---|---|---|",
    ]
    names = [name for name in folds[0] if name != "questions"]
    drawn = {name: np.array([fold[name]["drawn"] for fold in folds]).mean(axis=0) for name in names}
    apgr = {name: np.mean([fold[name]["apgr"] for fold in folds]) for name in names}
    for name in names:
        parts = [fold[name] for fold in folds]
        low, high = percentile_interval(drawn[name] - drawn[names[0]])
        less = f"{apgr[name] - apgr[names[0]]:+.4f} ({low:+.4f} to {high:+.4f})" if name != names[0] else ""
        budget, kept = name.split(", ")
        lines.append(
            f"| {budget} | {kept} | {np.mean([p['tokens'] for p in parts]):.0f} "
            f"| {np.mean([p['cut'] for p in parts]):.0%} | {apgr[name]:.4f} | {less} "
            f"| {total / sum(p['seconds'] for p in parts):,.0f} |"
        )
    write_section("Token budget of a BERT router", "python benchmarks/truncation.py", lines)


if __name__ == "__main__":
    main()
