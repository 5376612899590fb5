"""The p-value of "the expected loss is larger than alpha", valid for every number and distribution of losses."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ...routers.errors import InputError, require
from ...training.fit.metrics import Array

#: A function of losses (n, k) of n independent queries at k thresholds, alpha and delta; it returns p-values (k,).
PValues = Callable[[Array, float, float], Array]

#: A bet never risks more than this share of the wealth: the constant `c` of Waudby-Smith and Ramdas (section 4.4).
LARGEST_BET = 0.75


def betting(losses: Array, alpha: float, delta: float) -> Array:
    """p-values by betting against the hypothesis: Waudby-Smith and Ramdas (arXiv 2010.09686), section 4, one-sided.

    The wealth ``prod(1 + bet_i * (alpha - loss_i))`` is a non-negative supermartingale while the expected loss is at
    least alpha, because bet_i depends on earlier losses alone. So the probability that the wealth ever exceeds 1/p is
    at most p (Ville 1939). The bets follow the estimated variance (the paper's "predictable plug-in" for a fixed n):
    where losses are rare the variance is small, the bets are large and the bound is tight. Negative losses (gains)
    count.

    Args:
        losses: (n, k) losses, each at most 1, in an order that does not depend on the losses.
        alpha: the largest expected loss, in (-1, 1).
        delta: the level that the bets are tuned to; the p-values are valid for every level.

    Returns:
        (k,) p-values in (0, 1].
    """
    n = len(losses)
    seen = np.arange(2, n + 2)[:, None]
    mean = np.cumsum(losses, axis=0) / seen
    variance = (0.25 + np.cumsum((losses - mean) ** 2, axis=0)) / seen
    before = np.vstack([np.full((1, losses.shape[1]), 0.25), variance[:-1]])
    bet = np.minimum(np.sqrt(2 * math.log(1 / delta) / (n * before)), LARGEST_BET / (1 - alpha))
    wealth = np.cumsum(np.log1p(bet * (alpha - losses)), axis=0)
    return np.exp(-np.maximum(wealth.max(axis=0), 0))


def clopper_pearson(losses: Array, alpha: float, delta: float) -> Array:
    """p-values by the exact binomial distribution of the queries with a loss (Clopper and Pearson 1934), one-sided.

    The p-values are exact for losses of 0 and 1. A gain counts as no loss, and a loss below 1 counts as 1.

    Args:
        losses: (n, k) losses, each at most 1.
        alpha: the largest expected loss, in (0, 1).
        delta: not used.

    Returns:
        (k,) p-values in [0, 1].
    """
    del delta
    stats = require("scipy.stats", "train")
    p_values: Array = stats.binom.cdf((losses > 0).sum(axis=0), len(losses), alpha)
    return p_values


#: The methods by their names.
METHODS: dict[str, PValues] = {"betting": betting, "clopper-pearson": clopper_pearson}


def p_values_of(method: str) -> PValues:
    """The function that computes p-values by a method.

    Raises:
        InputError: there is no method of this name.
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected one of {list(METHODS)}")
    return METHODS[method]


def fewest(method: str, alpha: float, delta: float) -> int:
    """The fewest queries that can show a loss of at most alpha, if none of them loses anything.

    Args:
        method: name of the method.
        alpha: the largest expected loss, in (0, 1).
        delta: level of the test.
    """
    if method == "clopper-pearson":
        return math.ceil(math.log(delta) / math.log1p(-alpha))
    return _smallest(lambda n: float(betting(np.zeros((n, 1)), alpha, delta)[0]) <= delta)


def upper_limit(p_values: PValues, losses: Array, delta: float) -> float:
    """The one-sided upper confidence limit of the expected loss: the smallest alpha that the losses show.

    Args:
        p_values: computes the p-values.
        losses: (n,) losses at one threshold.
        delta: 1 - confidence.
    """
    low, high = -1.0, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if float(p_values(losses[:, None], middle, delta)[0]) <= delta:
            high = middle
        else:
            low = middle
    return high


def _smallest(holds: Callable[[int], bool]) -> int:
    """The smallest n of 1 or more for which a condition holds that stays true once it is true."""
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
