"""What the general routers are tested on: each source with enough prompts, and RouteLLM's three sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas
from common import DATA, routellm
from general_sources import SOURCES

from routelearn.training.fit.minimise import Array

#: A source is tested on all of its prompts; the pooled test has so many of each.
POOLED = 150
#: Sources of strong_vs_weak_targets.parquet that have one model only.
ONE_MODEL = {"justeval_gpt35_absolute"}


@dataclass
class Test:
    """Prompts with the mean score of the strong models and of the weak models of a source.

    Attributes:
        name: name of the source.
        prompts: n prompts.
        strong: float64 (n,).
        weak: float64 (n,).
        models: names of the strong models and of the weak models.
        left_out: sources that are not trained on.
    """

    name: str
    prompts: list[str]
    strong: Array
    weak: Array
    models: tuple[list[str], list[str]]
    left_out: set[str]


def source_tests() -> list[Test]:
    """One test for each source with enough prompts; preferences count as scores around one half."""
    table = pandas.read_parquet(DATA / "general" / "strong_vs_weak_targets.parquet")
    tiers = pandas.read_csv(DATA / "general" / "model_tiers.csv")
    shared = {source.name: set(source.shared) for source in SOURCES}
    tests = []
    for name, rows in table[table["prompt"].map(lambda prompt: isinstance(prompt, str))].groupby("dataset"):
        gap = rows["gap"].fillna(2 * rows["p_strong_wins"] + rows["p_tie"] - 1)
        strong, weak = rows["strong_mean"].fillna(0.5 + gap / 2), rows["weak_mean"].fillna(0.5 - gap / 2)
        kept = (strong + weak).notna().to_numpy()
        if kept.sum() < POOLED or name in ONE_MODEL:
            continue
        of_source = tiers[tiers["dataset"] == name]
        models = tuple(of_source[of_source["tier"] == tier]["model"].tolist() for tier in ("strong", "weak"))
        tests.append(
            Test(
                str(name),
                rows["prompt"][kept].tolist(),
                strong[kept].to_numpy(np.float64),
                weak[kept].to_numpy(np.float64),
                (models[0], models[1]),
                {str(name)} | shared.get(str(name), set()),
            )
        )
    return tests


def routellm_tests() -> list[Test]:
    """RouteLLM's three sets, GPT-4 over Mixtral."""
    tests = []
    for name, left_out in (("mt_bench", set()), ("mmlu", {"mmlu"}), ("gsm8k", {"zeroeval_gsm8k"})):
        scores: dict[str, dict[str, list[float]]] = {}
        for record in routellm(name):
            prompt = record.query if isinstance(record.query, str) else str(record.query[0].get("content"))
            scores.setdefault(prompt, {}).setdefault(record.models[0], []).append(record.score)  # type: ignore[union-attr]
        strong = np.array([np.mean(by_model["gpt-4-1106-preview"]) for by_model in scores.values()])
        weak = np.array([np.mean(by_model["mixtral-8x7b-instruct-v0.1"]) for by_model in scores.values()])
        models = (["gpt-4-1106-preview"], ["mixtral-8x7b-instruct-v0.1"])
        tests.append(Test(name, list(scores), strong, weak, models, set(left_out)))
    return tests
