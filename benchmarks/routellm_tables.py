"""RouteLLM's three tables (arXiv 2406.18665, tables 1 to 3) with our routers: MT-Bench, MMLU and GSM8K.

Run: python benchmarks/routellm_tables.py [--only mf similarity similarity-bradley-terry bert] [--encoder FOLDER]
Out of domain, the routers are trained on human battles, with and without AlpacaEval's judged ones, and see no label of
the three test sets. In domain, they are trained on 10 % of GSM8K's labels; here --encoder adds a router, as in mmlu.py.
Last, the log loss is measured on held-out battles. Reads $ROUTELEARN_DATA (default ../shared/data). BERT is trained on
both sources together alone, which takes some 20 minutes on two cores. Bundles and reports stay in benchmarks/out, so
that a stopped run can go on. Writes a section of docs/results.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from common import ALIASES, DATA, STRONG, WEAK, bundle, cached, interval, routellm, say, without_leaks, write_section
from mmlu import encoder_option, encoder_text, larger

from routelearn.data.parser import ReadOptions
from routelearn.data.readers import read_many, read_records
from routelearn.data.records import PreferenceRecord, Record, record_key
from routelearn.data.splits import split_by_prompt
from routelearn.evaluation.evaluate import evaluate, preference_losses
from routelearn.routers.base import Router
from routelearn.routers.loading import load
from routelearn.training.bert.config import BertConfig
from routelearn.training.bert.train import train_bert
from routelearn.training.examples import examples_of, validation_folds
from routelearn.training.fit.metrics import bootstrap_interval, log_loss
from routelearn.training.fit.ranking import fit_ranking
from routelearn.training.log import TrainingLog
from routelearn.training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization
from routelearn.training.similarity.train import SimilarityConfig, train_similarity

ALPACA_WEIGHT = 0.1
SEEDS = 5
BOOTSTRAP = 1000
PAIR = {"strong": STRONG, "weak": WEAK}
SETS = ("mt_bench", "mmlu", "gsm8k")
#: Too slow to train on every source; it gets the larger one.
SLOW = {"bert"}

Train = Callable[[list[Record], Path, int], Path]
ROUTERS: dict[str, Train] = {
    "mf": lambda records, out, seed: train_matrix_factorization(
        records, out, MatrixFactorizationConfig(seed=seed, general="none", **PAIR)
    ),
    "similarity": lambda records, out, seed: train_similarity(
        records, out, SimilarityConfig(seed=seed, general="none", **PAIR)
    ),
    "similarity-bradley-terry": lambda records, out, seed: train_similarity(
        records, out, SimilarityConfig(seed=seed, method="bradley-terry", general="none", **PAIR)
    ),
    "bert": lambda records, out, seed: train_bert(records, out, BertConfig(seed=seed, general="none", **PAIR)),
}

#: What the paper reports for routers that were trained on arena battles alone: (set, router, training data, APGR).
PUBLISHED = (
    ("mt_bench", "MF", "arena", 0.580),
    ("mt_bench", "BERT", "arena", 0.391),
    ("mt_bench", "SW ranking", "arena", 0.610),
)


@cache
def arena() -> tuple[PreferenceRecord, ...]:
    """Human battles; the share of ties among rows that say only who did not win is estimated without the test rows."""
    source = DATA / "arena_human" / "arena_pairs.parquet"
    tie_share = read_records(source, ReadOptions(split="train")).tie_share
    records = read_many([source], ReadOptions(tie_share=tie_share))[0].records
    return tuple(record for record in records if isinstance(record, PreferenceRecord))


@cache
def alpaca() -> tuple[Record, ...]:
    """AlpacaEval's judged battles, as training rows: only the arena's own rows validate."""
    source = f"{DATA / 'alpaca_eval' / 'preferences.parquet'}@{ALPACA_WEIGHT}"
    records = read_many([source], ReadOptions(aliases=ALIASES))[0].records
    return tuple(replace(record, split="train") for record in records if record.split in {"train", "val"})


def battles(name: str) -> list[Record]:
    """The training data of one row of the tables."""
    everything = [record for record in arena() if record.split != "test"]
    return everything if name == "arena" else [*everything, *alpaca()]


def test_set(name: str) -> list[Record]:
    """One of RouteLLM's sets, decontaminated as it does; MT-Bench keeps both turns."""
    return routellm(name)


