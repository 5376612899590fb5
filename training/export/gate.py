"""The export gate: where the exported graph does not reproduce the network, no bundle is written.

One gate serves all recipes. A float graph must give the network's numbers. An int8 graph, which rounds, must make the
network's decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...routers.base import win_rate
from ...routers.decision import Floats
from ...routers.errors import ExportError
from ...routers.golden import GOLDEN_QUERIES
from ...routers.learned import LearnedRouter
from ...routers.query import Query
from ..fit.metrics import Array, routing_curve
from .publish import Gate

#: Maps queries to quality (n, m), computed by the network.
NetworkQuality = Callable[[Sequence[Query]], Floats]

#: Largest |difference| between the network and the exported graph, float32, of a quality, a score or a confidence.
PARITY_TOLERANCE = 1e-4
#: Largest share of decisions that int8 may change, as the mean over the thresholds of the table.
LARGEST_FLIPS = 0.01
#: Largest loss of APGR by int8.
LARGEST_APGR_DROP = 0.005
#: Fewest queries with both models' scores from which the loss of APGR is measured.
LEAST_APGR_QUERIES = 100
#: Training queries that the parity gate compares, beside the golden queries.
PARITY_TEXTS = 1000
#: Rows that the parity gate also compares alone, not in a batch.
_SINGLE_ROWS = 100
_INSTEAD = "run again with resume and quantise 'none' (--resume --quantise none); nothing is retrained"


def parity_gate(by_network: NetworkQuality, queries: Sequence[Query], count: int = PARITY_TEXTS) -> Gate:
    """Make the gate of a float graph of a router.

    Args:
        by_network: queries to quality (n, m), computed by the network.
        queries: training queries; the first `count` are compared, beside the golden queries.
        count: number of training queries to compare.

    Returns:
        A gate that measures what `check_rows` does, and ``parity_texts``, the number of queries compared.
    """

    def gate(router: LearnedRouter) -> Mapping[str, Any]:
        compared = [*GOLDEN_QUERIES, *queries[:count]]
        return {**check_parity(by_network, router, compared), "parity_texts": len(compared)}

    return gate


def decision_gate(by_network: NetworkQuality, queries: Sequence[Query], outcomes: tuple[Array, Array]) -> Gate:
    """Make the gate of an int8 graph of a router.

    Args:
        by_network: queries to quality (n, m), computed by torch in float32.
        queries: n queries whose decisions are compared, held-out ones first.
        outcomes: scores of strong's and of weak's answers, (n,) each, NaN where unknown.

    Returns:
        A gate that measures what `check_quantised` does.
    """

    def gate(router: LearnedRouter) -> Mapping[str, Any]:
        exact, rounded = (_scores(router, quality(queries)) for quality in (by_network, router.quality))
        thresholds = [value for share, value in router.threshold_table if 0 < share < 1]
        return check_quantised(exact, rounded, thresholds, outcomes)

    return gate


def _scores(router: LearnedRouter, quality: Floats) -> Floats:
    strong, weak = router.manifest.columns
    return win_rate(quality[:, strong], quality[:, weak], router.link)


def check_parity(by_network: NetworkQuality, router: LearnedRouter, queries: Sequence[Query]) -> dict[str, float]:
    """Refuse an exported router that does not reproduce the network, in qualities and in scores.

    Args:
        by_network: queries to quality (n, m), computed by the network.
        router: the exported router.
        queries: n queries to compare.

    Returns:
        What `check_rows` measures.

    Raises:
        ExportError: a difference exceeds `PARITY_TOLERANCE`.
    """

    def with_score(quality: Floats) -> Floats:
        return np.column_stack([quality, _scores(router, quality)])

    def run(rows: Sequence[int]) -> Floats:
        return with_score(router.quality([queries[row] for row in rows]))

    return check_rows(with_score(by_network(queries)), run)


def check_rows(expected: Floats, run: Callable[[Sequence[int]], Floats]) -> dict[str, float]:
    """Refuse a graph that does not give the network's numbers, for rows in one batch and for rows alone.

    Args:
        expected: (n, k), the network's numbers.
        run: maps r row numbers to the graph's numbers (r, k) for these rows in one batch.

    Returns:
        ``parity_batched`` and ``parity_single``: the largest |difference| of a number, in a batch of all rows, and of
        some hundred rows one at a time.

    Raises:
        ExportError: a difference exceeds `PARITY_TOLERANCE`.
    """
    rows = list(range(len(expected)))
    singles = rows[:: max(1, len(expected) // _SINGLE_ROWS)]
    alone = np.concatenate([run([row]) for row in singles])
    measured = {
        "parity_batched": float(np.abs(expected - run(rows)).max()),
        "parity_single": float(np.abs(expected[singles] - alone).max()),
    }
    worst = max(measured.values())
    if not all(value <= PARITY_TOLERANCE for value in measured.values()):  # written so that NaN is refused as well
        raise ExportError(
            f"the exported graph differs from the network by {worst:.2g}; expected at most {PARITY_TOLERANCE:.0e}"
        )
    return measured


def check_quantised(
    exact: Floats,
    quantised: Floats,
    thresholds: Sequence[float],
    outcomes: tuple[Array, Array] | None,
) -> dict[str, float]:
    """Refuse an int8 graph that decides otherwise than the network.

    Args:
        exact: (n,), scores (of a verifier: confidences) of held-out queries by the float network.
        quantised: (n,), those of the same queries by the int8 graph.
        thresholds: the thresholds at which decisions are compared.
        outcomes: scores of strong's and of weak's answers, (n,) each, NaN where unknown; or None.

    Returns:
        ``flips``: the share of changed decisions, as the mean over the thresholds; ``flips_at_worst``: the share at the
        threshold with most; ``largest_difference``: the largest |difference| of a score; and, where the outcomes tell
        it, ``apgr_drop``: the loss of APGR (RouteLLM, arXiv 2406.18665).

    Raises:
        ExportError: more flips than `LARGEST_FLIPS`, or a larger drop than `LARGEST_APGR_DROP`.
    """
    changed = [float(((exact >= value) != (quantised >= value)).mean()) for value in thresholds]
    flips = float(np.mean(changed))
    measured = {
        "flips": flips,
        "flips_at_worst": max(changed),
        "largest_difference": float(np.abs(exact - quantised).max()),
    }
    if not flips <= LARGEST_FLIPS:
        raise ExportError(
            f"int8 changes {flips:.2%} of the decisions; expected at most {LARGEST_FLIPS:.0%}. To export float32, "
            f"{_INSTEAD}"
        )
    if outcomes is not None:
        known = ~np.isnan(outcomes[0] + outcomes[1])
        if known.sum() >= LEAST_APGR_QUERIES and outcomes[0][known].mean() != outcomes[1][known].mean():
            measured["apgr_drop"] = _apgr(exact, outcomes, known) - _apgr(quantised, outcomes, known)
            if measured["apgr_drop"] > LARGEST_APGR_DROP:
                raise ExportError(
                    f"int8 costs {measured['apgr_drop']:.4f} of APGR; expected at most {LARGEST_APGR_DROP}. To export "
                    f"float32, {_INSTEAD}"
                )
    return measured


def _apgr(scores: Floats, outcomes: tuple[Array, Array], known: npt.NDArray[np.bool_]) -> float:
    return routing_curve(scores[known], outcomes[0][known], outcomes[1][known]).apgr
