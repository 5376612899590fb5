"""Guaranteed thresholds on real scores: does the bound hold, and what does it save?

Run: python benchmarks/guarantee.py
RouteLLM's MMLU questions are split 200 times at random: a tenth to calibrate, the rest to test. No router was trained
on a question that it scores. One router learned from arena battles and AlpacaEval (benchmarks/routellm_tables.py). The
others learned from four fifths of MMLU (benchmarks/mmlu.py), in five folds: the router that did not see a question
scores it. Run these two benchmarks first: the bundles are read from benchmarks/out, where the scores are kept too.
Reads $ROUTELEARN_DATA (default ../shared/data). Takes ten minutes of one core, half of it for scoring. Writes a section
of docs/results.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import OUT, STRONG, WEAK, cached, routellm, say, write_section
from mmlu import SEEDS, parts
from scipy.stats import binom, norm

from routelearn.data.records import Record
from routelearn.evaluation.thresholds.guarantee import LEAST_SAVED, lowest_cost_threshold
from routelearn.evaluation.thresholds.losses import losses_of
from routelearn.evaluation.thresholds.p_values import METHODS, PValues
from routelearn.routers.errors import InputError
from routelearn.routers.loading import load
from routelearn.training.fit.metrics import Array

SPLITS = 200
CALIBRATE = 0.1
DELTA = 0.05
ALPHAS = (0.01, 0.02, 0.05)
#: At most this many of the splits may exceed the bound where it holds: delta and 1.645 standard errors.
ALLOWED = DELTA + 1.645 * math.sqrt(DELTA * (1 - DELTA) / SPLITS)


def hoeffding_bentkus(losses: Array, alpha: float, delta: float) -> Array:
    """Of losses in [0, 1], gains counted as 0 (Bates et al., arXiv 2101.02703, section 3.1)."""
    n = len(losses)
    mean = np.maximum(losses, 0).mean(axis=0)
    low = np.clip(np.minimum(mean, alpha), 1e-12, 1 - 1e-12)
    entropy = low * np.log(low / alpha) + (1 - low) * np.log((1 - low) / (1 - alpha))
    return np.minimum(np.exp(-n * entropy), math.e * binom.cdf(np.ceil(n * mean), n, alpha))


def hoeffding_bentkus_signed(losses: Array, alpha: float, delta: float) -> Array:
    """Of signed losses brought to [0, 1]."""
    return hoeffding_bentkus((losses + 1) / 2, (alpha + 1) / 2, delta)


def empirical_bernstein(losses: Array, alpha: float, delta: float) -> Array:
    """Maurer and Pontil (arXiv 0907.3740), theorem 4, for losses in [-1, 1]: delta where the bound is below alpha."""
    n, logarithm = len(losses), math.log(2 / delta)
    bound = losses.mean(axis=0) + np.sqrt(2 * losses.var(axis=0, ddof=1) * logarithm / n)
    return np.where(bound + 2 * 7 * logarithm / (3 * (n - 1)) <= alpha, delta, 1.0)


def normal(losses: Array, alpha: float, delta: float) -> Array:
    """What is only right for many losses of every kind: for comparison."""
    error = losses.std(axis=0) / math.sqrt(len(losses)) + 1e-12
    return np.asarray(norm.sf((alpha - losses.mean(axis=0)) / error))


COMPARED: dict[str, PValues] = {
    **METHODS,
    "hoeffding-bentkus": hoeffding_bentkus,
    "hoeffding-bentkus, signed": hoeffding_bentkus_signed,
    "empirical bernstein": empirical_bernstein,
    "normal approximation": normal,
}


@dataclass(frozen=True)
class Scored:
    """Gaps and a router's scores of the same prompts."""

    title: str
    scores: Array
    gaps: Array


def in_domain(kind: str) -> dict[str, list[float]]:
    """Scores of held-out questions by the router of their fold."""
    scores: list[float] = []
    gaps: list[float] = []
    for fold in range(SEEDS):
        _, test, _ = parts("folds", fold)
        scores += scores_of(OUT / "bundles" / f"mmlu-folds-{fold}-{kind}", test, gaps)
        say(f"scored fold {fold} by {kind}")
    return {"scores": scores, "gaps": gaps}


def out_of_domain() -> dict[str, list[float]]:
    """Scores of all questions by a router that learned from others."""
    gaps: list[float] = []
    return {"scores": scores_of(OUT / "bundles" / "arena-alpaca-mf", routellm("mmlu"), gaps), "gaps": gaps}


def scores_of(path: Any, records: list[Record], gaps: list[float]) -> list[float]:
    """Scores, one a prompt; the gaps are appended."""
    if not (path / "router.json").is_file():
        raise InputError(f"no bundle at {path}: run benchmarks/routellm_tables.py and benchmarks/mmlu.py first")
    router = load(path)
    losses = losses_of(records, STRONG, WEAK)
    gaps += losses.gap.tolist()
    return [float(score) for score in router.win_rate(losses.queries, STRONG, WEAK)]