def out_of_domain(data: str, test: str, names: list[str]) -> dict[str, Any]:
    """Routers trained on battles, on one set of the paper."""
    training = battles(data)
    routers: dict[str, Router] = {}
    for name in names:
        routers[name] = load(bundle(f"{data}-{name}", lambda out, name=name: ROUTERS[name](training, out, 0)))
        say(f"{data} {test}: {name} is there")
    records, dropped = without_leaks(training, test_set(test))
    report = evaluate(
        routers, records, training=training, first_turn=test == "mt_bench", bootstrap=BOOTSTRAP, **PAIR
    ).as_dict()
    return {
        "queries": report["queries"],
        "prompts": report["prompts"],
        "near_copies_removed": dropped,
        "results": [{key: one[key] for key in ("router", "values", "intervals")} for one in report["results"]],
    }


def gsm8k_in_domain(seed: int, names: list[str]) -> dict[str, Any]:
    """GSM8K: 10 % of the questions to train, the rest to test."""
    training, test = split_by_prompt(test_set("gsm8k"), (0.1, 0.9), seed)
    test, dropped = without_leaks(training, test)
    routers: dict[str, Router] = {
        name: load(bundle(f"gsm8k-{seed}-{name}", lambda out, name=name: ROUTERS[name](training, out, seed)))
        for name in names
    }
    report = evaluate(routers, test, training=training, bootstrap=300, seed=seed, **PAIR).as_dict()
    return {
        "training": len({record_key(record) for record in training}),
        "queries": report["queries"],
        "near_copies_removed": dropped,
        "results": [{key: one[key] for key in ("router", "values", "intervals")} for one in report["results"]],
    }


def held_out_battles(data: str, names: list[str]) -> dict[str, Any]:
    """Log loss on the arena file's test rows, beside the best query-independent Bradley-Terry ranking."""
    training = battles(data)
    test, dropped = without_leaks(training, [record for record in arena() if record.split == "test"])
    rows = [record for record in test if isinstance(record, PreferenceRecord)]
    examples = examples_of(battles("arena"))
    folder = Path(bundle(f"{data}-{names[0]}", lambda out: ROUTERS[names[0]](training, out, 0)))
    with TrainingLog(folder.with_name("ranking.training"), show_progress=False) as log:
        bias = fit_ranking(examples, validation_folds(examples, 5, 0), log).overall.bias
    place = {name: number for number, name in enumerate(examples.models)}
    difference = np.array([float(bias[place[row.model_a]] - bias[place[row.model_b]]) for row in rows])
    baseline = log_loss(1 / (1 + np.exp(-difference)), np.array([row.preference for row in rows]))
    keys: dict[str, int] = {}
    groups = np.array([keys.setdefault(record_key(row), len(keys)) for row in rows])

    def mean(values: np.ndarray) -> dict[str, Any]:
        found = bootstrap_interval(lambda drawn: float(values[drawn].mean()), groups, samples=2000)
        return {"mean": float(values.mean()), "interval": found}

    losses = {name: preference_losses(load(bundle(f"{data}-{name}", lambda out: out)), rows) for name in names}
    return {
        "battles": len(rows),
        "prompts": len(keys),
        "near_copies_removed": dropped,
        "ranking": mean(baseline),
        "routers": {name: {**mean(loss), "difference": mean(loss - baseline)} for name, loss in losses.items()},
    }


def table(test: str, found: dict[str, dict[str, Any]]) -> list[str]:
    """One of the three tables."""
    first = next(iter(found.values()))
    heading = {"mt_bench": "MT-Bench", "mmlu": "MMLU", "gsm8k": "GSM8K"}[test]
    lines = [
        f"### {heading}: {first['queries']:,} scored answers to {first['prompts']:,} questions",
        "",
        "| router | trained on | APGR | 95 % interval | CPT(50 %) | CPT(80 %) | strong calls for 99 % of GPT-4 |",
        "|---|---|---|---|---|---|---|",
    ]
    for data, report in found.items():
        for one in report["results"]:
            values = one["values"]
            if "apgr" in values and (one["router"] not in {"random", "rules", "oracle"} or data == "arena"):
                trained = data if one["router"] not in {"random", "rules", "oracle"} else ""
                low_high = interval(one["intervals"]["share99"])
                lines.append(
                    f"| {one['router']} | {trained} | {values['apgr']:.3f} | {interval(one['intervals']['apgr'])} "
                    f"| {values['cpt50']:.3f} | {values['cpt80']:.3f} | {values['share99']:.2f} ({low_high}) |"
                )
    for published, router, data, apgr in PUBLISHED:
        if published == test:
            lines.append(f"| *RouteLLM, published: {router}* | *{data}* | *{apgr:.3f}* | | | |  |")
    return [*lines, ""]


