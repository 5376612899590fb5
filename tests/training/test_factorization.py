"""The problem that the matrix factorization fits: its loss, its gradient, and its cut into blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad

from routelearn.data.sample import Sample
from routelearn.training import examples as examples_module
from routelearn.training.examples import Outcomes, enough_folds, examples_of
from routelearn.training.fit import factorization
from routelearn.training.fit.factorization import Factors, Problem, losses

MODELS, FEATURES, SOURCES = 4, 3, 2


def outcomes(random: np.random.Generator, queries: int, count: int, width: int) -> Outcomes:
    """Random outcomes over some queries: preferences where `width` is 2, performances where it is 1."""
    first = random.integers(0, MODELS, count)
    columns = [first, (first + random.integers(1, MODELS, count)) % MODELS][:width]
    return Outcomes(
        query=random.integers(0, queries, count),
        model=np.stack(columns, axis=1),
        target=random.random(count).astype(np.float32),
        weight=random.random(count).astype(np.float32),
        source=random.integers(0, SOURCES, count),
    )


def problem(seed: int, queries: int = 12) -> tuple[np.ndarray, list[Outcomes], Factors]:
    random = np.random.default_rng(seed)
    parts = [outcomes(random, queries, 30, 2), outcomes(random, queries, 20, 1)]
    factors = Factors(
        random.standard_normal(MODELS),
        random.standard_normal((FEATURES, 2)),
        random.standard_normal((MODELS, 2)),
        np.concatenate([np.zeros((1, MODELS)), random.standard_normal((SOURCES - 1, MODELS))]),
    )
    return random.standard_normal((queries, FEATURES)), parts, factors


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_gradient_is_that_of_the_loss(seed: int) -> None:
    features, parts, factors = problem(seed)
    values = [factors.bias, factors.offsets, factors.query_factors, factors.model_factors]
    cuts = np.cumsum([value.size for value in values])[:-1]

    def of(flat: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(value.shape) for part, value in zip(np.split(flat, cuts), values, strict=True)]

    whole = Problem(features, parts, MODELS)
    error = check_grad(
        lambda flat: whole.loss(*of(flat))[0],
        lambda flat: np.concatenate([part.ravel() for part in whole.loss(*of(flat))[1:]]),
        np.concatenate([value.ravel() for value in values]),
    )
    assert error < 1e-5


def test_the_loss_is_the_log_loss_of_the_utilities() -> None:
    features, parts, factors = problem(1)
    utilities = factors.utilities(features)
    total = sum(losses(part, utilities, factors.offsets).sum() for part in parts)
    whole = Problem(features, parts, MODELS)
    assert whole.mean_loss(factors) * whole.weight == pytest.approx(total)


@pytest.mark.parametrize("dense", [0, 10**9])
def test_blocks_add_up_to_the_whole_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch, dense: int) -> None:
    features, parts, factors = problem(2, queries=40)
    arguments = factors.bias, factors.offsets, factors.query_factors, factors.model_factors
    whole = Problem(features, parts, MODELS)
    monkeypatch.setattr(factorization, "_DENSE", dense)
    monkeypatch.setattr(factorization, "_QUERIES", 7)
    monkeypatch.setattr(factorization, "_ROWS", 5)
    blocks = Problem(features, parts, MODELS)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(factorization, "cpu_count", lambda threads=threads: threads)
        found.append(blocks.loss(*arguments))
    for one, other, all_at_once in zip(*found, whole.loss(*arguments), strict=True):
        assert np.array_equal(one, other)
        assert np.allclose(one, all_at_once, rtol=1e-12, atol=1e-12)
    assert np.allclose(blocks.at(factors), whole.at(factors))
    assert blocks.mean_loss(factors) == pytest.approx(whole.mean_loss(factors))


def test_queries_without_outcomes_cost_nothing() -> None:
    features, parts, factors = problem(3)
    few = [replace(part, query=part.query % 2) for part in parts]
    assert Problem(features, few, MODELS).mean_loss(factors) == Problem(features[:2], few, MODELS).mean_loss(factors)


def test_a_fold_is_left_out_where_the_others_hold_out_enough(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = examples_of(sample.performances)
    number = np.arange(len(examples.queries)) % 5
    folds = [number == fold for fold in range(5)]
    held_out = [len(examples.performances.of_queries(fold)) for fold in folds]
    assert len(enough_folds(examples, folds)) == 5
    monkeypatch.setattr(examples_module, "MOST_HELD_OUT", held_out[0] + 1)
    assert len(enough_folds(examples, folds)) == 2
    monkeypatch.setattr(examples_module, "MOST_HELD_OUT", 1)
    assert len(enough_folds(examples, folds)) == 1
