"""How many labels a choice of prompts saves: labels needed for the APGR that random choice reaches with 400.

Run: ROUTELEARN_DATA=FOLDER python benchmarks/next_labels.py [--development] [--seeds 20]

A label is a prompt whose answers by both models are judged. The prompts are chosen from a part of the set, the general
router (trained without the set and without near copies of its prompts) is adapted to them, and the APGR is measured on
the other part. --development measures the sources that the way to choose was chosen on. Results stay in benchmarks/out,
so that a stopped run goes on; half an hour on one core.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas
from adaptation import Set, development_sets, general_without, test_sets
from common import DATA, cached, say, write_section
from general_sources import SOURCES, read_source

from routelearn.data.records import PerformanceRecord
from routelearn.labelling.next_labels import choose_prompts
from routelearn.labelling.prompts import Prompt
from routelearn.routers.base import Router
from routelearn.routers.loading import load
from routelearn.training.adaptation import adapt
from routelearn.training.fit.metrics import routing_curve
from routelearn.training.matrix_factorization.config import MatrixFactorizationConfig

#: Labels that the choices are compared at, and those of random choice whose APGR is to be reached.
COUNTS, REFERENCE = (100, 200, 400), 400
#: Prompts that are chosen from, and prompts that are tested on, at most.
MOST_POOL, MOST_TESTED = 3000, 2000
#: A number of labels that is not reached within these limits counts as the limit.
LIMITS = (25.0, 1600.0)
#: The sets of the table.
TESTED = ("mmlu", "mmlu_pro", "gsm8k", "ifeval")
#: Sources that the way to choose was chosen on.
DEVELOPMENT = ("fasteval_bbh_math", "fasteval_openai_evals", "cascades_knowledge")
INTRODUCTION = (
    "A label is a prompt whose answers by both models are judged; `adapt` makes a router of them, and the APGR is"
    " that on other prompts, mean of {seeds} random parts of each set. random: a random choice, the mean of two. "
    "spread: `next-labels` without a router, the mean of two seeds. useful: half of the labels by spread, then "
    "half by `next-labels --router` with a router of the first half, trained with the weights. less random: the "
    "mean difference over the three numbers of labels. The last column: so many labels by this choice reach the "
    "APGR of 400 random ones, by straight lines over the logarithm of the labels for both; below 25 and above "
    "1,600 it counts as the limit. random, twice: the second random choice against the first, as a control. In "
    "brackets 95 % bootstrap intervals over the parts; the mean over the sets is geometric. The pairs are those "
    "of the section on few labels; bfcl_function_calling is the set of code: calls of functions, checked by a "
    "program, {strong} over {weak}."
)

TRIED_IN_WORDS = (
    "Tried on other sources (MATH level 5, BBH and MATH, OpenAI evals, cascades; 11 pairs of models, 30 parts of "
    "each, 200 labels, logistic regression on the same vectors in place of `adapt`), as the APGR less that of "
    "four random choices (standard error 0.002): spread over 32 clusters +0.002, over 100 clusters 0.000, along "
    "the difficulty 0.000; two rounds with a floor of 0.5: spread of the gain times nearness to the threshold "
    "-0.002, nearness alone -0.002, spread of the gain times leverage -0.002, squared spread of the gain -0.001, "
    "all three +0.001; with a floor of 0.25 -0.003 to 0.000, trained with the weights -0.003 to -0.002. In a "
    "shorter run (12 parts, one random choice; standard error 0.003), where spread had -0.005: one prompt of each"
    " of 200 clusters -0.007 (with weights -0.019), greedy D-optimal design -0.009, the most useful prompts "
    "without a floor +0.001. No choice is better than the plain spread beyond chance, so the spread is the "
    "default. With a router the same sources show another gain: the median error of the estimated loss at the "
    "threshold is 10 % smaller than with a random choice (spread: 1 %), that of weak's quality 18 % (6 %), that "
    "of APGR 1 % (2 %), from 200 weighted labels."
)


def code_set() -> Set:
    """Function calls, which a program checks: the largest set of code with two models of each prompt."""
    source = next(one for one in SOURCES if one.name == "bfcl_function_calling")
    rows = [(one.query, one.models[0], one.score) for one in read_source(DATA, source)]  # type: ignore[union-attr]
    table = pandas.DataFrame(rows, columns=["prompt", "model", "score"])
    scores = table.pivot_table(index="prompt", columns="model", values="score")
    scores = scores.loc[:, scores.notna().mean() > 0.8]
    ranked = scores.mean().sort_values().index
    pair = ranked[-1], ranked[len(ranked) // 2]
    kept = scores[list(pair)].dropna()
    return Set(source.name, list(kept.index), kept.to_numpy(), [None] * len(kept), pair, {source.name})


class Experiment:
    """One set and seed: a pool to choose labels from, and prompts to test on.

    The scores are those of the set; a choice sees those of its own prompts alone.
    """

    def __init__(self, one: Set, general: Path, seed: int) -> None:
        order = np.random.default_rng(2000 + seed).permutation(len(one.prompts))
        tested = min(MOST_TESTED, len(order) * 2 // 5)
        self.one, self.general, self.seed = one, general, seed
        self.tested = order[:tested]
        self.pool = order[tested:][:MOST_POOL]
        self.row_of = {one.prompts[row]: row for row in self.pool.tolist()}
        self.prompts = [Prompt(query=one.prompts[row], task=one.tasks[row]) for row in self.pool.tolist()]
        self._spread = cache(self._spread_once)

    def records(self, prompts: Sequence[Prompt]) -> list[PerformanceRecord]:
        """The labels of prompts, with their weights."""
        found = []
        for prompt in prompts:
            rows = np.array([self.row_of[str(prompt.query)]])
            found += [replace(record, weight=prompt.weight) for record in self.one.records(rows)]
        return found

    def router(self, prompts: Sequence[Prompt]) -> Router:
        """The general router, adapted to the labels of prompts."""
        strong, weak = self.one.models
        config = MatrixFactorizationConfig(strong=strong, weak=weak)
        with tempfile.TemporaryDirectory() as folder:
            return load(adapt(self.general, self.records(prompts), Path(folder) / "router", config))

    def apgr(self, router: Router) -> float:
        """On the prompts that no label is chosen from."""
        strong, weak = self.one.scores[self.tested].T
        return routing_curve(router.score([self.one.prompts[row] for row in self.tested.tolist()]), strong, weak).apgr

    def random(self, count: int) -> list[Prompt]:
        """A random choice."""
        return self.prompts[:count]

    def random_again(self, count: int) -> list[Prompt]:
        """Another random choice, which shows what chance alone does."""
        return self.prompts[-count:]

    def spread(self, count: int) -> list[Prompt]:
        """The choice without labels."""
        return self._spread(count)[0]

    def spread_again(self, count: int) -> list[Prompt]:
        """The choice without labels, by another seed."""
        return list(choose_prompts(self.prompts, count, seed=1000 + self.seed).prompts)

    def _spread_once(self, count: int) -> tuple[list[Prompt], Router]:
        chosen = list(choose_prompts(self.prompts, count, seed=self.seed).prompts)
        return chosen, self.router(chosen)

    def useful(self, count: int, floor: float = 0.5) -> list[Prompt]:
        """Half without labels, then half by the router of the first half."""
        first, router = self._spread(count // 2)
        more = choose_prompts(
            self.prompts, count - count // 2, labels=self.records(first), router=router, floor=floor, seed=self.seed
        )
        return [*first, *more.prompts]


def plain(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts without their weights."""
    return [replace(prompt, weight=1.0) for prompt in prompts]


