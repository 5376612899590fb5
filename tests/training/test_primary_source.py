"""Validation, calibration and thresholds are those of the primary source, however many records other sources have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from routelearn.data.records import PerformanceRecord, PreferenceRecord
from routelearn.routers.errors import InputError
from routelearn.routers.loading import load
from routelearn.training.matrix_factorization.train import MatrixFactorizationConfig, train_matrix_factorization
from routelearn.training.similarity.train import SimilarityConfig, train_similarity

HARD, EASY = ["prove", "lemma", "theorem", "group"], ["hello", "thanks", "weather", "tea"]
PAIR = {"strong": "strong", "weak": "weak", "strong_share": 0.3}


def records(source: str, count: int, hard_share: float, seed: int) -> list[PerformanceRecord]:
    """Queries of two kinds: the weak model fails on the hard ones."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        hard = random.random() < hard_share
        words = random.choice(
            ["prove", "lemma", "theorem", "group"] if hard else ["hello", "thanks", "weather", "tea"], 3
        )
        query = f"{' '.join(words)} {source} {number}"
        for model, right in (("strong", 0.9), ("weak", 0.1 if hard else 0.85)):
            score = float(random.random() < right)
            rows.append(PerformanceRecord(query=query, model=model, score=score, source=source))
    return rows


@pytest.mark.parametrize("recipe", ["mf", "similarity"])
def test_the_threshold_is_that_of_the_primary_source(recipe: str, tmp_path: Path) -> None:
    own, other = records("own", 200, 0.8, seed=0), records("other", 1000, 0.05, seed=1)
    if recipe == "mf":
        path = train_matrix_factorization([*own, *other], tmp_path / "router", MatrixFactorizationConfig(**PAIR))
    else:
        path = train_similarity([*own, *other], tmp_path / "router", SimilarityConfig(**PAIR))
    router = load(path)
    new = list(dict.fromkeys(record.query for record in records("own", 400, 0.8, seed=2)))
    assert 0.15 < (router.score(new) >= router.threshold).mean() < 0.5
    assert router.manifest.training["metrics"]["held-out queries"] == 200


def test_a_small_primary_source_is_validated_whole(tmp_path: Path) -> None:
    own, other = records("own", 20, 0.5, seed=0), records("other", 6000, 0.5, seed=1)
    path = train_similarity([*own, *other], tmp_path / "router", SimilarityConfig(**PAIR))
    assert load(path).manifest.training["metrics"]["held-out outcomes"] == 40


@pytest.mark.parametrize("method", ["kernel", "bradley-terry"])
def test_a_fold_may_hold_no_query_of_the_primary_source(method: str, tmp_path: Path) -> None:
    rows = [*records("own", 4, 0.5, seed=0), *records("other", 200, 0.5, seed=1)]
    preferences = [
        PreferenceRecord(
            query=strong.query,
            model_a="strong",
            model_b="weak",
            preference=(1 + strong.score - weak.score) / 2,
            source=strong.source,
        )
        for strong, weak in zip(rows[::2], rows[1::2], strict=True)
    ]
    config = SimilarityConfig(**PAIR, method=method)
    path = train_similarity(rows if method == "kernel" else preferences, tmp_path / "router", config)
    assert load(path).manifest.training["metrics"]["held-out queries"] == 4


def test_records_that_are_all_marked_val_are_refused(tmp_path: Path) -> None:
    rows = [replace(row, split="val") for row in records("own", 20, 0.5, seed=0)]
    with pytest.raises(InputError, match="every record to learn from is marked 'val'; expected others beside them"):
        train_matrix_factorization(rows, tmp_path / "router", MatrixFactorizationConfig())


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf"), 1e30])
def test_a_weight_that_is_none_is_refused(weight: float, tmp_path: Path) -> None:
    rows = records("own", 20, 0.5, seed=0)
    rows[3] = PerformanceRecord(query="new", model="weak", score=1.0, weight=weight)
    with pytest.raises(InputError, match=r"record 3 has the weight .*; expected a number from 1e-09 to 1e\+09"):
        train_similarity(rows, tmp_path / "router", SimilarityConfig())


def test_weights_that_an_index_cannot_store_are_refused(tmp_path: Path) -> None:
    rows = records("own", 60, 0.5, seed=0)
    rows[0] = replace(rows[0], weight=100_000.0)
    with pytest.raises(InputError, match="sum to 100,000; expected at most 65,504: divide the weights of all records"):
        train_similarity(rows, tmp_path / "router", SimilarityConfig())
