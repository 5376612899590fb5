"""One thread for the numeric libraries: fits of small problems are faster so, and sums do not depend on the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..routers.errors import require


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread inside the block.

    A fit makes thousands of small products. Threads that wait for each other between them are slow, and many times
    slower where other processes want the cores. A sum in one thread also has the same last digit on every machine.

    Raises:
        MissingExtraError: scipy or scikit-learn is not installed.
    """
    # What has threads of its own must be there to be limited: scipy's copy of OpenBLAS, and OpenMP of scikit-learn.
    for module in ("scipy.linalg", "sklearn.cluster"):
        require(module, "train")
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
