"""One minimiser for every smooth fit: L-BFGS of scipy, with the gradient given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def minimise(
    loss_and_gradient: Callable[[Array], tuple[float, Array]], start: Array, iterations: int, tolerance: float = 1e-9
) -> Array:
    """Minimise a smooth function by L-BFGS (Liu and Nocedal 1989).

    Args:
        loss_and_gradient: maps a point (p,) to the loss and its gradient (p,).
        start: where to start, (p,).
        iterations: most iterations.
        tolerance: stop where an iteration lowers the loss by a smaller share.
    """
    from scipy.optimize import minimize

    result = minimize(
        loss_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": iterations, "maxcor": 20, "ftol": tolerance, "gtol": 1e-7, "maxfun": 4 * iterations},
    )
    return np.asarray(result.x, np.float64)
