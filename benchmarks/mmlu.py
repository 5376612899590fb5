"""MMLU in domain: every router trained on a part of RouteLLM's questions and tested on the rest.

Run: python benchmarks/mmlu.py [--only mf similarity bert bert-int8] [--settings ten folds] [--encoder FOLDER]
Reads $ROUTELEARN_DATA (default ../shared/data). The fine-tuned BERT router takes some two hours on two cores; the
frozen recipe with another encoder takes some forty minutes more. Vectors, bundles and reports stay in
benchmarks/out, so that a stopped run goes on. Writes a section of docs/results.md for each setting.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import OUT, STRONG, WEAK, bundle, cached, interval, routellm, say, without_leaks, write_section

from routelearn.data.records import Record
from routelearn.data.splits import split_by_prompt
from routelearn.evaluation.evaluate import evaluate
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.training.bert.config import BertConfig
from routelearn.training.bert.train import train_bert
from routelearn.training.frozen.config import FrozenConfig
from routelearn.training.frozen.train import train_frozen
from routelearn.training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization
from routelearn.training.similarity.train import SimilarityConfig, train_similarity

SEEDS = 5
#: A few scores lie so close together that rounding turns more than one decision in a hundred: int8 with many questions.
NAMES = {"ten": ("mf", "similarity", "bert"), "folds": ("mf", "similarity", "bert-int8")}
TITLES = {"ten": "a tenth to train", "folds": "five folds"}
BOOTSTRAP = 300
#: RouteLLM's best published APGR on MMLU (arXiv 2406.18665, table 2) is comparable with one setting only.
COMPARABLE = {
    "ten": "RouteLLM's best published figure, 0.603, is in domain as well: that router was trained on battles and MMLU "
    "labels. "
}

Train = Callable[[list[Record], Path, int], Path]
#: The general router that comes with routelearn has read questions of MMLU.
ALONE = {"general": "none"}
ROUTERS: dict[str, Train] = {
    "mf": lambda records, out, seed: train_matrix_factorization(
        records, out, MatrixFactorizationConfig(seed=seed, **ALONE)
    ),
    "similarity": lambda records, out, seed: train_similarity(records, out, SimilarityConfig(seed=seed, **ALONE)),
    "bert": lambda records, out, seed: train_bert(records, out, BertConfig(seed=seed, resume=True, **ALONE)),
    "bert-int8": lambda records, out, seed: train_bert(
        records, out, BertConfig(seed=seed, quantise="int8", resume=True, **ALONE)
    ),
}
#: Layers of the other encoder that the frozen recipe keeps.
LAYERS = 8


def parts(setting: str, seed: int) -> tuple[list[Record], list[Record], int]:
    """Training and test records of one seed or fold, and how many near copies the test lost."""
    records = routellm("mmlu")
    if setting == "ten":
        training, test = split_by_prompt(records, (0.1, 0.9), seed)
    else:
        folds = split_by_prompt(records, (0.2,) * SEEDS, 0)
        test = folds[seed]
        training = [record for number, fold in enumerate(folds) if number != seed for record in fold]
    test, dropped = without_leaks(training, test)
    return training, test, dropped


def measure(setting: str, seed: int, names: list[str]) -> dict[str, Any]:
    """Train what is not trained yet, and evaluate all of it in one run."""
    training, test, dropped = parts(setting, seed)
    seconds = {}
    trained: dict[str, LearnedRouter] = {}
    for name in names:
        start = time.perf_counter()
        path = bundle(f"mmlu-{setting}-{seed}-{name}", lambda out, name=name: ROUTERS[name](training, out, seed))
        seconds[name] = time.perf_counter() - start
        trained[name] = load(path)
        say(f"{setting} {seed} {name}: {seconds[name]:.0f} s")
    report = evaluate(
        trained, test, training=training, strong=STRONG, weak=WEAK, bootstrap=BOOTSTRAP, seed=seed
    ).as_dict()
    return {
        "seed": seed,
        "training": len({str(record.query) for record in training}),
        "test": report["queries"],
        "near_copies_removed": dropped,
        "seconds": seconds,
        "int8": {
            name: {key: router.manifest.training.get(key) for key in ("flips", "flips_at_worst", "apgr_drop")}
            for name, router in trained.items()
            if "flips" in router.manifest.training
        },
        "results": [{key: result[key] for key in ("router", "values", "intervals")} for result in report["results"]],
        "differences": report["differences"],
    }


def lines(setting: str, rows: list[dict[str, Any]]) -> list[str]:
    """The tables of one setting."""
    found = [{result["router"]: result for result in row["results"]} for row in rows]
    names = [name for name, result in found[0].items() if "apgr" in result["values"]]
    text = [
        f"### {rows[0]['training']:,} questions to train, {rows[0]['test']:,} to test, "
        + ("5 seeds" if setting == "ten" else "5 folds"),
        "",
        "| router | APGR, mean | sd | of each (95 % interval, bootstrap over questions) | CPT(50 %) | CPT(80 %) "
        "| AUROC | ECE |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        values = [one[name]["values"] for one in found]
        apgr = [value["apgr"] for value in values]
        each = "; ".join(
            f"{one[name]['values']['apgr']:.3f} ({interval(one[name]['intervals']['apgr'])})" for one in found
        )
        means = [
            np.mean([value[key] for value in values]) if key in values[0] else None
            for key in ("cpt50", "cpt80", "auroc", "ece")
        ]
        shown = " | ".join("" if mean is None else f"{mean:.3f}" for mean in means)
        deviation = np.std(apgr, ddof=1)
        intervals = each if name in ROUTERS else ""
        text.append(f"| {name} | {np.mean(apgr):.3f} | {deviation:.3f} | {intervals} | {shown} |")
    text += ["", "Paired differences of APGR, mean over the " + ("seeds" if setting == "ten" else "folds") + ":", ""]
    for one in rows[0]["differences"]:
        same = [
            d for row in rows for d in row["differences"] if (d["router"], d["other"]) == (one["router"], one["other"])
        ]
        each = ", ".join(f"{d['apgr']:+.3f} ({d['interval'][0]:+.3f} to {d['interval'][1]:+.3f})" for d in same)
        text.append(
            f"- {one['router']} minus {one['other']}: {np.mean([d['apgr'] for d in same]):+.4f} (one by one: {each})"
        )
    quantised = [row["int8"]["bert-int8"] for row in rows if row["int8"].get("bert-int8")]
    if quantised:
        text += [
            "",
            f"bert-int8: {np.mean([q['flips'] for q in quantised]):.2%} of the decisions differ from those "
            f"of float32 (at most {max(q['flips'] for q in quantised):.2%} of one router).",
        ]
    return [*text, ""]


def encoder_option(parser: argparse.ArgumentParser) -> None:
    """The option that adds a router of `larger`."""
    parser.add_argument(
        "--encoder", help="add a frozen router of this encoder: sentence-transformers/all-mpnet-base-v2, or its folder"
    )


def larger(encoder: str | None) -> dict[str, Callable[..., Path]]:
    """The frozen recipe with another encoder, a folder or a hub id, by its name; empty where there is no encoder.

    It takes more settings than a `Train`: the names of strong and weak.
    """
    if encoder is None:
        return {}
    vectors = str(OUT / f"vectors-{Path(encoder).name}.npz")  # the folds share their questions

    def train(records: list[Record], out: Path, seed: int, **options: Any) -> Path:
        config = FrozenConfig(seed=seed, encoder=encoder, vectors=vectors, layers=LAYERS, **ALONE, **options)
        return train_frozen(records, out, config)

    return {f"frozen-{Path(encoder).name}": train}


def encoder_text(encoder: str | None) -> str:
    """The option as results name it: without the folder, which is this machine's."""
    return f" --encoder {Path(encoder).name}" if encoder else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(ROUTERS), help="default: mf, similarity, bert")
    parser.add_argument("--settings", nargs="+", default=["ten", "folds"], choices=["ten", "folds"])
    encoder_option(parser)
    arguments = parser.parse_args()
    more = larger(arguments.encoder)
    ROUTERS.update(more)
    for setting in arguments.settings:
        names = [*(arguments.only or NAMES[setting]), *more]
        rows = []
        for seed in range(SEEDS):
            file = f"mmlu/{setting}-{seed}-" + "-".join(names)
            rows.append(cached(file, lambda s=setting, n=seed, o=names: measure(s, n, o)))
        command = f"python benchmarks/mmlu.py --settings {setting}{encoder_text(arguments.encoder)}"
        text = (
            f"{STRONG} over {WEAK}; APGR as RouteLLM defines it. {COMPARABLE.get(setting, '')}Near copies of training "
            "questions are left out of the test questions. kNN and k-means use the same vectors as mf and similarity."
        )
        write_section(f"MMLU, trained in domain: {TITLES[setting]}", command, [text, "", *lines(setting, rows)])


if __name__ == "__main__":
    main()
