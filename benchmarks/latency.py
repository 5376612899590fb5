"""Size, loading time, memory, time of one query and rate of batches for every kind of router, beside the survey's.

Run: python benchmarks/latency.py
The routers are trained on the embedded sample, because speed does not depend on what they learned. Each router is
measured in a separate process, with the prompts of speed.py. Reads $ROUTELEARN_DATA (default ../shared/data) if it
exists. Writes a section of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 5
SINGLE = 500
#: Queries of the sample, and so records of the similarity router's index.
SAMPLE = 4000
#: What the survey of routers gives for a decision, by kind.
SURVEY = {"rules": "~0", "mf": "~50", "bert": "30 to 50"}


def opened(path: str) -> Any:
    """What a path of the table stands for."""
    import routelearn
    from routelearn.routers.combined import TwoStageRouter

    if path == "rules":
        return routelearn.RulesRouter("sim-max", "sim-small")
    if "+" in path:
        return TwoStageRouter(*(routelearn.load(one) for one in path.split("+")), share=0.2)
    return routelearn.load(path)


def child(path: str, prompts: Path, many: int) -> dict[str, float]:
    """Everything that is measured of one router, in this process."""
    import numpy as np

    import routelearn

    texts = json.loads(prompts.read_text())
    del routelearn
    start = time.perf_counter()
    router = opened(path)
    loaded = time.perf_counter() - start
    resident = _memory("VmRSS")
    for text in texts[:50]:
        router.score([text])
    micros = []
    for text in texts[:SINGLE]:
        start = time.perf_counter()
        router.score([text])
        micros.append((time.perf_counter() - start) * 1e6)
    rates = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        router.score(texts[:many])
        rates.append(min(many, len(texts)) / (time.perf_counter() - start))
    return {
        "load_ms": loaded * 1e3,
        "rss_mb": resident,
        "peak_mb": _memory("VmHWM"),  # ru_maxrss would be that of the process that forked this one
        "p50_ms": float(np.percentile(micros, 50)) / 1e3,
        "p99_ms": float(np.percentile(micros, 99)) / 1e3,
        "rate": float(np.median(rates)),
    }


def _memory(name: str) -> float:
    """A field of /proc/self/status in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def bundles() -> dict[str, Path]:
    """One of every kind."""
    from common import bundle
    from speed_transformers import paths as transformers

    from routelearn.data.sample import generate_sample
    from routelearn.training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization
    from routelearn.training.similarity.train import SimilarityConfig, train_similarity

    sample = generate_sample(SAMPLE, seed=3)
    pair = {"strong": "sim-max", "weak": "sim-small"}
    train: dict[str, Callable[[Path], Path]] = {
        "mf": lambda out: train_matrix_factorization(sample.performances, out, MatrixFactorizationConfig(**pair)),
        "similarity": lambda out: train_similarity(sample.performances, out, SimilarityConfig(**pair)),
        "similarity-bradley-terry": lambda out: train_similarity(
            sample.preferences, out, SimilarityConfig(method="bradley-terry", **pair)
        ),
    }
    static = {name: bundle(f"latency-{name}", work) for name, work in train.items()}
    return static | {f"bert-{precision}": path for precision, path in transformers().items()}


def parameters(path: Path) -> int:
    """Numbers that the graph stores."""
    import onnx

    graph = onnx.load(path / "model.onnx").graph
    return sum(onnx.numpy_helper.to_array(tensor).size for tensor in graph.initializer)


def table() -> list[str]:
    """Measure all, one after the other."""
    from common import OUT, say
    from speed import prompts
    from tokenizers import Tokenizer

    from routelearn.routers.session import cpu_count

    found = bundles()
    tokenizer = Tokenizer.from_file(str(found["mf"] / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    source, texts = prompts(tokenizer)
    lines = [
        f"{source}, 30 to 95 tokens, on {cpu_count()} CPU cores; each router in a process of its own, after `import "
        f"routelearn`. The sample has {SAMPLE:,} queries, all of them in a similarity router's index; bert is MiniLM. "
        f"One query: {SINGLE} in turn; batches: median of {ROUNDS} rounds. The two stages ask bert-int8 about a fifth "
        "of the queries. Survey: its figures for a decision, in ms, on hardware that it does not state; its LLM-based "
        "routers (~500 ms) have no counterpart here, as no language model's weights are packaged.",
        "",
        "| router | numbers stored | bundle, MB | load, ms | resident after it, MB | peak, MB | one query p50 / p99, "
        "ms | queries a second | survey, ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows: dict[str, tuple[str, list[Path], int]] = {"rules": ("rules", [], len(texts))}
    for name, path in found.items():
        many = 256 if "bert" in name else 2000 if name == "similarity-bradley-terry" else len(texts)
        rows[name] = (str(path), [path], many)
    both = [found["mf"], found["bert-int8"]]
    rows["mf, then bert-int8"] = ("+".join(map(str, both)), both, 1280)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.json"
        file.write_text(json.dumps(texts))
        measured = {}
        for name, (path, parts, many) in rows.items():
            command = [sys.executable, __file__, "--child", path, str(file), str(many)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            one = measured[name] = json.loads(done.stdout)
            say(f"{name}: {one}")
            stored = f"{sum(map(parameters, parts)):,}" if parts else ""
            size = sum(file.stat().st_size for part in parts for file in part.iterdir()) / 1e6
            survey = SURVEY.get(name.split("-")[0], "")
            lines.append(
                f"| {name} | {stored} | {f'{size:.1f}' if parts else ''} | {one['load_ms']:.0f} | {one['rss_mb']:.0f} "
                f"| {one['peak_mb']:.0f} | {one['p50_ms']:.3g} / {one['p99_ms']:.3g} | {one['rate']:,.0f} | {survey} |"
            )
    (OUT / "latency.json").write_text(json.dumps(measured, indent=1) + "\n")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=3, metavar=("ROUTER", "PROMPTS", "MANY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        path, prompts, many = arguments.child
        print(json.dumps(child(path, Path(prompts), int(many))))
        return
    from common import write_section

    write_section("Latency of every router", "python benchmarks/latency.py", table())


if __name__ == "__main__":
    main()
