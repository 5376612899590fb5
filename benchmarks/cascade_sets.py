"""What benchmarks/cascade.py measures on: the sets of questions, and the routers and verifiers trained for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import DATA, ROOT, STRONG, WEAK, bundle, routellm, without_leaks

from routelearn.cascade.verifier import Verifier, load_verifier
from routelearn.data.readers import read_records
from routelearn.data.records import Record
from routelearn.data.splits import split_by_prompt
from routelearn.routers.decision import Model
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load
from routelearn.training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization
from routelearn.training.similarity.train import SimilarityConfig, train_similarity
from routelearn.training.verifier.train import VerifierConfig, train_verifier

FOLDS = 5
#: USD per million tokens, list prices of 2024, beside those of prices.json.
PRICES = {STRONG: Model(STRONG, 10.0, 30.0), WEAK: Model(WEAK, 0.6, 0.6)}


@dataclass(frozen=True)
class Setting:
    """A set of questions with weak's answers.

    Attributes:
        title: heading.
        strong: the strong model, whose scores are known.
        weak: the weak models, each a cascade of its own; one verifier learns from the answers of all.
        output_tokens: length of strong's answers, where the file has none.
        training: of the verifier.
    """

    title: str
    strong: str
    weak: tuple[str, ...]
    output_tokens: int | None
    training: dict[str, Any]


SETTINGS = {
    "gsm8k": Setting("GSM8K, five folds", STRONG, (WEAK,), None, {"epochs": 3, "learning_rate": 1e-4}),
    "mmlu_pro": Setting(
        "MMLU-Pro",
        "gemini-1.5-pro-002",
        ("Mixtral-8x7B-Instruct-v0.1", "Meta-Llama-3_1-8B-Instruct"),
        300,
        {"epochs": 1},
    ),
    "math": Setting(
        "MATH level 5",
        "gpt-4o-2024-08-06",
        ("claude-3-haiku-20240307", "Meta-Llama-3.1-8B-Instruct"),
        600,
        {"epochs": 3, "learning_rate": 1e-4},
    ),
}
WIDE = {
    "mmlu_pro": ("mmlu_pro/performance_wide.parquet", "mmlu_pro/responses.parquet"),
    "math": ("zeroeval/math_level5_wide.parquet", "zeroeval/math_level5_responses.parquet"),
}


def parts(name: str) -> list[tuple[list[Record], list[Record]]]:
    """Training and test records, a pair for every fold."""
    setting = SETTINGS[name]
    if name == "gsm8k":
        folds = split_by_prompt(routellm("gsm8k"), (1 / FOLDS,) * FOLDS, 0)
        found = []
        for number, test in enumerate(folds):
            training = [record for other, fold in enumerate(folds) if other != number for record in fold]
            found.append((training, without_leaks(training, test)[0]))
        return found
    wide, answers = (read_records(DATA / file).records for file in WIDE[name])
    names = {setting.strong, *setting.weak}
    # Strong's scores from the wide file; weak's with their answers.
    records = [r for r in wide if r.models[0] == setting.strong] + [r for r in answers if r.models[0] in names]
    training = [record for record in records if record.split != "test"]
    test = [record for record in records if record.split == "test"]
    return [(training, without_leaks(training, test)[0])]


def router_of(kind: str, name: str, fold: int, training: list[Record], setting: Setting) -> LearnedRouter:
    pair: dict[str, Any] = {"strong": setting.strong, "weak": setting.weak[0]}

    def train(out: Path) -> Path:
        if kind == "mf":
            return train_matrix_factorization(training, out, MatrixFactorizationConfig(general="none", **pair))
        return train_similarity(training, out, SimilarityConfig(general="none", **pair))

    return load(bundle(f"cascade-{name}-{fold}-{kind}", train))


def verifier_of(name: str, fold: int, training: list[Record]) -> Verifier:
    setting = SETTINGS[name]
    config = VerifierConfig(models=setting.weak, strong=setting.strong, resume=True, **setting.training)
    return load_verifier(bundle(f"cascade-{name}-{fold}-verifier", lambda out: train_verifier(training, out, config)))


def prices() -> dict[str, Model]:
    known = json.loads((ROOT / "benchmarks" / "prices.json").read_text())
    return {**{name: Model(name, *pair) for name, pair in known.items()}, **PRICES}
