"""Similarity-weighted ranking over 55,000 battles: RouteLLM's refit for every query against our graph, in one run.

Run: python benchmarks/peers/ranking.py
The battles are arena battles with a known outcome, drawn with replacement. Each battle gets a distinct text, one arena
prompt above another, so that neither side gains from battles that share a prompt. Both sides see the same vectors;
RouteLLM gets them from an OpenAI-compatible endpoint on this machine. Times are measured on one thread. Reads
$ROUTELEARN_DATA (default ../shared/data). Writes benchmarks/out/ranking.json and a section of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for benchmarks/common.py
from common import OUT, STRONG, WEAK, bundle, routellm, say, write_section
from endpoint import VectorStore, serve
from environments import VERSIONS, python_of, run_script
from peer_tasks import embed, first_turn, known_battles

from routelearn.data.records import PreferenceRecord
from routelearn.routers.base import sigmoid
from routelearn.routers.loading import load
from routelearn.training.encoders.static import static_encoder
from routelearn.training.examples import Outcomes
from routelearn.training.similarity.train import SimilarityConfig, train_similarity, weighted_counts
from routelearn.training.similarity.weighted_ranking import battle_counts, tier_ratings

BATTLES = 55_000
#: Queries that RouteLLM scores: it needs about a second for each.
REFITS = 40
QUERIES = 2_000
SINGLES = 200
FOLDER = OUT / "peers" / "ranking"


def battles() -> list[PreferenceRecord]:
    """Arena battles, each on a text of its own."""
    known = known_battles()
    random = np.random.default_rng(0)
    prompts = sorted({first_turn(record.query).strip() for record in known})
    prompts = [prompt[:400] for prompt in prompts if len(prompt) >= 16]
    found: dict[str, PreferenceRecord] = {}
    while len(found) < BATTLES:
        record = known[random.integers(len(known))]
        a, b = random.integers(len(prompts), size=2)
        text = f"{prompts[a]}\n{prompts[b]}"
        found.setdefault(text, replace(record, query=text, split=None))
    return list(found.values())


def reference(records: list[PreferenceRecord], test: list[str]) -> dict[str, object]:
    """Scores and seconds of RouteLLM's own router, in its own environment."""
    encoder = static_encoder()
    store = VectorStore(lambda texts: embed(texts, encoder))
    outcome = {1.0: "model_a", 0.0: "model_b", 0.5: "tie"}
    content = {
        "strong": STRONG,
        "weak": WEAK,
        "seed": 0,
        "battles": [(str(r.query), r.model_a, r.model_b, outcome[r.preference]) for r in records],
        "test": test,
        "limits": {"sw_ranking": list(range(REFITS))},
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "task.json").write_text(json.dumps(content), encoding="utf-8")
    store.add([str(record.query) for record in records] + test)
    out = FOLDER / "result.json"
    python = python_of("routellm", OUT / "peers")
    with serve(store) as endpoint:
        error = run_script("routellm", python, ["sw_ranking", str(FOLDER), str(out)], endpoint, 1800)
    if error:
        raise SystemExit(error)
    found: dict[str, object] = json.loads(out.read_text())
    return found


def newton(records: list[PreferenceRecord]) -> np.ndarray:
    """Strong win rates by count matrices and Newton's method, from the very vectors and battles of the peer."""
    with np.load(FOLDER / "sw_reference.npz", allow_pickle=False) as arrays:
        queries, index = (unit_vectors(arrays[name]) for name in ("query_vectors", "battle_vectors"))
        tier = np.stack([arrays["model_a"].astype(np.int64), arrays["model_b"].astype(np.int64)], axis=1)
        won = np.select([arrays["winner"] == "model_a", arrays["winner"] == "model_b"], [1.0, 0.0], 0.5)
        strong, weak = int(arrays["strong_tier"]), int(arrays["weak_tier"])
    if len(index) != len(records):
        raise SystemExit(f"RouteLLM kept {len(index)} of {len(records)} battles")
    rows = np.arange(len(tier))
    outcomes = Outcomes(rows, tier, won.astype(np.float32), np.ones(len(rows), np.float32), np.zeros_like(rows))
    counts = battle_counts(outcomes, len(rows), np.arange(tier.max() + 1))
    ratings = tier_ratings(weighted_counts(queries, index, counts)).astype(np.float64)
    return sigmoid(ratings[:, strong] - ratings[:, weak])


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, d) scaled to length 1, float32."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    records = battles()
    test = [first_turn(record.query) for record in routellm("mmlu")]
    test = list(dict.fromkeys(test))[:QUERIES]
    config = SimilarityConfig(method="bradley-terry", general="none", strong=STRONG, weak=WEAK)
    path = bundle("ranking-55k", lambda out: train_similarity(records, out, config, progress=True))
    router = load(path, threads=1)
    found = reference(records, test)
    theirs = np.array(found["scores"])
    exact = newton(records)
    slope = router.manifest.calibration["slope"]
    scored = router.score(test[:REFITS]).astype(np.float64)
    logit = np.log(scored) - np.log1p(-scored)
    graph = 1 / (1 + np.exp(-logit / slope))  # without the calibration, which RouteLLM has not
    start = time.perf_counter()
    router.score(test)
    batch = (time.perf_counter() - start) / len(test)
    singles = []
    for text in test[:SINGLES]:
        start = time.perf_counter()
        router.score([text])
        singles.append(time.perf_counter() - start)
    single, refit = float(np.median(singles)), float(found["seconds_per_query"])  # type: ignore[arg-type]
    result = {
        "battles": len(records),
        "refit_seconds": refit,
        "batch_seconds": batch,
        "single_seconds": single,
        "times_batch": refit / batch,
        "times_single": refit / single,
        "difference_newton": float(np.abs(exact - theirs).max()),
        "difference_graph": float(np.abs(graph - theirs).max()),
    }
    (OUT / "ranking.json").write_text(json.dumps(result, indent=1) + "\n")
    say(json.dumps(result))
    lines = [
        f"{len(records):,} battles on as many distinct texts, {REFITS} MMLU questions scored by both, one thread; "
        f"RouteLLM {VERSIONS['routellm']}'s own code, its embeddings served on the same machine.",
        "",
        "| | seconds a query | times RouteLLM's speed | largest difference of a score from RouteLLM's |",
        "|---|---|---|---|",
        f"| RouteLLM, refit for every query | {refit:.3f} | 1 | |",
        f"| our bundle (int8 index, calibration undone), batches of {QUERIES:,} | {batch:.5f} | {refit / batch:,.0f} "
        f"| {result['difference_graph']:.1e} |",
        f"| our bundle, one query at a time (median) | {single:.5f} | {refit / single:,.0f} | |",
        "| count matrix and Newton's method, on RouteLLM's own vectors and tiers | | "
        f"| {result['difference_newton']:.1e} |",
    ]
    write_section("Similarity-weighted ranking against RouteLLM's refit", "python benchmarks/peers/ranking.py", lines)


if __name__ == "__main__":
    main()
