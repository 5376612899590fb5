"""A new model from a few labels: adapt against training again with all labels of the model.

Run: ROUTELEARN_DATA=FOLDER python benchmarks/new_model.py

Each model of a set is left out of the training of a router (mf), and brought back from k labels by adapt. Against a
router trained with all labels of that model: the error of its mean quality on test prompts, and AIQ of the pool.
Five minutes on two cores; results stay in benchmarks/out.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import DATA, bundle, cached, say, write_section
from many_models import prices

from routelearn.data.parser import ReadOptions
from routelearn.data.readers import read_records
from routelearn.data.records import PerformanceRecord, record_key
from routelearn.evaluation.evaluate import evaluate
from routelearn.routers.loading import load
from routelearn.training.adaptation import adapt
from routelearn.training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization

LABELS = (20, 50, 100, 500)
PROMPTS, TESTED = 2000, 2000
SETS = {
    "MMLU-Pro": ("mmlu_pro/performance_wide.parquet", "gemini-1.5-pro-002", "Mistral-7B-Instruct-v0.1", 300),
}
#: Models that are left out, one at a time; not the pair.
LEFT_OUT = ("Meta-Llama-3_1-70B-Instruct", "gemini-1.5-flash-002", "Mixtral-8x7B-Instruct-v0.1", "mathstral-7B")


def measure(name: str, left_out: str, seed: int) -> dict[str, list[float]]:
    """Error of the mean quality of the model, and AIQ of the pool, by the number of labels; "all" is trained again."""
    file, strong, weak, tokens = SETS[name]
    everything = read_records(DATA / file, ReadOptions()).records
    records = [replace(record, split=None) for record in everything if isinstance(record, PerformanceRecord)]
    keys = np.random.default_rng(seed).permutation(sorted({record_key(record) for record in records}))
    learned, tested = set(keys[:PROMPTS].tolist()), set(keys[-TESTED:].tolist())
    training = [record for record in records if record_key(record) in learned]
    test = [record for record in records if record_key(record) in tested]
    config = MatrixFactorizationConfig(strong=strong, weak=weak, general="none")
    known = [record for record in training if record.model != left_out]
    without = bundle(f"new-model-{name}-{left_out}-{seed}", lambda out: train_matrix_factorization(known, out, config))
    whole = bundle(f"new-model-{name}-{seed}", lambda out: train_matrix_factorization(training, out, config))
    order = {key: place for place, key in enumerate(keys.tolist())}
    labels = sorted((r for r in training if r.model == left_out), key=lambda record: order[record_key(record)])
    with tempfile.TemporaryDirectory() as folder:
        paths = {"without": without, "all": whole}
        paths |= {str(k): adapt(without, labels[:k], Path(folder) / str(k)) for k in LABELS}
        routers = {label: load(path) for label, path in paths.items() if label != "without"}
        report = evaluate(
            routers, test, strong=strong, weak=weak, prices=prices(), output_tokens=tokens, bootstrap=20, seed=seed
        ).as_dict()
    aiq = {result["router"]: result["aiq"] for result in report["pool"]["results"]}
    queries = [record.query for record in test if record.model == left_out]
    truth = np.mean([record.score for record in test if record.model == left_out])
    return {
        label: [float(router.quality(queries)[:, router.index(left_out)].mean() - truth), aiq[label]]
        for label, router in routers.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="random choices of training and test prompts")
    seeds = parser.parse_args().seeds
    text = [
        f"Four models, left out one at a time of {PROMPTS:,} training prompts with 14 models, and brought back; "
        f"{seeds} choices of prompts, {TESTED:,} to test. Error: mean absolute error of the mean quality of the new "
        "model. AIQ of the pool of 14, less that of a router trained with all labels of the model, mean with the range "
        "from the smallest to the largest.",
        "",
        "| labels of the new model | error of its mean quality | AIQ, less that of training again |",
        "|---|---|---|",
    ]
    found = []
    for name in SETS:
        for left_out in LEFT_OUT:
            for seed in range(seeds):
                say(f"new model: {name}, {left_out}, seed {seed}")
                found.append(cached(f"new_model/{left_out}-{seed}", lambda: measure(name, left_out, seed)))  # noqa: B023
    for label in [*map(str, LABELS), "all"]:
        errors = np.abs([one[label][0] for one in found])
        lost = np.array([one[label][1] - one["all"][1] for one in found])
        shown = "" if label == "all" else f"{lost.mean():+.4f} ({lost.min():+.4f} to {lost.max():+.4f})"
        text.append(
            f"| {label if label != 'all' else f'{PROMPTS:,} (trained again)'} | {errors.mean():.3f} | {shown} |"
        )
    write_section("A new model from a few labels", "python benchmarks/new_model.py", text)


if __name__ == "__main__":
    main()
