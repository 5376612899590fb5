"""Tasks that records name: what routers learn from them, and when they learn nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from routelearn.data.records import PerformanceRecord, PreferenceRecord, Record
from routelearn.data.sample_text import TOPICS
from routelearn.routers.base import sigmoid
from routelearn.routers.loading import load
from routelearn.training.examples import examples_of
from routelearn.training.fit.metrics import auroc
from routelearn.training.fit.ranking import fit_ranking
from routelearn.training.log import TrainingLog
from routelearn.training.matrix_factorization.config import MatrixFactorizationConfig
from routelearn.training.matrix_factorization.tasks import (
    LEAST_QUERIES,
    UNKNOWN,
    TaskExpert,
    fit_expert,
    fit_worth,
    helps,
    task_labels,
)
from routelearn.training.matrix_factorization.train import train_matrix_factorization

TASKS = ("algebra", "poetry", "law")


def records(count: int = 300, seed: int = 0, **common: str) -> list[PerformanceRecord]:
    """Queries of three tasks, which the weak model does at different rates; the strong one does all of them well."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        task = TASKS[number % 3]
        for model, rate in (("strong", 0.9), ("weak", (0.1, 0.8, 0.5)[number % 3])):
            score = float(random.random() < rate)
            found.append(PerformanceRecord(f"{task} question {number}", model, score, task=task, **common))  # type: ignore[arg-type]
    return found


def onehot(rows: list[PerformanceRecord]) -> npt.NDArray[np.float64]:
    """A vector a query that tells its task."""
    examples = examples_of(rows)
    return np.eye(3)[[TASKS.index(str(query).split()[0]) for query in examples.queries]]


def log(folder: Path) -> TrainingLog:
    return TrainingLog(folder, show_progress=False)


def steps_of(bundle: Path) -> list[dict[str, object]]:
    lines = (bundle.with_name(bundle.name + ".training") / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_what_a_task_is_worth_is_the_penalised_estimate(tmp_path: Path) -> None:
    """Where the likelihood's slope, sum(target - sigmoid), equals the penalty's."""
    examples = examples_of(records())
    everything = np.ones(300, np.bool_)
    ranking = fit_ranking(examples, [~everything | (np.arange(300) < 60)], log(tmp_path)).overall
    count, labels = task_labels(examples, everything)
    utilities = fit_worth(labels, count, examples, everything, ranking)
    assert utilities.shape == (3, 2)
    part = examples.performances
    for task in range(count):
        for model in range(2):
            rows = (labels[part.query] == task) & (part.model[:, 0] == model)
            slope = float(part.target[rows].sum() - rows.sum() * sigmoid(utilities[task, model]))
            assert slope == pytest.approx(4.0 * float((utilities - ranking.bias)[task, model]), abs=1e-2)


def test_preferences_tell_what_a_task_is_worth_too(tmp_path: Path) -> None:
    rows: list[Record] = [
        PreferenceRecord(f"{task} {n}", "a", "b", float(task == "poetry"), task=task)
        for task in ("law", "poetry")
        for n in range(40)
    ]
    examples = examples_of(rows)
    everything = np.ones(80, np.bool_)
    ranking = fit_ranking(examples, [np.arange(80) % 4 == 0], log(tmp_path)).overall
    count, labels = task_labels(examples, everything)
    law, poetry = fit_worth(labels, count, examples, everything, ranking)
    assert law[0] - law[1] < -1
    assert poetry[0] - poetry[1] > 1


def test_an_expert_tells_tasks_apart_from_features(tmp_path: Path) -> None:
    rows = records()
    examples = examples_of(rows)
    kept = np.arange(300) >= 60
    ranking = fit_ranking(examples, [~kept], log(tmp_path)).folds[0]
    features = onehot(rows)
    expert = fit_expert(features, examples, kept, ranking, seed=0)
    assert expert is not None
    weak = sigmoid(expert.utilities(features))[~kept, examples.models.index("weak")]
    assert [float(weak[task::3].mean()) for task in range(3)] == pytest.approx([0.1, 0.8, 0.5], abs=0.12)
    exported = expert.exported(2 * expert.worth[:, [1]])
    assert exported.utilities(features) == pytest.approx(2 * expert.utilities(features)[:, [1]], abs=1e-5)


def test_an_expert_is_kept_only_where_it_helps_on_held_out_queries(tmp_path: Path) -> None:
    rows = records()
    examples = examples_of(rows)
    held_out = np.arange(300) < 90
    ranking = fit_ranking(examples, [held_out], log(tmp_path)).folds[0]
    without = np.broadcast_to(ranking.bias, (300, 2))
    features = onehot(rows)

    def kept(labelled: list[PerformanceRecord]) -> bool:
        expert = fit_expert(features, examples_of(labelled), ~held_out, ranking, seed=0)
        assert isinstance(expert, TaskExpert)
        return helps(without, (without + expert.utilities(features)) / 2, examples, held_out, 0, log(tmp_path), "tasks")

    assert kept(rows)
    random = np.random.default_rng(0)
    drawn = {row.query: str(random.integers(3)) for row in rows}
    assert not kept([replace(row, task=drawn[row.query]) for row in rows])


def test_small_tasks_and_those_of_other_sources_are_none() -> None:
    few = [replace(row, task="rare") if n < 2 * (LEAST_QUERIES - 1) else row for n, row in enumerate(records())]
    examples = examples_of([*few, *records(90, seed=1, source="another")])
    everything = np.ones(len(examples.queries), np.bool_)
    count, labels = task_labels(examples, everything)
    assert count == 3
    assert set(labels[: LEAST_QUERIES - 1]) == {UNKNOWN}
    assert (labels[300:] == UNKNOWN).all()
    assert task_labels(examples, np.arange(len(labels)) < 0)[0] == 0
    one = examples_of([replace(row, task="all alike") for row in records()])
    assert task_labels(one, np.ones(300, np.bool_))[0] == 0


def varied(rows: list[PerformanceRecord]) -> list[PerformanceRecord]:
    """The same outcomes for queries of words that their tasks share with no other: each word is seen a few times."""
    text = " ".join(
        word for levels, fillers in TOPICS.values() for group in [*levels, *fillers.values()] for word in group
    )
    words = sorted({word.lower() for word in re.findall(r"[A-Za-z]{4,}", text)})
    random = np.random.default_rng(0)
    queries = {row.query: " ".join(random.choice(words[TASKS.index(str(row.task)) :: 3], 3)) for row in rows}
    return [replace(row, query=queries[row.query]) for row in rows]


def test_matrix_factorization_learns_from_tasks(tiny_encoder: Path, tmp_path: Path) -> None:
    """One label says little of three words; which task they are of is soon told."""
    rows, new = varied(records(600)), varied(records(600, seed=1))
    truth = {row.query: float(row.task == "algebra") for row in new}
    found = {}
    for tasks in (True, False):
        config = MatrixFactorizationConfig(encoder=str(tiny_encoder), strong="strong", weak="weak", tasks=tasks)
        bundle = train_matrix_factorization(rows, tmp_path / str(tasks), config)
        kept = [step["kept"] for step in steps_of(bundle) if step["phase"] == "tasks"]
        assert kept == ([True] if tasks else [])
        scores = load(bundle).score(list(truth))  # of text alone
        found[tasks] = auroc(scores, np.asarray(list(truth.values())) > 0)
    assert found[True] > found[False] > 0.5
