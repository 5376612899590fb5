"""How fast a router turns text into scores, as ratios measured in one run.

Run: python benchmarks/speed.py [BUNDLE]

Without a bundle the benchmark trains one on the embedded sample. The prompts are distinct and about 58 tokens long:
real ones from $ROUTELEARN_DATA (default ../shared/data) if it exists, and generated ones otherwise.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

import routelearn
from routelearn.data.readers import read_records
from routelearn.data.sample import generate_sample
from routelearn.routers.loading import load
from routelearn.routers.session import cpu_count
from routelearn.training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization

QUERIES = 10_000
DATA = Path(os.environ.get("ROUTELEARN_DATA") or Path(__file__).parent / ".." / ".." / "shared" / "data").resolve()
ROUNDS = 11
SINGLE = 3_000


def prompts(tokenizer: Tokenizer) -> tuple[str, list[str]]:
    """Where they come from, and distinct prompts of 30 to 95 tokens."""
    if DATA.is_dir():
        files = ("arena_human/arena_pairs.parquet", "routellm_eval/mmlu.parquet")
        records = [record for file in files for record in read_records(DATA / file).records]
        source = "arena and MMLU prompts"
        texts = sorted({record.query for record in records if isinstance(record.query, str)})
    else:
        source = "generated sentences"
        sentences = [query for query in generate_sample(8000, seed=9).queries if isinstance(query, str)]
        texts = [" ".join(sentences[i : i + 3]) for i in range(0, len(sentences) - 3, 2)]
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    kept = [text for text, encoding in zip(texts, encodings, strict=True) if 30 <= len(encoding) <= 95]
    return source, [kept[i] for i in np.random.default_rng(0).permutation(len(kept))[:QUERIES]]


def rates(works: dict[str, tuple[Callable[[], object], int]]) -> dict[str, list[float]]:
    """Queries a second of each work, in rounds that take turns: a ratio within a round meets the same machine."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, (work, count) in works.items():
            started = time.perf_counter()
            work()
            found[name].append(count / (time.perf_counter() - started))
    return found


def latency(work: Callable[[str], object], texts: list[str]) -> tuple[float, float]:
    """p50 and p99 in microseconds."""
    for text in texts[:200]:
        work(text)
    micros = []
    for text in texts:
        started = time.perf_counter()
        work(text)
        micros.append((time.perf_counter() - started) * 1e6)
    return float(np.percentile(micros, 50)), float(np.percentile(micros, 99))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            path = Path(sys.argv[1])
        else:
            config = MatrixFactorizationConfig(strong="sim-max", weak="sim-small")
            path = train_matrix_factorization(generate_sample().performances, Path(folder) / "router", config)
        measure(path)


def measure(path: Path) -> None:
    router = load(path)
    reference = Tokenizer.from_file(str(path / "tokenizer.json"))
    reference.no_padding()
    reference.no_truncation()
    source, texts = prompts(reference)
    tokie = router._session.backend
    mean_tokens = float(tokie.encode(texts)[1].mean())

    graph = _torch_pipeline(path)

    def torch_score(batch: list[str]) -> torch.Tensor:
        rows = [encoding.ids for encoding in reference.encode_batch(batch, add_special_tokens=False)]
        return graph([list(set(row)) for row in rows])

    few = texts[:2560]
    rounds = rates(
        {
            "tokie": (lambda: tokie.encode(texts), len(texts)),
            "score": (lambda: router.score(texts), len(texts)),
            "route_batch": (lambda: router.route_batch(texts), len(texts)),
            "tokenizers": (lambda: reference.encode_batch(few, add_special_tokens=False), len(few)),
            "tokenizers_torch": (lambda: [torch_score(few[i : i + 256]) for i in range(0, len(few), 256)], len(few)),
        }
    )
    found = {f"{name}_per_s": statistics.median(values) for name, values in rounds.items()}

    def ratio(name: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(rounds[name], rounds[other], strict=True))

    singles = texts[:SINGLE]
    for name, work in {
        "tokie": lambda text: tokie.encode([text]),
        "tokenizers": lambda text: reference.encode(text, add_special_tokens=False).ids,
        "graph_alone": _graph_alone(router, tokie, texts[0]),
        "score": lambda text: router.score([text]),
        "route": router.route,
    }.items():
        found[f"single_{name}_p50_us"], found[f"single_{name}_p99_us"] = latency(work, singles)
    ratios = {
        "score / tokie (batch)": ratio("score", "tokie"),
        "score / (tokenizers + torch) (batch)": ratio("score", "tokenizers_torch"),
        "single score p50 / tokenizers alone": found["single_score_p50_us"] / found["single_tokenizers_p50_us"],
        "single score p50 / tokie alone": found["single_score_p50_us"] / found["single_tokie_p50_us"],
    }
    print(f"routelearn {routelearn.__version__}, {cpu_count()} CPUs, {len(texts)} {source}, {mean_tokens:.1f} tokens")
    for name, value in found.items():
        print(f"{name:32s} {value:12,.1f}")
    for name, value in ratios.items():
        print(f"{name:40s} {value:8.2f}")
    out = Path(__file__).parent / "out"
    out.mkdir(exist_ok=True)
    (out / "speed.json").write_text(
        json.dumps({**found, **ratios, "mean_tokens": mean_tokens, "prompts": source, "n": len(texts)}, indent=1) + "\n"
    )


def _graph_alone(router: routelearn.LearnedRouter, tokie: object, text: str) -> Callable[[str], object]:
    session = router._session
    ids = session.backend.encode([text])[0].reshape(1, -1)
    mask = np.ones(ids.shape, np.uint8)
    return lambda _: session._run_graph(ids, mask)


def _torch_pipeline(path: Path) -> Callable[[list[list[int]]], torch.Tensor]:
    """The same network as torch runs it in eager mode: embedding bag, norm, linear, sigmoid."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path / "model.onnx")
    arrays = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer}
    table = arrays["table"].float()
    epsilon = next(a.f for node in model.graph.node for a in node.attribute if a.name == "epsilon")

    def score(rows: list[list[int]]) -> torch.Tensor:
        with torch.no_grad():
            lengths = torch.tensor([len(row) for row in rows])
            ids = torch.tensor([token for row in rows for token in row])
            total = torch.nn.functional.embedding_bag(ids, table, lengths.cumsum(0) - lengths, mode="sum")
            unit, _, inverse = torch.native_layer_norm(total, [table.shape[1]], arrays["gain"], None, epsilon)
            return torch.sigmoid(torch.cat([unit, inverse.log()], 1) @ arrays["weight"] + arrays["bias"])

    return score


if __name__ == "__main__":
    main()
