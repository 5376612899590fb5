"""What a few labels are worth: adapt against the general router alone and against the labels alone.

Run: ROUTELEARN_DATA=FOLDER python benchmarks/adaptation.py [--development] [--seeds 10]

The general router is trained without the set that it is adapted to and without near copies of its prompts. A label is a
prompt whose answers by both models are judged. Each figure is the APGR on prompts without a label. --development
measures the sources that the settings of adapt were chosen on. Forty minutes on two cores; results stay in
benchmarks/out, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas
from common import DATA, bundle, cached, interval, say, write_section
from general_sources import SOURCES, read_source, read_sources, shipped_sources
from general_test_sets import routellm_tests
from ship_general import SETTINGS as SHIPPED

from routelearn.data.near_copies import near_copies
from routelearn.data.records import PerformanceRecord
from routelearn.routers.loading import load
from routelearn.training.fit.metrics import routing_curve
from routelearn.training.general.train import train_general
from routelearn.training.matrix_factorization.config import MatrixFactorizationConfig
from routelearn.training.matrix_factorization.train import train_matrix_factorization

#: Settings of the general router that is adapted.
GENERAL = SHIPPED["general"]
LABELS = (20, 50, 100, 200, 500, 1000)
#: Most prompts that a router is tested on.
MOST_TESTED = 2000
#: Sources that the settings were chosen on: the rest of the sources with two models and enough prompts.
DEVELOPMENT = (
    "zeroeval_math",
    "fasteval_bbh_math",
    "fasteval_openai_evals",
    "japanese_chat_shaberi",
    "llmrouter_10tasks_midtier",
    "zeroeval_zebra",
    "cascades_knowledge",
    "mot_date",
    "bfcl_function_calling",
)
#: The ways to use the labels.
WAYS = {
    "labels alone, as before": {"general": "none", "few_labels": False},
    "labels alone": {"general": "none"},
    "adapt": {},
}


@dataclass
class Set:
    """A set of prompts with the scores of two models.

    Attributes:
        name: its name.
        prompts: n prompts.
        scores: float64 (n, 2), of strong and weak.
        tasks: the task of each prompt, or None.
        models: strong and weak.
        left_out: sources that the general router is not trained on.
    """

    name: str
    prompts: list[str]
    scores: npt.NDArray[np.float64]
    tasks: list[str | None]
    models: tuple[str, str]
    left_out: set[str]

    def records(self, rows: npt.NDArray[np.int64]) -> list[PerformanceRecord]:
        """The records of some prompts."""
        return [
            PerformanceRecord(self.prompts[row], model, float(self.scores[row, i]), task=self.tasks[row])
            for row in rows.tolist()
            for i, model in enumerate(self.models)
        ]


def wide_set(name: str, path: str, models: tuple[str, str], left_out: set[str]) -> Set:
    """A set from a file of the data folder."""
    table = pandas.read_parquet(DATA / path)
    tasks = table.drop_duplicates("prompt").set_index("prompt").get("task", pandas.Series(dtype=object))
    if "model" in table:
        scores = table[table["model"].isin(models)].pivot_table(index="prompt", columns="model", values="score")
    else:
        scores = table.drop_duplicates("prompt").set_index("prompt")
    scores = scores[list(models)].dropna().clip(0, 1)
    named = [tasks.get(prompt) for prompt in scores.index]
    return Set(name, list(scores.index), scores.to_numpy(np.float64), named, models, left_out)


def test_sets() -> list[Set]:
    """The sets of the table."""
    sets = []
    mmlu = pandas.read_parquet(DATA / "routellm_eval" / "mmlu.parquet")
    tasks = dict(zip(mmlu["prompt"], mmlu.get("task", pandas.Series([None] * len(mmlu))), strict=True))
    for test in routellm_tests():
        if test.name != "mt_bench":
            models = (test.models[0][0], test.models[1][0])
            named = [tasks.get(prompt) for prompt in test.prompts]
            scores = np.stack([test.strong, test.weak], axis=1)
            sets.append(Set(test.name, test.prompts, scores, named, models, test.left_out))
    pair = "gemini-1.5-pro-002", "Mixtral-8x7B-Instruct-v0.1"
    sets.append(wide_set("mmlu_pro", "mmlu_pro/performance_wide.parquet", pair, {"mmlu_pro"}))
    pair = "gpt-4o-2024-08-06", "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4"
    sets.append(wide_set("ifeval", "general/ifeval_multilingual.parquet", pair, {"ifeval_multilingual"}))
    pair = "gpt-4-1106-preview", "mistralai/mixtral-8x7b-chat"
    sets.append(wide_set("routerbench", "general/routerbench_costs.parquet", pair, set()))
    return sets


def development_sets() -> list[Set]:
    """The best and the median model of each source that the settings were chosen on."""
    sets = []
    for source in (one for one in SOURCES if one.name in DEVELOPMENT):
        rows = [(one.query, one.models[0], one.score) for one in read_source(DATA, source)]  # type: ignore[union-attr]
        table = pandas.DataFrame(rows, columns=["prompt", "model", "score"])
        scores = table.pivot_table(index="prompt", columns="model", values="score")
        scores = scores.loc[:, scores.notna().mean() > 0.8]
        ranked = scores.mean().sort_values().index
        pair = ranked[-1], ranked[len(ranked) // 2 if len(ranked) > 3 else 0]
        kept = scores[list(pair)].dropna()
        left_out = {source.name, *source.shared}
        sets.append(Set(source.name, list(kept.index), kept.to_numpy(), [None] * len(kept), pair, left_out))
    return sets


def general_without(one: Set) -> Path:
    """The general router without a set, and without near copies of its prompts."""

    def train(path: Path) -> Path:
        records = read_sources(DATA, [source for source in shipped_sources() if source.name not in one.left_out])
        prompts = sorted({str(record.query) for record in records})
        copies = {prompts[left] for left, _, _ in near_copies(prompts, one.prompts)}
        traffic = tuple(name for name in GENERAL.traffic or () if name not in one.left_out)
        return train_general([r for r in records if r.query not in copies], path, replace(GENERAL, traffic=traffic))

    return bundle(f"general-without-{one.name}", train)


def measure(one: Set, general: Path, seed: int) -> dict[str, dict[str, float]]:
    """APGR by the number of labels, for each way."""
    order = np.random.default_rng(1000 + seed).permutation(len(one.prompts))
    most = min(max(LABELS), len(order) // 2)
    tested = order[most:][:MOST_TESTED]
    strong, weak = one.scores[tested].T.astype(np.float32)
    prompts = [one.prompts[row] for row in tested.tolist()]

    def apgr(path: Path, **models: str) -> float:
        return routing_curve(load(path, **models).score(prompts), strong, weak).apgr

    found = {"general alone": {"0": apgr(general, strong=one.models[0], weak=one.models[1])}}
    for way, settings in WAYS.items():
        found[way] = {}
        for count in (count for count in LABELS if count <= most):
            say(f"adaptation: {one.name}, seed {seed}, {count} labels, {way}")
            with tempfile.TemporaryDirectory() as folder:
                config = MatrixFactorizationConfig(
                    strong=one.models[0], weak=one.models[1], **{"general": str(general), **settings}
                )
                path = train_matrix_factorization(one.records(order[:count]), Path(folder) / "router", config)
                found[way][str(count)] = apgr(path)
    return found


def lines(results: dict[str, list[dict[str, dict[str, float]]]]) -> list[str]:
    """The table: a row for each set and number of labels."""
    text = [
        "| set | labels | general alone | " + " | ".join(WAYS) + " | adapt less the better of the two |",
        "|---|---|---|" + "---|" * len(WAYS) + "---|",
    ]
    random = np.random.default_rng(0)
    for count in map(str, LABELS):
        means = []
        for name, rows in results.items():
            if count not in rows[0]["adapt"]:
                continue
            general = np.array([row["general alone"]["0"] for row in rows])
            values = {way: np.array([row[way][count] for row in rows]) for way in WAYS}
            means.append([general.mean(), *(value.mean() for value in values.values())])
            before = values["labels alone, as before"]
            better = general if general.mean() > before.mean() else before
            difference = values["adapt"] - better
            drawn = difference[random.integers(0, len(rows), (2000, len(rows)))].mean(axis=1)
            shown = f"{difference.mean():+.3f} ({interval(np.quantile(drawn, [0.025, 0.975]).tolist())})"
            cells = [f"{general.mean():.3f}", *(f"{value.mean():.3f}" for value in values.values()), shown]
            text.append(f"| {name} | {count} | " + " | ".join(cells) + " |")
        cells = [f"**{value:.3f}**" for value in np.mean(means, axis=0)]
        text.append(f"| **mean of {len(means)}** | {count} | " + " | ".join(cells) + " | |")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--development", action="store_true", help="the sources that the settings were chosen on")
    parser.add_argument("--seeds", type=int, default=10, help="random choices of the labels")
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, dict[str, float]]]] = {}
    for one in development_sets() if arguments.development else test_sets():
        general = general_without(one)
        results[one.name] = [
            cached(
                f"adaptation/{one.name}-{seed}", lambda one=one, general=general, seed=seed: measure(one, general, seed)
            )
            for seed in range(arguments.seeds)
        ]
    if arguments.development:
        say("\n".join(lines(results)))
        return
    text = [
        f"APGR, mean of {arguments.seeds} random choices of the labels; a label is a prompt with both answers judged. "
        "general alone: no label. labels alone, as before: `train mf` with --general none --no-few-labels. labels "
        "alone: --general none. adapt: `routelearn adapt`, which is also what `train mf` does. In brackets the 95 % "
        "bootstrap interval over the choices of the mean difference from the better of general alone and labels "
        "alone, as before.",
        "",
        *lines(results),
    ]
    write_section("What a few labels are worth", "python benchmarks/adaptation.py", text)


if __name__ == "__main__":
    main()
