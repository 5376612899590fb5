"""Speed of a verifier, float32 and int8, as ratios to torch float32 measured in one run.

Run: python benchmarks/speed_verifier.py
Both bundles are MiniLM, fine-tuned for a moment on the embedded sample, because speed does not depend on the weights.
The pairs are MMLU-Pro questions with Mixtral's answers, which fill the budget of 256 tokens. torch runs the same
network through the libraries tokenizers and transformers, with fused attention. Reads $ROUTELEARN_DATA (default
../shared/data). Writes a section of docs/results.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from common import DATA, bundle, write_section

from routelearn.cascade.verifier import PairEncoder, Verifier, load_verifier
from routelearn.data.readers import read_records
from routelearn.data.records import PerformanceRecord
from routelearn.data.sample import generate_sample
from routelearn.routers.query import Query
from routelearn.routers.session import cpu_count
from routelearn.training.config import PACKAGED_ENCODER
from routelearn.training.encoders.transformer import load_transformer, padded
from routelearn.training.verifier.config import VerifierConfig
from routelearn.training.verifier.train import train_verifier

PAIRS = 96
ROUNDS = 5
BATCH = 32
TOKENS = 256
Judge = Callable[[list[Query], list[str]], object]


def verifiers() -> dict[str, Verifier]:
    """A bundle of each precision."""
    sample = generate_sample(800, seed=3)
    found = {}
    for precision in ("none", "int8"):
        config = VerifierConfig(models=("sim-small", "sim-large"), epochs=1, quantise=precision)
        path = bundle(f"speed-verifier-{precision}", lambda out, c=config: train_verifier(sample.performances, out, c))
        found["float32" if precision == "none" else precision] = load_verifier(path)
    return found


def torch_judge(pairs: PairEncoder) -> Judge:
    """The same by torch."""
    transformer = load_transformer(PACKAGED_ENCODER, 0.0, 0)[0].eval()
    head = torch.nn.Linear(transformer.config.hidden_size, 1)  # type: ignore[union-attr, arg-type]

    def judge(queries: list[Query], answers: list[str]) -> object:
        rows = pairs.encode(queries, answers)
        found = []
        with torch.inference_mode():
            for start in range(0, len(rows), BATCH):
                ids, mask = padded(rows[start : start + BATCH])
                hidden = transformer(input_ids=ids, attention_mask=mask).last_hidden_state
                pooled = torch.nn.functional.normalize((hidden * mask.unsqueeze(-1)).sum(dim=1), dim=1)
                found.append(torch.sigmoid(head(pooled)))
        return torch.cat(found)

    return judge


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(cpu_count())
    bundles = verifiers()
    pairs = bundles["float32"]._pairs
    records = [r for r in read_records(DATA / "mmlu_pro/responses.parquet").records if isinstance(r, PerformanceRecord)]
    chosen = [r for r in records if r.model == "Mixtral-8x7B-Instruct-v0.1" and len(r.response or "") > 600]
    full = [r for r in chosen[:2000] if len(pairs.encode([r.query], [r.response or ""])[0]) == TOKENS][:PAIRS]
    queries, answers = [r.query for r in full], [r.response or "" for r in full]
    judges: dict[str, Judge] = {"torch": torch_judge(pairs)}
    judges |= {name: verifier.confidence for name, verifier in bundles.items()}
    for judge in judges.values():
        judge(queries[:BATCH], answers[:BATCH])
    single: dict[str, list[float]] = {name: [] for name in judges}
    batch: dict[str, list[float]] = {name: [] for name in judges}
    for _ in range(ROUNDS):
        for name, judge in judges.items():
            start = time.perf_counter()
            judge(queries, answers)
            batch[name].append(time.perf_counter() - start)
            for query, answer in zip(queries[:20], answers[:20], strict=True):
                start = time.perf_counter()
                judge([query], [answer])
                single[name].append(time.perf_counter() - start)
    text = [
        f"{len(full)} pairs of {TOKENS} tokens on {cpu_count()} CPU cores ({torch.backends.cpu.get_cpu_capability()}), "
        f"{ROUNDS} rounds that take turns. One pair runs on one thread in a bundle, on all in torch.",
        "",
        "| | one pair, p50 / p99, ms | torch's p50 over it | pairs a second | times torch |",
        "|---|---|---|---|---|",
    ]
    base = statistics.median(single["torch"])
    for name in judges:
        p50, p99 = (float(np.percentile(single[name], q)) for q in (50, 99))
        times = statistics.median(t / own for t, own in zip(batch["torch"], batch[name], strict=True))
        label = "torch float32" if name == "torch" else f"bundle, {name}"
        rate = len(full) / statistics.median(batch[name])
        text.append(f"| {label} | {p50 * 1e3:.1f} / {p99 * 1e3:.1f} | {base / p50:.2f} | {rate:.1f} | {times:.2f} |")
    write_section("Speed of a verifier", "python benchmarks/speed_verifier.py", text)


if __name__ == "__main__":
    main()
