"""The export gate of a verifier: the graph reproduces the network, or there is no bundle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...cascade.verifier import joined
from ...routers.base import Floats
from ...routers.errors import ExportError
from ...routers.session import Session
from .gate import PARITY_TOLERANCE, check_quantised

#: Pairs of the parity gate.
PARITY_PAIRS = 200


def check_verifier(
    session: Session,
    exact: Floats,
    compared: tuple[list[npt.NDArray[np.int32]], Floats],
    thresholds: Sequence[float],
    int8: bool,
) -> dict[str, float]:
    """Refuse a graph that does not reproduce the network, or an int8 one that escalates otherwise.

    Raises:
        ExportError: see `check_quantised` and `PARITY_TOLERANCE`.
    """
    ids, features = compared

    def run(some: Sequence[int]) -> Floats:
        return confidence_by_session(session, [ids[i] for i in some], features[list(some)])

    if int8:
        return check_quantised(exact, run(range(len(ids))), thresholds, None)
    together = run(range(min(len(ids), PARITY_PAIRS)))
    alone = np.concatenate([run([i]) for i in range(min(len(ids), 50))])
    found = {
        "parity_batched": float(np.abs(together - exact[: len(together)]).max()),
        "parity_single": float(np.abs(alone - exact[: len(alone)]).max()),
    }
    if not max(found.values()) <= PARITY_TOLERANCE:
        raise ExportError(f"the exported graph differs from the network by {max(found.values()):.2g}")
    return found


def confidence_by_session(session: Session, ids: list[npt.NDArray[np.int32]], features: Floats) -> Floats:
    """What a loaded graph says of n pairs of token ids and their features (n, k): float32 (n,)."""
    flat, lengths = joined(ids)
    outputs = session.run_ids(flat, lengths, features if features.shape[1] else None)
    return np.asarray(outputs[session.outputs.index("quality")][:, 0], np.float32)
