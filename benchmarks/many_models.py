"""Routing over many models: MMLU-Pro (14 models), GSM8K (42) and MATH level 5 (41), quality against cost.

Run: python benchmarks/many_models.py [--only mf similarity] [--sets mmlu_pro gsm8k math] [--encoder FOLDER]
The routers are trained on the rows marked train, validated on those marked val, and tested on those marked test. Since
the split is given, one seed is enough (mf gave the same figures with two seeds). The routers are compared with the best
single model, with kNN and k-means over the same vectors, and with the oracle. The prices in benchmarks/prices.json are
list prices of 2024, rounded, in USD per million tokens; for open models they are those of hosters of that time. Reads
$ROUTELEARN_DATA (default ../shared/data). Bundles and reports stay in benchmarks/out, so that a stopped run can go on.
Writes a section of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import DATA, ROOT, bundle, cached, interval, say, without_leaks, write_section
from mmlu import encoder_option, encoder_text, larger

from routelearn.data.readers import read_records
from routelearn.data.records import record_key
from routelearn.evaluation.evaluate import evaluate
from routelearn.routers.decision import Model
from routelearn.routers.loading import load
from routelearn.training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization
from routelearn.training.similarity.train import SimilarityConfig, train_similarity

BOOTSTRAP = 300


@dataclass(frozen=True)
class Set:
    """One wide file, the pair of its binary decision, and the assumed length of an answer in tokens."""

    title: str
    file: str
    strong: str
    weak: str
    output_tokens: int


SETS = {
    "mmlu_pro": Set(
        "MMLU-Pro", "mmlu_pro/performance_wide.parquet", "gemini-1.5-pro-002", "Mixtral-8x7B-Instruct-v0.1", 300
    ),
    "gsm8k": Set("GSM8K", "zeroeval/gsm8k_wide.parquet", "gpt-4o-2024-08-06", "Mixtral-8x7B-Instruct-v0.1", 250),
    "math": Set(
        "MATH level 5", "zeroeval/math_level5_wide.parquet", "gpt-4o-2024-08-06", "Meta-Llama-3.1-8B-Instruct", 600
    ),
}

#: Records, the folder, the seed, and the names of strong and weak.
ROUTERS: dict[str, Callable[..., Path]] = {
    "mf": lambda records, out, seed, **options: train_matrix_factorization(
        records, out, MatrixFactorizationConfig(seed=seed, general="none", **options)
    ),
    "similarity": lambda records, out, seed, **options: train_similarity(
        records, out, SimilarityConfig(seed=seed, general="none", **options)
    ),
}


def prices() -> list[Model]:
    """The models with their prices."""
    known = json.loads((ROOT / "benchmarks" / "prices.json").read_text())
    return [Model(name, *pair) for name, pair in known.items()]


def measure(name: str, seed: int, routers: list[str]) -> dict[str, Any]:
    """Train on one set with one seed, and evaluate the pair and the pool in one run."""
    one = SETS[name]
    records = read_records(DATA / one.file).records
    training = [record for record in records if record.split != "test"]
    test, dropped = without_leaks(training, [record for record in records if record.split == "test"])
    pair: dict[str, Any] = {"strong": one.strong, "weak": one.weak}
    loaded = {
        router: load(
            bundle(f"many-{name}-{seed}-{router}", lambda out, r=router: ROUTERS[r](training, out, seed, **pair))
        )
        for router in routers
    }
    say(f"{name} {seed}: trained")
    report = evaluate(
        loaded,
        test,
        training=training,
        prices=prices(),
        output_tokens=one.output_tokens,
        bootstrap=BOOTSTRAP,
        seed=seed,
        **pair,
    ).as_dict()
    pool = report["pool"]
    for result in pool["results"]:  # the curves are long, and stay in the router's own report
        del result["cost"], result["quality"]
    return {
        "training": len({record_key(record) for record in training}),
        "test": pool["queries"],
        "near_copies_removed": dropped,
        "models": len(pool["singles"]),
        "pool": pool,
        "pair": [
            {"router": r["router"], "apgr": r["values"]["apgr"], "interval": r["intervals"]["apgr"]}
            for r in report["results"]
            if "apgr" in r["values"]
        ],
        "differences": [d for d in report["differences"] if d["other"] == "kNN"],
    }


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.4f}" + (f" (sd {np.std(values, ddof=1):.4f})" if len(values) > 1 else "")


def lines(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """The tables of one set."""
    one, first = SETS[name], rows[0]
    best = first["pool"]["best_single"]
    cost, quality = first["pool"]["singles"][best]
    text = [
        f"### {one.title}: {first['models']} models, {first['training']:,} questions to train, "
        f"{first['test']:,} to test",
        "",
        f"Best single model: {best}, quality {quality:.3f} for ${cost:.3f} a thousand queries. An answer is taken to "
        f"be {one.output_tokens} tokens long. AIQ: mean quality over the range of costs (RouterBench). "
        "Intervals are 95 % bootstraps over questions. ranking: the models as they did on the training questions, "
        "whatever the query; single models: the best in hindsight.",
        "",
        "| router | AIQ | less kNN's, paired | 95 % interval | best quality "
        "| USD a thousand queries for the best single's quality |",
        "|---|---|---|---|---|---|",
    ]
    for number, result in enumerate(first["pool"]["results"]):
        same = [row["pool"]["results"][number] for row in rows]
        versus, between = "", ""
        if result["difference"] is not None:
            versus = f"{np.mean([r['difference'] for r in same]):+.4f}"
            low = min(r["difference_interval"][0] for r in same)
            high = max(r["difference_interval"][1] for r in same)
            between = f"{low:+.4f} to {high:+.4f}"
        reached = [r["cost_at_best_single"] for r in same]
        dollars = "not reached" if any(value is None for value in reached) else f"{np.mean(reached):.3f}"
        text.append(
            f"| {result['router']} | {_mean([r['aiq'] for r in same])} | {versus} | {between} "
            f"| {np.mean([r['best_quality'] for r in same]):.4f} | {dollars} |"
        )
    text += [
        "",
        f"The pair {one.strong} over {one.weak}:",
        "",
        "| router | APGR | 95 % interval, seed 0 | less kNN's, paired | 95 % interval, worst ends |",
        "|---|---|---|---|---|",
    ]
    for number, result in enumerate(first["pair"]):
        apgr = [row["pair"][number]["apgr"] for row in rows]
        found = [d for row in rows for d in row["differences"] if d["router"] == result["router"]]
        versus, between = "", ""
        if found:
            versus = f"{np.mean([d['apgr'] for d in found]):+.4f}"
            between = f"{min(d['interval'][0] for d in found):+.4f} to {max(d['interval'][1] for d in found):+.4f}"
        text.append(f"| {result['router']} | {_mean(apgr)} | {interval(result['interval'])} | {versus} | {between} |")
    return [*text, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(ROUTERS), choices=list(ROUTERS))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    encoder_option(parser)
    arguments = parser.parse_args()
    more = larger(arguments.encoder)
    names = [*arguments.only, *more]
    tag = "" if names == list(ROUTERS) else "-" + "-".join(names)
    ROUTERS.update(more)
    text = ["Every model of a file is one of the pool. Prices are those of benchmarks/prices.json.", ""]
    for name in arguments.sets:
        rows = [cached(f"many/{name}-{seed}{tag}", lambda n=name, s=seed: measure(n, s, names)) for seed in range(1)]
        text += lines(name, rows)
    write_section("Many models", f"python benchmarks/many_models.py{encoder_text(arguments.encoder)}", text)


if __name__ == "__main__":
    main()
