"""Where a metric goes with more labels: ``limit + b · n ** -c``, fitted to the sizes that were measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: How fast the distance to the limit falls with the number of labels n: as n to the power of minus one of these.
EXPONENTS = (0.25, 0.5, 1.0)


def extrapolated(
    sizes: Sequence[int],
    values: Sequence[float],
    ahead: Sequence[int],
    *,
    falls: bool,
    exponents: Sequence[float] = EXPONENTS,
) -> list[float]:
    """Values at further sizes by ``limit + b · n ** -c``, fitted by least squares.

    b has the sign that more labels do not harm. Values that are not known give NaN.

    Args:
        sizes: k numbers of labels, rising.
        values: k values of a metric.
        ahead: further numbers of labels.
        falls: whether the metric falls where the router improves.
        exponents: the values that c may have.
    """
    x, y = np.asarray(sizes, np.float64), np.asarray(values, np.float64)
    if np.isnan(y).any():
        return [float("nan")] * len(ahead)
    best: tuple[float, list[float]] | None = None
    for exponent in exponents:
        power = x**-exponent
        centred = power - power.mean()
        slope = float(centred @ y) / max(float(centred @ centred), 1e-300)
        slope = max(slope, 0.0) if falls else min(slope, 0.0)
        residual = y - y.mean() - slope * centred
        error = float(residual @ residual)
        if best is None or error < best[0]:
            best = error, [float(y.mean() + slope * (size**-exponent - power.mean())) for size in ahead]
    assert best is not None
    return best[1]