#: The ways to choose: those of the table, and those that were compared on the development sources.
WAYS = {
    "random": Experiment.random,
    "spread": Experiment.spread,
    "useful": Experiment.useful,
}
#: The row that compares the second random choice with the first.
CONTROL = "random, twice"
#: Second choices, so that chance counts less.
AGAIN = {"random again": Experiment.random_again, "spread again": Experiment.spread_again}
TRIED = {
    **WAYS,
    "useful, floor 0.2": lambda run, count: run.useful(count, 0.2),
    "useful, trained without weights": lambda run, count: plain(run.useful(count)),
    "useful, floor 0.2, trained without weights": lambda run, count: plain(run.useful(count, 0.2)),
}


def measure(one: Set, seed: int, ways: dict, counts: Sequence[int]) -> dict[str, dict[str, float]]:
    """APGR by the number of labels, for each way."""
    run = Experiment(one, general_without(one), seed)
    found: dict[str, dict[str, float]] = {}
    for way, choose in ways.items():
        found[way] = {}
        for count in counts:
            say(f"next_labels: {one.name}, seed {seed}, {count} labels, {way}")
            router = run._spread(count)[1] if way == "spread" else run.router(choose(run, count))
            found[way][str(count)] = run.apgr(router)
    return found


def needed(curves: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> float:
    """Labels at which a choice is as good as random choice with 400, from APGRs (seeds, counts) of both.

    Both curves are fitted as straight lines over the logarithm of the labels, so that noise counts alike in both.
    """
    x = np.log(np.array(COUNTS))
    slope, level = np.polyfit(x, curves.mean(axis=0), 1)
    target = np.polyval(np.polyfit(x, reference.mean(axis=0), 1), np.log(REFERENCE))
    if slope <= 0:
        return LIMITS[0] if np.polyval([slope, level], np.log(REFERENCE)) >= target else LIMITS[1]
    return float(np.clip(np.exp(np.clip((target - level) / slope, 0, 20)), *LIMITS))


def table(results: dict[str, list[dict[str, dict[str, float]]]]) -> list[str]:
    """A row for each set and way; the two choices of one way count as their mean."""
    heading = "| set | choice | " + " | ".join(f"APGR, {count} labels" for count in COUNTS)
    text = [heading + " | less random | labels for that of 400 random ones |", "|---|---|" + "---|" * (len(COUNTS) + 2)]
    random = np.random.default_rng(0)
    means: dict[str, list[tuple[float, list[float]]]] = {}
    for name, rows in results.items():
        by_way = {way: np.array([[row[way][str(count)] for count in COUNTS] for row in rows]) for way in rows[0]}
        again, first = by_way.pop("random again"), by_way.pop("random")
        by_way["spread"] = (by_way["spread"] + by_way.pop("spread again")) / 2
        base, draws = (first + again) / 2, random.integers(0, len(rows), (2000, len(rows)))
        shown = " | ".join(f"{value:.3f}" for value in base.mean(axis=0))
        text.append(f"| {name} | random | {shown} | | 400 |")
        compared = {way: (curves, base) for way, curves in by_way.items()} | {CONTROL: (again, first)}
        for way, (curves, reference) in compared.items():
            found = needed(curves, reference)
            drawn = [needed(curves[rows], reference[rows]) for rows in draws]
            means.setdefault(way, []).append((found, drawn))
            gain = (curves - reference).mean(axis=1)
            low, high = np.quantile(gain[draws].mean(axis=1), [0.025, 0.975])
            cells = [f"{value:.3f}" for value in curves.mean(axis=0)]
            cells += [f"{gain.mean():+.4f} ({low:+.4f} to {high:+.4f})", shown_labels(found, drawn)]
            text.append(f"| {name} | {way} | " + " | ".join(cells) + " |")
    for way, values in means.items():
        # The geometric mean, since half and twice as many labels are the same error.
        found = float(np.exp(np.mean(np.log([value for value, _ in values]))))
        drawn = np.exp(np.mean(np.log([one for _, one in values]), axis=0)).tolist()
        blank = " | " * len(COUNTS)
        text.append(f"| **mean of {len(values)}** | **{way}** | {blank} | **{shown_labels(found, drawn)}** |")
    return text


def shown_labels(found: float, drawn: Sequence[float]) -> str:
    """A number of labels with its interval."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{found:.0f} ({low:.0f} to {high:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--development", action="store_true", help="the sources that the way to choose was chosen on")
    parser.add_argument("--seeds", type=int, default=20, help="random parts of the sets")
    arguments = parser.parse_args()
    ways = TRIED if arguments.development else WAYS
    if arguments.development:
        sets = [one for one in development_sets() if one.name in DEVELOPMENT]
    else:
        sets = [*(one for one in test_sets() if one.name in TESTED), code_set()]
    results: dict[str, list[dict[str, dict[str, float]]]] = {one.name: [] for one in sets}
    for seed in range(arguments.seeds):  # seed by seed, so that a run that is stopped has something of each set
        for one in sets:
            row = {}
            for way, choose in {**ways, **AGAIN}.items():
                name = f"next_labels/{one.name}-{seed}-{way.replace(' ', '-')}"
                row |= cached(name, lambda one=one, seed=seed, only={way: choose}: measure(one, seed, only, COUNTS))
            results[one.name].append(row)
    text = table(results)
    if arguments.development:
        say("\n".join(text))
        return
    strong, weak = sets[-1].models
    introduction = INTRODUCTION.format(seeds=arguments.seeds, strong=strong, weak=weak)
    write_section(
        "Which prompts to label next", "python benchmarks/next_labels.py", [introduction, "", *text, "", TRIED_IN_WORDS]
    )


if __name__ == "__main__":
    main()
