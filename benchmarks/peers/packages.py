"""RouteLLM's and LLMRouter's routers beside ours, on the same records, splits and vectors, measured alike.

Run: python benchmarks/peers/packages.py [--dry-run]
The benchmark makes an environment for each peer in benchmarks/out/peers (some 4 GB, once). It serves our static vectors
on an OpenAI-compatible endpoint on this machine, and runs every peer's script in its environment with a time limit. It
writes benchmarks/out/peers.json, with a row or an error for each router, setting and seed (delete the file to start
anew), and a section of docs/results.md.

Reads $ROUTELEARN_DATA (default ../shared/data). RouteLLM trains on preferences: in setting A every question becomes a
battle, which a model wins that alone was right; otherwise it is a tie. Seconds per query are measured with one query at
a time on one thread. RouteLLM's include the call to the endpoint, ours include the tokenizer, and LLMRouter's do not
include an embedding.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for benchmarks/common.py
from common import OUT, STRONG, WEAK, interval, say, write_section
from endpoint import VectorStore, serve
from environments import VERSIONS, python_of, run_script
from peer_tasks import SETTINGS, Task, embed, make_task

from routelearn.data.records import Record
from routelearn.evaluation.pair import groups_of
from routelearn.routers.loading import load
from routelearn.training.encoders.static import StaticEncoder, static_encoder
from routelearn.training.fit.metrics import bootstrap_interval, routing_curve
from routelearn.training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization
from routelearn.training.similarity.train import SimilarityConfig, train_similarity

FOLDER = OUT / "peers"
OURS = "routelearn"
SEEDS = {"A": range(3), "B": range(1)}
BOOTSTRAP = 300
TIME_LIMIT = 900.0
#: Test queries that RouteLLM's similarity-weighted router scores: it refits a ranking for each.
SW_QUERIES = 1000
TIMED_QUERIES = 200

Row = dict[str, Any]
Train = Callable[[list[Record], Path, int], Path]

#: Our routers. Another one is one more line.
ROUTERS: dict[str, Train] = {
    "mf": lambda records, out, seed: train_matrix_factorization(
        records, out, MatrixFactorizationConfig(seed=seed, strong=STRONG, weak=WEAK, general="none")
    ),
    "similarity": lambda records, out, seed: train_similarity(
        records, out, SimilarityConfig(seed=seed, general="none", strong=STRONG, weak=WEAK)
    ),
}

#: Things that a peer ships and that cannot run, and why; they run once, for the exact error.
BROKEN = {
    "generate_embeddings.py as shipped": "it asks preprocess_battles for a column that this drops; and its base "
    "URL is fixed to api.openai.com. Here the battles are embedded by RouteLLM's client, with its own filter",
    "train_matrix_factorization.py as shipped": "file names, text_dim=1536 and the device cuda are fixed in it; "
    "mf calls its functions with its settings, our vectors' width and the CPU. The released checkpoints are for "
    "1536-dimensional vectors",
    "Longformer vectors as shipped": "route_single and route_batch embed by a hub checkpoint, whose name is fixed and "
    "which HF_HUB_OFFLINE=1 keeps from being fetched here; the other rows hand our vectors to the trained models",
}
LLMROUTER = ("knn", "svm", "mlp", "mf")


@dataclass(frozen=True)
class Run:
    """One contestant in one setting, with one seed."""

    package: str
    algorithm: str
    setting: str
    seed: int

    def __str__(self) -> str:
        """One line."""
        return f"{self.setting} seed {self.seed}: {self.package}, {self.algorithm}"


def plan() -> list[Run]:
    """Every run, in order."""
    runs = []
    for setting, seeds in SEEDS.items():
        for seed in seeds:
            runs += [Run(OURS, name, setting, seed) for name in ROUTERS]
            runs += [Run("routellm", name, setting, seed) for name in ("mf", "sw_ranking")]
            if setting == "A":  # LLMRouter learns from performances only, of which setting B has none
                runs += [Run("llmrouter-lib", f"{name}, ties to weak", setting, seed) for name in LLMROUTER]
    # Two models that are equally right make both "the best": the package takes the first of the file.
    runs += [Run("llmrouter-lib", f"{name}, ties to strong", "A", 0) for name in LLMROUTER]
    runs += [Run("routellm" if ".py" in name else "llmrouter-lib", name, "A", 0) for name in BROKEN]
    return runs


def our_result(run: Run, task: Task) -> Row:
    """Train and time one of our own routers."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        path = ROUTERS[run.algorithm](task.training, Path(folder) / "router", run.seed)
        seconds = time.perf_counter() - start
        router = load(path, threads=1)
    scores = router.win_rate(task.pairs.queries, STRONG, WEAK)
    start = time.perf_counter()
    for query in task.pairs.queries[:TIMED_QUERIES]:
        router.score([query])
    timed = (time.perf_counter() - start) / TIMED_QUERIES
    return {
        "scores": scores.tolist(),
        "rows": list(range(len(scores))),
        "train": len(task.battles),  # a battle is a row of either kind: a pair of answers
        "train_seconds": seconds,
        "seconds_per_query": timed,
        "version": version("routelearn"),
    }


def peer_result(run: Run, folder: Path, endpoint: str) -> Row:
    """Run a peer in its own environment; a row with `error` when that fails."""
    out = folder / "result.json"
    out.unlink(missing_ok=True)
    python = python_of(run.package, FOLDER)
    error = run_script(run.package, python, [run.algorithm, str(folder), str(out)], endpoint, TIME_LIMIT)
    return {"error": error} if error else json.loads(out.read_text())


