"""Samples of unequal probability: the probabilities are kept, and weighted estimates are unbiased."""

from __future__ import annotations

import numpy as np
import pytest

from routelearn.labelling.sampling import inclusion_probabilities, systematic_sample
from routelearn.routers.errors import InputError


@pytest.mark.parametrize("count", [0, 1, 7, 50, 199, 200])
def test_probabilities_sum_to_the_count_and_none_is_above_one(count: int) -> None:
    size = np.random.default_rng(0).lognormal(0, 2, 200)
    probability = inclusion_probabilities(size, count)
    assert probability.sum() == pytest.approx(count)
    assert (probability <= 1).all()
    assert count == 0 or (probability > 0).all()


def test_probabilities_below_one_are_in_proportion_to_the_sizes() -> None:
    probability = inclusion_probabilities([1.0, 2.0, 3.0, 100.0], 2)
    assert probability.tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6, 1])


@pytest.mark.parametrize("size", [[1.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_a_size_that_is_not_above_0_is_refused(size: list[float]) -> None:
    with pytest.raises(InputError, match="expected sizes above 0"):
        inclusion_probabilities(size, 1)


def test_more_rows_than_there_are_cannot_be_chosen() -> None:
    with pytest.raises(InputError, match="3 of 2 rows"):
        inclusion_probabilities([1.0, 1.0], 3)


@pytest.mark.parametrize("count", [1, 13, 60, 100])
def test_each_row_is_chosen_as_often_as_its_probability_says(count: int) -> None:
    random = np.random.default_rng(1)
    probability = inclusion_probabilities(random.lognormal(0, 1, 100), count)
    order, times, draws = random.permutation(100), np.zeros(100), 4000
    for _ in range(draws):
        rows = systematic_sample(probability, order, random)
        assert len(rows) == len(set(rows.tolist())) == count
        times[rows] += 1
    error = np.sqrt(probability * (1 - probability) / draws)
    assert (np.abs(times / draws - probability) <= 5 * error + 1e-12).all()


def test_rows_that_stand_together_are_spread_over() -> None:
    probability = np.full(1000, 0.1)
    rows = systematic_sample(probability, np.arange(1000), np.random.default_rng(0))
    assert (np.diff(rows) == 10).all()


def test_weighted_means_are_unbiased_and_their_95_percent_intervals_cover() -> None:
    """2,000 times new outcomes of 30,000 prompts, and a sample of 300; useful prompts lose more than the others.

    The outcomes are drawn anew because a systematic sample depends on its start alone: of one order there are only some
    hundred samples that differ.
    """
    random = np.random.default_rng(0)
    number, count, repetitions = 30_000, 300, 2000
    cluster = random.integers(0, 32, number)
    useful = np.clip(random.beta(1, 4, number) + cluster / 100, 0.05, 1)
    probability = inclusion_probabilities(0.5 / number + 0.5 * useful / useful.sum(), count)
    order = np.lexsort((useful, cluster))
    covered, errors, plain = 0, [], []
    for _ in range(repetitions):
        loss = (random.random(number) < 0.6 * useful) - (random.random(number) < 0.05).astype(float)
        rows = systematic_sample(probability, order, random)
        weight = 1 / probability[rows]
        mean = float(np.average(loss[rows], weights=weight))
        # The interval that a bootstrap of whole prompts approaches: the linearised variance of a ratio.
        deviation = float(np.sqrt(np.square(weight * (loss[rows] - mean)).sum()) / weight.sum())
        covered += abs(mean - loss.mean()) <= 1.96 * deviation
        errors.append(mean - loss.mean())
        plain.append(loss[rows].mean() - loss.mean())
    assert 0.93 <= covered / repetitions <= 0.97
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(repetitions)
    assert np.mean(plain) > 10 * np.std(errors) / np.sqrt(repetitions)
