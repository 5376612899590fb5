"""The export gate: the graph reproduces the network, or there is no bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...routers.base import Floats, Link, win_rate
from ...routers.bundle import Manifest, Truncation
from ...routers.errors import ExportError
from ...routers.golden import GOLDEN_QUERIES
from ...routers.query import Query
from ...routers.session import Session
from ..fit.metrics import Array, routing_curve
from .publish import Gate

Reference = Callable[[list[str]], Floats]

#: Largest |difference of scores| between torch and the exported graph, float32.
PARITY_TOLERANCE = 1e-4
#: Largest share of routing decisions that a quantised graph may turn, over the thresholds of the table.
LARGEST_FLIPS = 0.01
#: Largest loss of APGR by quantising.
LARGEST_APGR_DROP = 0.005
#: Texts that the parity gate compares torch and the graph on.
PARITY_TEXTS = 1000
_INSTEAD = "export float32: the same with resume and quantise 'none' trains nothing anew"


def parity_gate(
    reference: Reference, queries: Sequence[Query], truncation: Truncation, count: int = PARITY_TEXTS
) -> Gate:
    """A gate for float graphs: see `check_parity`.

    Args:
        reference: texts to quality (n, m), by torch.
        queries: of the training data; the first `count` are compared, with the golden ones.
        truncation: how much of a query is read.
        count: of queries.
    """

    def gate(session: Session, manifest: Manifest) -> Mapping[str, Any]:
        compared = texts_of([*GOLDEN_QUERIES, *queries[:count]], truncation)
        measured = check_parity(reference, session, compared, manifest.link, manifest.columns)
        return {**measured, "parity_texts": len(compared)}

    return gate


def texts_of(queries: Sequence[Query], truncation: Truncation) -> list[str]:
    """The texts that a router with this truncation reads."""
    return [truncation.read(query).text for query in queries]


def check_parity(
    reference: Reference,
    session: Session,
    texts: list[str],
    link: Link,
    columns: tuple[int, int],
) -> dict[str, float]:
    """Refuse a graph that does not reproduce the network, batched and single alike.

    Args:
        reference: texts to quality (n, m), by torch.
        session: the exported graph with its tokenizer.
        texts: n texts to compare on; a hundred of them also one at a time.
        link: how a score follows from two qualities.
        columns: of strong and weak.

    Returns:
        ``parity_batched`` and ``parity_single``: the largest |difference| of a quality or a score.

    Raises:
        ExportError: a difference exceeds `PARITY_TOLERANCE`.
    """
    expected = reference(texts)
    singles = slice(None, None, max(1, len(texts) // 100))
    alone = np.concatenate([session.run([text])[0]["quality"] for text in texts[singles]])
    measured = {
        "parity_batched": _difference(expected, session.run(texts)[0]["quality"], link, columns),
        "parity_single": _difference(expected[singles], alone, link, columns),
    }
    worst = max(measured.values())
    if not worst <= PARITY_TOLERANCE:  # written so that NaN is refused as well
        raise ExportError(f"the exported graph differs from the network by {worst:.2g}, over {PARITY_TOLERANCE:.0e}")
    return measured


def check_quantised(
    exact: Floats,
    quantised: Floats,
    thresholds: Sequence[float],
    outcomes: tuple[Array, Array] | None,
) -> dict[str, float]:
    """Refuse a quantised graph that routes otherwise than the network.

    Args:
        exact: (n,) scores of held-out queries by the float network.
        quantised: (n,) scores of the same by the quantised graph.
        thresholds: that decisions are compared at.
        outcomes: scores of the strong and of the weak model's answers, (n,) each, NaN where unknown; or None.

    Returns:
        ``flips``: the share of turned decisions over all thresholds; ``flips_at_worst``: at the threshold with most;
        ``largest_difference`` of a score; ``apgr_drop``, where outcomes say it.

    Raises:
        ExportError: more flips than `LARGEST_FLIPS`, or a larger drop than `LARGEST_APGR_DROP`.
    """
    turned = [float(((exact >= value) != (quantised >= value)).mean()) for value in thresholds]
    flips = float(np.mean(turned))
    measured = {
        "flips": flips,
        "flips_at_worst": max(turned),
        "largest_difference": float(np.abs(exact - quantised).max()),
    }
    if not flips <= LARGEST_FLIPS:
        raise ExportError(f"quantising turns {flips:.2%} of the decisions, over {LARGEST_FLIPS:.0%}; {_INSTEAD}")
    if outcomes is not None:
        known = ~np.isnan(outcomes[0] + outcomes[1])
        if known.sum() >= 100 and outcomes[0][known].mean() != outcomes[1][known].mean():
            measured["apgr_drop"] = _apgr(exact, outcomes, known) - _apgr(quantised, outcomes, known)
            if measured["apgr_drop"] > LARGEST_APGR_DROP:
                raise ExportError(
                    f"quantising costs {measured['apgr_drop']:.4f} APGR, over {LARGEST_APGR_DROP}; {_INSTEAD}"
                )
    return measured


def _apgr(scores: Floats, outcomes: tuple[Array, Array], known: npt.NDArray[np.bool_]) -> float:
    return routing_curve(scores[known], outcomes[0][known], outcomes[1][known]).apgr


def _difference(expected: Floats, actual: Floats, link: Link, columns: tuple[int, int]) -> float:
    strong, weak = columns
    scores = [win_rate(quality[:, strong], quality[:, weak], link) for quality in (expected, actual)]
    return float(max(np.abs(expected - actual).max(), np.abs(scores[0] - scores[1]).max()))