def judged(run: Run, task: Task, result: Row) -> Row:
    """The row of a run: its figures, or its error and why."""
    row: Row = {
        "package": run.package,
        "version": result.get("version", VERSIONS.get(run.package)),
        "algorithm": run.algorithm,
        "setting": run.setting,
        "seed": run.seed,
    }
    if "error" in result:
        return {**row, "error": result["error"], "why": BROKEN.get(run.algorithm, "")}
    if not result["rows"]:  # one of `BROKEN` that does run after all
        return {**row, "note": "it ran"}
    rows = np.array(result["rows"])
    scores, strong, weak = np.array(result["scores"]), task.pairs.strong[rows], task.pairs.weak[rows]

    def apgr(drawn: npt.NDArray[np.int64]) -> float:
        return routing_curve(scores[drawn], strong[drawn], weak[drawn]).apgr

    groups = groups_of([task.pairs.keys[row] for row in rows])
    return {
        **row,
        "n_train": result["train"],
        "n_test": len(rows),
        "near_copies_removed": task.near_copies_removed,
        "apgr": apgr(np.arange(len(rows))),
        "interval": bootstrap_interval(apgr, groups, samples=BOOTSTRAP, seed=run.seed),
        "train_seconds": result["train_seconds"],
        "seconds_per_query": result["seconds_per_query"],
    }


def prepare(encoder: StaticEncoder, store: VectorStore) -> dict[tuple[str, int], tuple[Task, Path]]:
    """Every task with the folder that peers read it from; all its vectors are in the store."""
    tasks = {}
    for setting, seeds in SEEDS.items():
        for seed in seeds:
            task = make_task(setting, seed)
            count = len(task.pairs.queries)
            sample = np.random.default_rng(0).choice(count, min(SW_QUERIES, count), replace=False)
            folder = FOLDER / "tasks" / f"{setting}-{seed}"
            tasks[setting, seed] = task, task.write(folder, encoder, {"sw_ranking": sample.tolist()})
            store.add([*task.test, *(prompt for prompt, *_ in task.battles)])
            store.add([prompt.strip() for prompt, *_ in task.battles])  # RouteLLM strips what it trains on
            say(f"task {setting}-{seed}: {len(task.battles)} to train, {count} to test")
    return tasks


def lines(rows: list[Row]) -> list[str]:
    """A table for each setting, one line for each contestant over its seeds; then what cannot run, and why."""
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[row["setting"], row["package"], row["algorithm"]].append(row)
    text = [
        "All routers get the same records, splits and static vectors; the docstring of the script has the conditions.",
        "",
    ]
    broken = []
    for setting, title in SETTINGS.items():
        text += [
            f"### {title}",
            "",
            "| package | algorithm | trained on | tested on | seeds | APGR (sd) | 95 % interval, seed 0 | training, s "
            "| a query, ms |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for (own, package, algorithm), same in found.items():
            good = [row for row in same if "apgr" in row]
            if own != setting:
                continue
            if not good:
                reason = same[0].get("error") or same[0].get("note")
                broken.append(f"- {package} {same[0]['version']}, {algorithm}: `{reason}`. {same[0].get('why', '')}")
                continue
            apgr, seconds, query = (
                np.array([row[key] for row in good]) for key in ("apgr", "train_seconds", "seconds_per_query")
            )
            spread = f" ({apgr.std(ddof=1):.3f})" if len(good) > 1 else ""
            text.append(
                f"| {package} {good[0]['version']} | {algorithm} | {good[0]['n_train']:,} | {good[0]['n_test']:,} "
                f"| {len(good)} | {apgr.mean():.3f}{spread} | {interval(good[0]['interval'])} | {seconds.mean():.1f} "
                f"| {query.mean() * 1000:.2f} |"
            )
        text.append("")
    return [*text, "What a peer ships and cannot run here:", "", *broken]


def main() -> None:
    """Do what `plan` says, or only list it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="list the runs and stop")
    runs = plan()
    if parser.parse_args().dry_run:
        print(*(f"{name}: {text}" for name, text in SETTINGS.items()), *runs, sep="\n")
        return
    start = time.perf_counter()
    for package in VERSIONS:
        python_of(package, FOLDER)
    encoder = static_encoder()
    store = VectorStore(lambda texts: embed(texts, encoder))
    tasks = prepare(encoder, store)
    file = OUT / "peers.json"
    rows: list[Row] = json.loads(file.read_text()) if file.is_file() else []  # a stopped run goes on
    done = {(row["package"], row["algorithm"], row["setting"], row["seed"]) for row in rows}
    with serve(store) as endpoint:
        for run in runs:
            if (run.package, run.algorithm, run.setting, run.seed) in done:
                continue
            task, folder = tasks[run.setting, run.seed]
            result = our_result(run, task) if run.package == OURS else peer_result(run, folder, endpoint)
            rows.append(judged(run, task, result))
            file.write_text(json.dumps(rows, indent=1) + "\n")
            say(f"{time.perf_counter() - start:.0f} s, {run}: {rows[-1].get('apgr', rows[-1].get('error'))}")
    write_section("Peers", "python benchmarks/peers/packages.py", lines(rows))


if __name__ == "__main__":
    main()