def simulate(found: Scored, alpha: float, method: str, calibrate: int, splits: int) -> dict[str, Any]:
    """Realised losses and shares sent to weak on the test part of random splits."""
    losses, shares, refused = [], [], 0
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(found.scores))
        kept, test = order[:calibrate], order[calibrate:]
        threshold = lowest_cost_threshold(found.scores[kept], found.gaps[kept], alpha, DELTA, COMPARED[method])
        if (found.scores[kept] < threshold).mean() < LEAST_SAVED:
            refused += 1
            threshold = 0.0
        to_weak = found.scores[test] < threshold
        losses.append(float(np.where(to_weak, found.gaps[test], 0).mean()))
        shares.append(float(to_weak.mean()))
    say(f"{found.title}, {alpha:g}, {method}, {calibrate}: {np.mean(shares):.3f} saved")
    return {"losses": losses, "shares": shares, "refused": refused}


def best_in_hindsight(found: Scored, alpha: float) -> float:
    """Share sent to weak by the threshold that is allowed when all losses are known."""
    order = np.argsort(found.scores, kind="stable")
    mean = np.cumsum(found.gaps[order]) / len(order)
    return float((np.flatnonzero(mean <= alpha)[-1] + 1) / len(order))


def comparison(routers: dict[str, Scored]) -> list[str]:
    """Every method at every bound: splits that exceed it, and the share saved."""
    text = [
        "| router | largest loss | " + " | ".join(COMPARED) + " | in hindsight |",
        "|---" * (len(COMPARED) + 3) + "|",
    ]
    for name, found in routers.items():
        count = round(CALIBRATE * len(found.scores))
        for alpha in ALPHAS:
            cells = []
            for method in COMPARED:
                key = f"guarantee/{name}-{alpha:g}-{method.replace(', ', '-').replace(' ', '-')}"
                row = cached(key, lambda f=found, a=alpha, m=method, c=count: simulate(f, a, m, c, SPLITS))
                exceeded = float(np.mean(np.array(row["losses"]) > alpha))
                saved = f"**{np.mean(row['shares']):.1%}** (sd {np.std(row['shares'], ddof=1):.1%})"
                cells.append(f"{exceeded:.1%}; {saved}" if row["refused"] < SPLITS else "always refused")
            text.append(f"| {found.title} | {alpha:g} | {' | '.join(cells)} | {best_in_hindsight(found, alpha):.1%} |")
    return text


def by_labels(routers: dict[str, Scored]) -> list[str]:
    """What labels are worth, by betting at a largest loss of 0.02."""
    text = ["| router | labels | exceeded | saved | refused |", "|---|---|---|---|---|"]
    for name, found in routers.items():
        for labels in (200, 350, 700, 1400, 2800, 5600):
            row = cached(
                f"guarantee/{name}-labels-{labels}", lambda f=found, c=labels: simulate(f, 0.02, "betting", c, 100)
            )
            text.append(
                f"| {found.title} | {labels:,} | {np.mean(np.array(row['losses']) > 0.02):.0%} "
                f"| {np.mean(row['shares']):.1%} (sd {np.std(row['shares'], ddof=1):.1%}) | {row['refused']}% |"
            )
    return text


def main() -> None:
    routers = scored()
    text = [
        f"{STRONG} over {WEAK}; loss: points of accuracy below always-{STRONG}. {SPLITS} random splits, "
        f"{CALIBRATE:.0%} of the prompts to calibrate, the rest to test; confidence {1 - DELTA:.0%}. The routers never "
        "saw the questions. Each cell has two numbers: the share of the splits whose loss on the test part exceeds the "
        f"largest loss ({ALLOWED:.1%} is within sampling error of {DELTA:.0%}), and the mean share of the test queries "
        "that need no strong call. In hindsight: the threshold that is best when every label is known. betting (the "
        "default) and clopper-pearson are the methods of `calibrate`. clopper-pearson and hoeffding-bentkus ignore "
        "queries on which weak is better; hoeffding-bentkus, signed, counts them as negative losses. The normal "
        "approximation is not a valid bound for small samples and rare losses; it is shown as an optimistic limit.",
        "",
        *comparison(routers),
        "",
        "What labels are worth (largest loss 0.02, betting, 100 splits):",
        "",
        *by_labels(routers),
    ]
    write_section("Guaranteed thresholds", "python benchmarks/guarantee.py", text)


def scored() -> dict[str, Scored]:
    """Every router's scores, computed once."""
    titles = {
        "arena-mf": ("mf, trained on arena battles and AlpacaEval", out_of_domain),
        "mf": ("mf, trained on other MMLU questions", lambda: in_domain("mf")),
        "bert-int8": ("bert (int8), trained on other MMLU questions", lambda: in_domain("bert-int8")),
    }
    found = {}
    for name, (title, compute) in titles.items():
        data = cached(f"guarantee/scores-{name}", compute)
        found[name] = Scored(
            f"{title}; {len(data['gaps']):,} prompts", np.array(data["scores"]), np.array(data["gaps"])
        )
    return found


if __name__ == "__main__":
    main()
