"""Limits that chance exceeds with a known probability, in closed form: how far a window may be from its reference."""

from __future__ import annotations

import math
from functools import lru_cache


def ks_limit(probability: float, n: int, n_reference: int) -> float:
    """The distance of two empirical distribution functions that chance exceeds with this probability (Smirnov 1939).

    ``P(D > d) <= 2 exp(-2 m d^2)`` with ``1 / m = 1 / n + 1 / n_reference`` (Massart 1990 for one sample, Wei and
    Dudley 2012 for two). When values repeat, the probability is smaller.

    Args:
        probability: in (0, 1).
        n: number of queries in the window.
        n_reference: number of queries of the reference.
    """
    return math.sqrt(math.log(2 / probability) / (2 * _effective(n, n_reference)))


@lru_cache(maxsize=4096)
def mean_limit(probability: float, n: int, n_reference: int, dimensions: int) -> float:
    """The Mahalanobis distance of two means that chance exceeds with this probability (Hotelling 1931).

    The distance uses the mean and the covariance of the reference. Means of many queries are taken as normal.

    Args:
        probability: in (0, 1).
        n: number of queries in the window.
        n_reference: number of queries of the reference, more than `dimensions`.
        dimensions: length of the vectors. An odd number counts as the next even one, whose tail has a closed form.
    """
    a = (dimensions + 1) // 2
    freedom = n_reference - 1
    b = max(freedom + 1 - 2 * a, 1) / 2
    low, high = 0.0, 1.0  # of T^2 / (T^2 + freedom), which is Beta(a, b)
    for _ in range(60):
        middle = (low + high) / 2
        if _beta_tail(a, b, middle) > probability:
            low = middle
        else:
            high = middle
    if high >= 1:
        return math.inf
    return math.sqrt(freedom * high / (1 - high) / _effective(n, n_reference))


@lru_cache(maxsize=4096)
def count_limit(probability: float, n: int, successes: int, n_reference: int) -> int:
    """The smallest count among n queries that chance reaches with at most this probability.

    The rate is known only from `successes` of `n_reference` queries. The count is therefore beta-binomial: its
    predictive distribution under Jeffreys' prior.

    Args:
        probability: in (0, 1).
        n: number of queries in the window.
        successes: how many queries of the reference were of the kind that is counted.
        n_reference: number of queries of the reference.

    Returns:
        A count from 1 to n + 1. No window reaches n + 1.
    """
    a, b = successes + 0.5, n_reference - successes + 0.5
    tail = 0.0
    for count in range(n, -1, -1):
        tail += math.exp(
            math.lgamma(n + 1)
            - math.lgamma(count + 1)
            - math.lgamma(n - count + 1)
            + _log_beta(count + a, n - count + b)
            - _log_beta(a, b)
        )
        if tail > probability:
            return count + 1
    return 1


@lru_cache(maxsize=64)
def normal_limit(probability: float) -> float:
    """The absolute value that a standard normal number exceeds with this probability."""
    low, high = 0.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(middle / math.sqrt(2)) > probability else (low, middle)
    return high


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a rate (Wilson 1927); (0, 1) when there were no trials."""
    if trials == 0:
        return 0.0, 1.0
    rate, share = successes / trials, z * z / trials
    centre = (rate + share / 2) / (1 + share)
    half = z / (1 + share) * math.sqrt(rate * (1 - rate) / trials + share / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def _effective(n: int, n_reference: int) -> float:
    return n * n_reference / (n + n_reference)


def _beta_tail(a: int, b: float, x: float) -> float:
    """P(X > x) for X ~ Beta(a, b), exact for an integer a (Abramowitz and Stegun 1964, 26.5.6)."""
    if x <= 0:
        return 1.0
    if x >= 1:
        return 0.0
    log_x, log_rest = math.log(x), math.log1p(-x)
    terms = (math.lgamma(b + j) - math.lgamma(b) - math.lgamma(j + 1) + j * log_x + b * log_rest for j in range(a))
    return sum(map(math.exp, terms))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