def in_domain_lines(names: list[str], tag: str) -> list[str]:
    """The table of GSM8K with labels of its own, over all seeds."""
    rows = [cached(f"tables/gsm8k-{seed}{tag}", lambda s=seed: gsm8k_in_domain(s, names)) for seed in range(SEEDS)]
    lines = [
        f"### GSM8K with {rows[0]['training']} questions of its own to train, {rows[0]['queries']:,} to test, 5 seeds",
        "",
        "| router | APGR, mean | sd | of each (95 % interval) | CPT(50 %) |",
        "|---|---|---|---|---|",
    ]
    for number, one in enumerate(rows[0]["results"]):
        if "apgr" in one["values"]:
            same = [next(r for r in row["results"] if r["router"] == one["router"]) for row in rows]
            apgr = [r["values"]["apgr"] for r in same]
            each = "; ".join(f"{r['values']['apgr']:.3f} ({interval(r['intervals']['apgr'])})" for r in same)
            lines.append(
                f"| {one['router']} | {np.mean(apgr):.3f} | {np.std(apgr, ddof=1):.3f} "
                f"| {each if number < len(names) else ''} | {np.mean([r['values']['cpt50'] for r in same]):.3f} |"
            )
    return [*lines, ""]


def battle_lines(source: str, held: dict[str, Any]) -> list[str]:
    """The table of the log loss on held-out battles, for routers trained on one source."""
    lines = [
        f"### Held-out battles, trained on {source}: {held['battles']} battles on {held['prompts']} prompts",
        "",
        "| | log loss, nats | 95 % interval | less the ranking's, paired | 95 % interval |",
        "|---|---|---|---|---|",
        f"| best query-independent ranking | {held['ranking']['mean']:.4f} | {_four(held['ranking'])} | | |",
    ]
    for name, one in held["routers"].items():
        other = one["difference"]
        lines.append(f"| {name} | {one['mean']:.4f} | {_four(one)} | {other['mean']:+.4f} | {_four(other)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(ROUTERS), choices=list(ROUTERS))
    encoder_option(parser)
    arguments = parser.parse_args()
    names = arguments.only
    tag = "" if names == list(ROUTERS) else "-" + "-".join(names)
    more = larger(arguments.encoder)
    ROUTERS.update({name: partial(train, **PAIR) for name, train in more.items()})
    sources = ("arena", f"arena + AlpacaEval at {ALPACA_WEIGHT}")
    short = dict(zip(sources, ("arena", "arena-alpaca"), strict=True))
    lines = [
        f"{STRONG} over {WEAK}; metrics and decontamination are RouteLLM's; every router is an exported bundle. "
        "Intervals are 95 % bootstrap over questions. RouteLLM's published rows are shown only where "
        "its routers were trained on arena battles alone, as ours were. Its rows with judge data (some 120,000 prompts "
        "answered by both models) have no counterpart here.",
        "",
    ]
    trained = {source: [name for name in names if source != "arena" or name not in SLOW] for source in sources}
    for test in SETS:
        found = {
            source: cached(
                f"tables/{short[source]}-{test}{tag}",
                lambda s=source, t=test: out_of_domain(short[s], t, trained[s]),
            )
            for source in sources
        }
        lines += table(test, found)
    in_domain = [*(name for name in names if name != "similarity-bradley-terry"), *more]
    lines += in_domain_lines(in_domain, "-".join((tag, *more)))
    for source in sources:
        held = cached(f"tables/battles-{short[source]}{tag}", lambda s=source: held_out_battles(short[s], trained[s]))
        lines += battle_lines(source, held)
    command = f"python benchmarks/routellm_tables.py{encoder_text(arguments.encoder)}"
    write_section("RouteLLM's tables, out of domain", command, lines)


def _four(value: dict[str, Any]) -> str:
    return f"{value['interval'][0]:.4f} to {value['interval'][1]:.4f}"


if __name__ == "__main__":
    main()
