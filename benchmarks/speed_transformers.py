"""Speed of a BERT router, float32 and int8, as ratios to torch float32 measured in one run.

Run: python benchmarks/speed_transformers.py
Both bundles are MiniLM, fine-tuned for a moment on the embedded sample, because speed does not depend on the weights.
The prompts are real ones of about 58 tokens, as in speed.py. torch runs the same network through the libraries
tokenizers and transformers, with fused attention, in batches of 32: once in the given order, and once sorted by length
as our session sorts them. Reads $ROUTELEARN_DATA (default ../shared/data). Writes
benchmarks/out/speed_transformers.json and a section of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import OUT, bundle, say, write_section
from speed import latency, prompts, rates
from tokenizers import Tokenizer

from routelearn.data.sample import generate_sample
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.routers.session import cpu_count
from routelearn.routers.tokenizer import HuggingFaceBackend
from routelearn.training.bert.config import BertConfig
from routelearn.training.bert.train import train_bert
from routelearn.training.config import PACKAGED_ENCODER
from routelearn.training.encoders.transformer import load_transformer, padded

QUERIES = 256
SINGLE = 100
BATCH = 32
MAX_TOKENS = 128


class TorchPipeline:
    """Texts to a score by torch: tokenizers, MiniLM, mean pooling, two heads."""

    def __init__(self) -> None:
        transformer, _, tokenizer_json = load_transformer(PACKAGED_ENCODER, 0.0, 0)
        self._transformer = transformer.eval()
        self._backend = HuggingFaceBackend(tokenizer_json, True)
        self._head = torch.nn.Linear(transformer.config.hidden_size, 2)  # type: ignore[union-attr, arg-type]

    def __call__(self, texts: Sequence[str], *, by_length: bool = False) -> torch.Tensor:
        """Scores (n,)."""
        flat, lengths = self._backend.encode(list(texts))
        ids = [row[:MAX_TOKENS] for row in np.split(flat, np.cumsum(lengths)[:-1])]
        order = np.argsort([len(row) for row in ids], kind="stable") if by_length else np.arange(len(ids))
        scores = torch.empty(len(ids))
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                input_ids, mask = padded([ids[row] for row in rows])
                hidden = self._transformer(input_ids=input_ids, attention_mask=mask).last_hidden_state
                pooled = torch.nn.functional.normalize((hidden * mask.unsqueeze(-1)).sum(dim=1), dim=1)
                quality = torch.sigmoid(self._head(pooled))
                scores[torch.from_numpy(rows)] = 0.5 + (quality[:, 0] - quality[:, 1]) / 2
        return scores


def paths() -> dict[str, Path]:
    """A bundle of each precision."""
    sample = generate_sample(1500, seed=3)
    found = {}
    for precision in ("none", "int8"):
        config = BertConfig(strong="sim-max", weak="sim-small", epochs=1, quantise=precision, general="none")
        path = bundle(f"speed-bert-{precision}", lambda out, c=config: train_bert(sample.performances, out, c))
        found["float32" if precision == "none" else precision] = path
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(cpu_count())
    ours: dict[str, LearnedRouter] = {name: load(path) for name, path in paths().items()}
    reference = TorchPipeline()
    tokenizer = Tokenizer.from_file(str(OUT / "bundles" / "speed-bert-int8" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    source, texts = prompts(tokenizer)
    texts = texts[:QUERIES]
    works = {
        "torch": (lambda: reference(texts), len(texts)),
        "torch, sorted": (lambda: reference(texts, by_length=True), len(texts)),
        **{name: (lambda router=router: router.score(texts), len(texts)) for name, router in ours.items()},
    }
    for work, _ in works.values():
        work()
    rounds = rates(works)
    singles = {"torch": latency(lambda text: reference([text]), texts[:SINGLE])}
    for name, router in ours.items():
        singles[name] = latency(lambda text, router=router: router.score([text]), texts[:SINGLE])
    tokens = float(np.mean([len(one) for one in tokenizer.encode_batch(texts)]))
    result = {"queries": len(texts), "tokens": tokens, "rates": {}, "single_us": singles}
    text = [
        f"{len(texts)} {source} of {tokens:.0f} tokens on {cpu_count()} CPU cores "
        f"({torch.backends.cpu.get_cpu_capability()}), medians of rounds that take turns.",
        "",
        "| | queries a second | times torch | times torch, sorted | one query, p50 / p99, ms | bundle, MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, values in rounds.items():
        times = [
            statistics.median(a / b for a, b in zip(values, rounds[other], strict=True))
            for other in ("torch", "torch, sorted")
        ]
        result["rates"][name] = {"per_s": statistics.median(values), "times": times}
        p50, p99 = singles.get(name, (float("nan"), float("nan")))
        latencies = f"{p50 / 1000:.1f} / {p99 / 1000:.1f}" if name in singles else ""
        file = OUT / "bundles" / f"speed-bert-{'none' if name == 'float32' else name}" / "model.onnx"
        size = f"{file.stat().st_size / 1e6:.1f}" if file.is_file() else ""
        label = {"torch": "torch float32", "torch, sorted": "torch float32, sorted by length"}.get(
            name, f"bundle, {name}"
        )
        text.append(
            f"| {label} | {statistics.median(values):,.0f} | {times[0]:.2f} | {times[1]:.2f} | {latencies} | {size} |"
        )
    result["at"] = time.strftime("%Y-%m-%d")
    (OUT / "speed_transformers.json").write_text(json.dumps(result, indent=1) + "\n")
    say(json.dumps(result))
    write_section("Speed of a BERT router", "python benchmarks/speed_transformers.py", text)


if __name__ == "__main__":
    main()
