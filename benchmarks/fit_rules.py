"""The weights of the default rules, fitted on the sources of the general router, and what they are worth elsewhere.

Run: python benchmarks/fit_rules.py
The targets are how hard a query is (one minus the mean quality of all models) and how much better the strong models
do, each less its mean in its source, so that only differences within a source count. A ridge regression draws the
weights toward those written by hand, and a rule keeps its sign. The penalty is chosen by leaving sources out: the
strongest within .005 of the best. The test mixes the prompts of 13 data sets; the weights and the penalty that score
a data set come from the others. MT-Bench is reported only. Reads $ROUTELEARN_DATA (default ../shared/data). Writes
a section of docs/results.md. The weights are printed: copy them to routers/rules.toml.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas
from adaptation import test_sets
from common import DATA, bundle, interval, routellm, write_section
from general_sources import SOURCES, read_source, shipped_sources
from scipy.optimize import nnls

from routelearn.data.splits import split_by_prompt
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.routers.rules import RulesRouter, load_rules
from routelearn.training.fit.metrics import bootstrap_interval, routing_curve
from routelearn.training.matrix_factorization.config import MatrixFactorizationConfig
from routelearn.training.matrix_factorization.train import train_matrix_factorization

#: The weights written by hand, before there were data.
HAND = {
    "very_short": -0.5,
    "short": -0.6,
    "long": 0.5,
    "long_context": 0.9,
    "many_turns": 0.4,
    "greeting": -1.5,
    "lookup": -0.7,
    "code": 1.0,
    "code_block": 1.0,
    "mathematics": 1.1,
    "formula": 1.1,
    "reasoning": 1.2,
    "constraints": 0.7,
    "several_questions": 0.6,
    "language": 0.8,
    "expert_domain": 0.6,
}
#: The difference in quality that a weight of 1 stands for.
UNIT = 0.15
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)
#: Prompts of a source that are read for a fit, and of a data set for the test.
FITTED, TESTED = 600, 150
#: A stronger penalty may lose this much APGR.
SLACK = 0.005

Array = np.ndarray
#: Of a source: the products of the rules' indicators with each other and with the target.
Moments = tuple[Array, Array]


def indicators(router: RulesRouter, prompts: Iterable[str]) -> Array:
    """Which rules fire, (n prompts, n rules of HAND)."""
    fired = [{name for name, _ in router.fired(prompt)} for prompt in prompts]
    return np.array([[float(name in one) for name in HAND] for one in fired])


def moments(fired: Array, target: Array) -> Moments:
    """Means of products within a source, in units of a weight."""
    centred = fired - fired.mean(0)
    return centred.T @ centred / len(fired), centred.T @ (target - target.mean()) / len(fired) / UNIT


def fitted(parts: list[Moments], penalty: float) -> Array:
    """The weights of the rules, with the signs of HAND, as `penalty` draws them toward HAND."""
    hand = np.array(list(HAND.values()))
    signs = np.sign(hand)
    squares = sum(part[0] for part in parts) + penalty * np.eye(len(hand))
    products = sum(part[1] for part in parts) + penalty * hand
    root = np.linalg.cholesky(squares * np.outer(signs, signs))
    return signs * nnls(root.T, np.linalg.solve(root, signs * products))[0]


def gaps(data: Path) -> pandas.DataFrame:
    """Prompts with the quality of strong models less that of weak models."""
    table = pandas.read_parquet(data / "general/strong_vs_weak_targets.parquet")
    table["gap"] = table["gap"].fillna(2 * table["p_strong_wins"] + table["p_tie"] - 1)
    return table.dropna(subset=["prompt", "gap"])


def training(data: Path, router: RulesRouter, table: pandas.DataFrame) -> dict[str, list[Moments]]:
    """The moments of each source under a permissive licence."""
    found: dict[str, list[Moments]] = {}
    for source in shipped_sources():
        targets = []
        if source.judge != "preference":
            records = [(record.query, record.score) for record in read_source(data, source)]
            targets.append(1 - pandas.DataFrame(records, columns=["prompt", "score"]).groupby("prompt")["score"].mean())
        targets.append(table[table["dataset"] == source.name].set_index("prompt")["gap"])
        targets = [one.sample(min(FITTED, len(one)), random_state=0) for one in targets if len(one)]
        found[source.name] = [moments(indicators(router, one.index), one.to_numpy()) for one in targets]
    return found


def left_out(parts: dict[str, list[Moments]], names: Iterable[str], penalty: float) -> Array:
    """The weights without some sources, and without those that share their prompts."""
    names = set(names)
    gone = names | {other for source in SOURCES if source.name in names for other in source.shared}
    return fitted([one for name, some in parts.items() if name not in gone for one in some], penalty)


def score(fired: Array, weights: Array) -> Array:
    """The logits; where no rule fires, the highest, as the router has it."""
    return np.where(fired.any(axis=1), fired @ weights, 1e9)


def apgr(scores: Array, gap: Array) -> float:
    """APGR over pairs whose qualities differ by `gap`."""
    return routing_curve(scores, 0.5 + gap / 2, 0.5 - gap / 2).apgr


def chosen(parts: dict[str, list[Moments]], test: pandas.DataFrame, fired: Array, without: str = "") -> float:
    """The penalty, by leaving out each data set under a permissive licence in turn; `without` takes no part."""
    gap, sets = test["gap"].to_numpy(), test["dataset"].to_numpy()
    rows = np.isin(sets, list(set(parts) - {without}))
    worth = {}
    for penalty in PENALTIES:
        scores = np.zeros(len(test))
        for name in set(sets[rows]):
            scores[sets == name] = score(fired[sets == name], left_out(parts, [name, without], penalty))
        worth[penalty] = apgr(scores[rows], gap[rows])
    return max(penalty for penalty in PENALTIES if worth[penalty] >= max(worth.values()) - SLACK)


def row(name: str, scores: Array, gap: Array, threshold: float | None = None) -> str:
    """A row of the table: the APGR of scores with its interval, and the share of strong calls."""
    found = bootstrap_interval(lambda rows: apgr(scores[rows], gap[rows]), np.arange(len(gap)))
    share = "" if threshold is None else f"{np.mean(scores >= threshold):.0%}"
    return f"| {name} | {len(gap):,} | {apgr(scores, gap):.3f} ({interval(found)}) | {share} |"


def mmlu_router() -> LearnedRouter:
    """A matrix factorization trained on a tenth of MMLU alone."""

    def train(out: Path) -> Path:
        records = split_by_prompt(routellm("mmlu"), (0.1, 0.9), 0)[0]
        return train_matrix_factorization(records, out, MatrixFactorizationConfig(general="none"))

    return load(bundle("rules-mmlu-mf", train))


def trained_value(router: RulesRouter) -> list[str]:
    """Rules beside a router that was trained on half of a set, or on 1,000 labels: what each is worth over chance."""
    text = ["| set | labels | mf | rules | length alone | (rules - .5) / (mf - .5) |", "|---|---|---|---|---|---|"]
    for one in test_sets():
        order = np.random.default_rng(0).permutation(len(one.prompts))
        count = min(1000, len(order) // 2)
        config = MatrixFactorizationConfig(strong=one.models[0], weak=one.models[1], general="none")
        path = bundle(
            f"rules-{one.name}-mf",
            lambda out, one=one, rows=order[:count], config=config: train_matrix_factorization(
                one.records(rows), out, config
            ),
        )
        prompts, gap = [one.prompts[i] for i in order[count:].tolist()], one.scores[order[count:]] @ [1, -1]
        lengths = np.array([len(prompt) for prompt in prompts], float)
        mf, rules = apgr(load(path).score(prompts), gap), apgr(router.score(prompts), gap)
        length = apgr(lengths, gap)
        text.append(
            f"| {one.name} | {count:,} | {mf:.3f} | {rules:.3f} | {length:.3f} | {(rules - 0.5) / (mf - 0.5):.0%} |"
        )
    return text


def mt_bench(data: Path) -> tuple[list[str], Array]:
    """First turns of MT-Bench, and GPT-4's score less that of Mixtral."""
    table = pandas.read_parquet(data / "routellm_eval/mt_bench.parquet")
    table = table[(table["turn"] == 1) & ~table["contaminated"]]
    wide = table.pivot_table(index="prompt", columns="model", values="score")
    strong = next(name for name in wide if "gpt-4" in name)
    weak = next(name for name in wide if "ixtral" in name)
    return list(wide.index), (wide[strong] - wide[weak]).to_numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another TOML file of rules, to be compared")
    arguments = parser.parse_args()
    data = DATA
    router, table = RulesRouter(), gaps(data)
    parts = training(data, router, table)
    test = pandas.concat(
        some.sample(TESTED, random_state=0)
        for name, some in table.groupby("dataset")
        if len(some) >= TESTED and name != "justeval_gpt35_absolute"
    )
    prompts, gap, sets = list(test["prompt"]), test["gap"].to_numpy(), test["dataset"].to_numpy()
    fired = indicators(router, prompts)
    scores = np.zeros(len(test))
    for name in sorted(set(sets)):
        weights = np.round(left_out(parts, [name], chosen(parts, test, fired, name)), 1)
        scores[sets == name] = score(fired[sets == name], weights)
    penalty = chosen(parts, test, fired)
    weights = np.round(left_out(parts, [], penalty), 1)
    print(f"penalty {penalty}\n{'rule':20} by hand  fitted  fires in the test")
    for name, weight, share in zip(HAND, weights, fired.mean(0), strict=True):
        print(f"{name:20} {HAND[name]:+7.1f} {weight:+7.1f} {share:8.1%}")
    questions, better = mt_bench(data)
    lengths = np.array([len(prompt) for prompt in prompts], float)
    mmlu = mmlu_router()
    text = [
        "The pooled test mixes 150 prompts of each of 13 data sets, strong models over weak ones. The weights in the "
        "first row were fitted without the set that they score. The general router has its own table on such a test: "
        "[the general router](#the-general-router). mf learned from a tenth of MMLU and nothing else.",
        "",
        "| scores | prompts | APGR | strong calls at the default threshold |",
        "|---|---|---|---|",
        row("pooled: rules, fitted without each set", scores, gap),
        row("pooled: the default rules as they are", router.score(prompts), gap, router.threshold),
        row("pooled: weights by hand", score(fired, np.array(list(HAND.values()))), gap),
        row("pooled: length alone", lengths, gap),
        row("pooled: mf trained on MMLU", mmlu.score(prompts), gap, mmlu.threshold),
        row("MT-Bench: the default rules as they are", router.score(questions), better, router.threshold),
        row("MT-Bench: length alone", np.array([len(one) for one in questions], float), better),
    ]
    if arguments.before:
        before = RulesRouter(rules=load_rules(arguments.before))
        text.append(row("pooled: the rules in --before", before.score(prompts), gap, before.threshold))
        text.append(row("MT-Bench: the rules in --before", before.score(questions), better, before.threshold))
    text += ["", "Within one set, beside a router that was trained on labels of the set:", "", *trained_value(router)]
    write_section("The default rules", "python benchmarks/fit_rules.py", text)


if __name__ == "__main__":
    main()
