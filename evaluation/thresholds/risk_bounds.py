"""p-values of "the expected loss is larger than alpha", valid for every n and every distribution of bounded losses."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ...routers.errors import InputError, require
from ...training.fit.metrics import Array

#: Losses (n, k) of n independent queries at k thresholds, alpha, delta -> p-values (k,).
PValues = Callable[[Array, float, float], Array]

#: A bet never risks more than this share of what is there: at most `c` of Waudby-Smith and Ramdas (section 4.4).
LARGEST_BET = 0.75


def betting(losses: Array, alpha: float, delta: float) -> Array:
    """By betting against it: Waudby-Smith and Ramdas (arXiv 2010.09686), section 4, one-sided.

    The wealth ``prod(1 + bet_i * (alpha - loss_i))`` is a non-negative supermartingale while the expected loss is at
    least alpha, because bet_i depends on earlier losses alone; so it ever exceeds 1/p with probability at most p
    (Ville 1939). Bets follow the estimated variance (their "predictable plug-in" for a fixed n): rarely lost queries
    give small variances, large bets and tight bounds. Negative losses (gains) count.

    Args:
        losses: (n, k), at most 1 each, in an order that does not depend on them.
        alpha: in (-1, 1).
        delta: what the bets are tuned to; the p-values are valid whatever it is.

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
    """By the exact binomial of how many queries have a loss above 0 (Clopper and Pearson 1934), one-sided.

    Exact for losses of 0 and 1; gains are not counted, and a part of a loss counts in full.

    Args:
        losses: (n, k), at most 1 each.
        alpha: in (0, 1).
        delta: not used.

    Returns:
        (k,) p-values in [0, 1].
    """
    del delta
    stats = require("scipy.stats", "train")
    found: Array = stats.binom.cdf((losses > 0).sum(axis=0), len(losses), alpha)
    return found


METHODS: dict[str, PValues] = {"betting": betting, "clopper-pearson": clopper_pearson}


def p_values_of(method: str) -> PValues:
    """The method of this name.

    Raises:
        InputError: there is none.
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected one of {list(METHODS)}")
    return METHODS[method]


def fewest(method: str, alpha: float, delta: float) -> int:
    """Queries below which nothing can be shown, even if not one of them loses anything."""
    if method == "clopper-pearson":
        return math.ceil(math.log(delta) / math.log1p(-alpha))
    return _smallest(lambda n: float(betting(np.zeros((n, 1)), alpha, delta)[0]) <= delta)


def upper_limit(p_values: PValues, losses: Array, delta: float) -> float:
    """The smallest alpha that the losses (n,) of one threshold show: a one-sided upper confidence limit."""
    low, high = -1.0, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if float(p_values(losses[:, None], middle, delta)[0]) <= delta:
            high = middle
        else:
            low = middle
    return high


def _smallest(holds: Callable[[int], bool]) -> int:
    """The smallest n from 1 for which a rising condition holds."""
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
