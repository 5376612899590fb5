"""Limits in closed form, against the distributions that they stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from routelearn.monitoring.limits import count_limit, ks_limit, mean_limit, normal_limit


@pytest.mark.parametrize("probability", [0.01, 1e-5])
@pytest.mark.parametrize(("n", "n_reference"), [(100, 800), (500, 843), (500, 6000)])
def test_the_ks_limit_is_that_of_the_asymptotic_distribution(probability: float, n: int, n_reference: int) -> None:
    effective = n * n_reference / (n + n_reference)
    exact = stats.kstwobign.isf(probability) / math.sqrt(effective)
    assert ks_limit(probability, n, n_reference) == pytest.approx(exact, rel=1e-3)


def test_samples_of_one_distribution_exceed_the_ks_limit_as_rarely_as_it_says() -> None:
    random = np.random.default_rng(0)
    limit = ks_limit(0.05, 200, 400)
    distances = [stats.ks_2samp(random.random(200), random.random(400)).statistic for _ in range(1000)]
    assert 0.02 < np.mean(np.asarray(distances) > limit) < 0.06


@pytest.mark.parametrize("probability", [0.01, 1e-5])
@pytest.mark.parametrize(("n_reference", "dimensions"), [(60, 4), (843, 16), (6000, 16)])
def test_the_mean_limit_is_hotellings(probability: float, n_reference: int, dimensions: int) -> None:
    n, freedom = 500, n_reference - 1
    f = stats.f.isf(probability, dimensions, freedom - dimensions + 1)
    exact = math.sqrt(f * freedom * dimensions / (freedom - dimensions + 1) * (1 / n + 1 / n_reference))
    assert mean_limit(probability, n, n_reference, dimensions) == pytest.approx(exact, rel=1e-9)


def test_an_odd_number_of_dimensions_is_never_less_careful() -> None:
    exact = math.sqrt(stats.chi2.isf(0.01, 3) / 500)
    assert exact < mean_limit(0.01, 500, 10**7, 3) == mean_limit(0.01, 500, 10**7, 4)


def test_vectors_of_one_distribution_exceed_the_mean_limit_as_rarely_as_it_says() -> None:
    random = np.random.default_rng(1)
    limit, beyond = mean_limit(0.05, 100, 80, 4), 0
    for _ in range(2000):
        reference, window = random.standard_normal((80, 4)), random.standard_normal((100, 4))
        difference = window.mean(0) - reference.mean(0)
        distance = math.sqrt(difference @ np.linalg.inv(np.cov(reference.T)) @ difference)
        beyond += distance > limit
    assert 0.035 < beyond / 2000 < 0.065


@pytest.mark.parametrize("probability", [0.01, 1e-5])
@pytest.mark.parametrize(("n", "successes", "n_reference"), [(500, 4, 843), (100, 0, 60), (500, 30, 6000)])
def test_the_count_limit_is_the_first_count_that_is_rarer(
    probability: float, n: int, successes: int, n_reference: int
) -> None:
    limit = count_limit(probability, n, successes, n_reference)
    counts = stats.betabinom(n, successes + 0.5, n_reference - successes + 0.5)
    assert counts.sf(limit - 1) <= probability < counts.sf(limit - 2)


def test_where_chance_could_make_any_count_the_limit_cannot_be_reached() -> None:
    assert count_limit(1e-9, 3, 1, 2) == 4


@pytest.mark.parametrize("probability", [0.5, 0.01, 1e-6])
def test_the_normal_limit_is_two_sided(probability: float) -> None:
    assert normal_limit(probability) == pytest.approx(stats.norm.isf(probability / 2), rel=1e-9)
